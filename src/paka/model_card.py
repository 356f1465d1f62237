"""The model card of a run, or of an export as its README.md: with the hub's front matter, from what the folder of the run holds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from paka.document import Cell, Table
from paka.markdown_report import written
from paka.run_report import mark_of
from paka.scores import Score, layout, left_aligned

FILE = "model_card.md"
"""What a run calls the card of its encoder."""

HUB_LICENCES = (
    "apache-2.0",
    "mit",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0",
    "bsd-3-clause",
    "cc0-1.0",
)
"""Licences that the hub knows by the name that timm gives them; others are `other` with a name."""

CONSEQUENCES = {
    "apache-2.0": "They may be used, changed and passed on, commercially too; keep the licence and its notices with them, and say that they were changed.",
    "mit": "They may be used, changed and passed on, commercially too; keep the licence and the copyright notice with them.",
    "cc-by-4.0": "They may be used, changed and passed on, commercially too; name their authors and say that they were changed.",
    "cc-by-nc-4.0": "They must not be used commercially; name their authors and say that they were changed.",
    "dinov3-license": "Whoever passes them on has to pass that licence on with them, and its limits of use hold for these too.",
    "fair-noncommercial-research-license": "They are for non-commercial research only.",
    "nvidia-open-model-license": "Whoever passes them on has to pass that licence and its notice on with them.",
}
"""What licences of weights mean for weights that are made of them."""

_PUNCTUATION = re.compile(r"([\\`*\[\]<>|#~])")


@dataclass(frozen=True)
class Licence:
    """The licence of the weights that a run started from.

    Attributes:
        name: As timm records it, `unknown`, or a sentence.
        random: Whether the run started from random weights.
    """

    name: str
    random: bool = False

    @property
    def front(self) -> dict[str, str]:
        """What the front matter says."""
        if self.random or " " in self.name or self.name == "unknown":
            return {"license": "unknown"}
        return (
            {"license": self.name}
            if self.name in HUB_LICENCES
            else {"license": "other", "license_name": self.name}
        )

    @property
    def sentence(self) -> str:
        """What it means."""
        if self.random:
            return "The run started from random weights, so no licence of other weights binds these: whoever publishes them chooses one."
        if self.front["license"] == "unknown":
            return (
                f"Of the weights that the run started from is known: {escaped(self.name)}. These are made of them, and their licence holds: find it before you "
                "pass these on, and put it into the first lines of this file."
            )
        known = CONSEQUENCES.get(self.name, "Read it before you use these or pass them on.")
        return f"The weights that the run started from are under {self.name}; these are made of them, and it holds for them too. {known}"


@dataclass(frozen=True)
class ModelCard:
    """What a model card says.

    Attributes:
        title: Heading.
        format: What the export is in, in a few words.
        library: What loads it, by the hub's name.
        base_model: Name of the start weights on the hub; empty if they are not of it.
        licence: Of the start weights.
        encoder: Facts about the encoder, by name.
        training: Facts about the training, by name.
        tagged: Whether the objective was told the images' tags.
        choices: Options of the configuration's groups, by group.
        overrides: What was set on the command line.
        scores: Rows of results before and after.
        unscored: Why there are none, in a sentence.
        loading: Lines of Python that load it.
        with_paka: Whether `paka.load` loads it too.
        checked: How it was compared with what was trained.
        notes: What else whoever loads it has to know.
        files: Size in bytes and SHA-256 by name of an export's files; none for a run's card.
        source: Name and SHA-256 of the file that was exported.
        commands: Command lines by what they did.
        versions: Versions by what was run with them.
    """

    title: str
    format: str
    library: str
    base_model: str
    licence: Licence
    encoder: Mapping[str, str]
    training: Mapping[str, str]
    tagged: bool
    choices: Mapping[str, str]
    overrides: Sequence[str]
    scores: Sequence[Score]
    unscored: str
    loading: str
    with_paka: bool
    checked: str
    notes: Sequence[str]
    files: Mapping[str, tuple[int, str]]
    source: tuple[str, str]
    commands: Mapping[str, str]
    versions: Mapping[str, Mapping[str, str]]

    def text(self) -> str:
        """Return the card as Markdown."""
        return _template().render(card=self, front=self._front(), results=_results(self.scores))

    def _front(self) -> dict[str, Any]:
        """Return the front matter."""
        tags = [
            "paka",
            *([] if self.tagged else ["self-supervised-learning"]),
            "dense-features",
            "vision-transformer",
            "image-feature-extraction",
        ]
        base = {"base_model": self.base_model, "base_model_relation": "finetune"} if self.base_model else {}
        return {
            **self.licence.front,
            "library_name": self.library,
            "pipeline_tag": "image-feature-extraction",
            "tags": tags,
            **base,
        }


def _results(scores: Sequence[Score]) -> str:
    """Return the table of results as Markdown; empty without scores."""
    if not scores:
        return ""
    caption, header, rows = layout(scores)
    cells = [
        [
            Cell(text, mark_of(score)) if name == "delta" else text
            for name, text in zip(header, row, strict=True)
        ]
        for row, score in zip(rows, scores, strict=True)
    ]
    return written(Table(header, cells, left_aligned(header), f"{escaped(caption)}."), Path())


def escaped(text: str) -> str:
    """Return words as Markdown shows them, whatever punctuation they have."""
    return _PUNCTUATION.sub(r"\\\1", " ".join(str(text).split()))


def _fenced(text: str, language: str = "") -> str:
    """Return lines as a block of code, whatever backticks they have."""
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.strip()}\n{fence}"


@cache
def _template() -> jinja2.Template:
    """Return the template of the card."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("paka"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - Markdown, whose punctuation `escaped` sees to
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "escaped": escaped,
        "fenced": _fenced,
        "yaml": lambda value: json.dumps(value, ensure_ascii=False),
    }
    return environment.get_template("model_card.md")
