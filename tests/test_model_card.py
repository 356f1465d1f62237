"""Model cards: Markdown that renders, front matter that parses, and every field in its place."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt
from omegaconf import OmegaConf
from tests.configurations import composed
from tests.runs import SCORES, write_run

from paka import weights
from paka.encoder_spec import read_metadata
from paka.exporting import export, write_run_card
from paka.model_card import Licence, escaped
from paka.provenance import private
from paka.run_folder import RunFolder
from paka.scores import format_rows, layout

ARCH = "backbone.encoder.arch={depth: 1, embed_dim: 48, num_heads: 2, img_size: 32, patch_size: 8}"
HEADINGS = ["Load it", "Results", "Training", "Configuration", "Licence", "Limits", "Made by", "Cite"]


def card_of(run: Path, *overrides: str, **options: object) -> tuple[dict[str, object], str]:
    """Front matter and text of a run's card."""
    write_run(run, ARCH, "backbone.global_grid=4", *overrides, **options)  # type: ignore[arg-type]
    export(composed(f"run='{run}'", name="export"))
    _, front, text = (run / "export" / "timm" / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object], str]:
    run = tmp_path_factory.mktemp("cards") / "a run"
    return run, *card_of(run, scores=SCORES)


def rendered(text: str) -> tuple[list[str], list[list[str]]]:
    """Headings, and the cells of each table, as a reader sees them."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    assert not [token for token in tokens if token.type == "html_block"]
    headings = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
    tables: list[list[str]] = []
    for i, token in enumerate(tokens):
        if token.type == "table_open":
            tables.append([])
        elif token.type in ("td_open", "th_open"):
            tables[-1].append(tokens[i + 1].content)
    return headings, tables


def test_the_front_matter_says_what_the_hub_asks_for(scored: tuple[Path, dict[str, object], str]) -> None:
    _, front, _ = scored
    assert front["library_name"] == "timm"
    assert front["pipeline_tag"] == "image-feature-extraction"
    assert {"paka", "dense-features", "self-supervised-learning"} <= {*front["tags"]}  # type: ignore[misc]
    assert front["license"] == "unknown"  # random weights


def test_it_renders_and_holds_every_field(scored: tuple[Path, dict[str, object], str]) -> None:
    run, _, text = scored
    headings, tables = rendered(text)
    assert headings == ["a run/of_mine", *HEADINGS]
    results, choices, versions, files = tables
    _, header, rows = layout(SCORES)
    assert results[: len(header)] == [*header]
    plain = [cell.removesuffix(" ✓") for cell in results[len(header) :]]
    assert plain == [cell for row in rows for cell in row]
    assert "+5.17 ✓" in results
    _, written = format_rows(SCORES)
    assert all(cell in text for row in written for cell in row[6:8])
    assert {"kernel", "linear", "objective", "paka"} <= {*choices}
    assert "sweep" not in choices
    assert {"0123abc", "3.12.1", "torch 2.14.1, timm 1.0.31"} <= {*versions}
    for name in ("config.json", "model.safetensors"):
        file = run / "export" / "timm" / name
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        assert [name, str(file.stat().st_size), f"`{digest}`"] == files[files.index(name) :][:3]
    source = hashlib.sha256((run / "encoder.safetensors").read_bytes()).hexdigest()
    for said in (
        "profile compact",
        "scenes, 16 of them, no mask read",
        "1000 of 32 images, seed 0",
        "**objective**: paka",
        "**kernel**: linear",
        "seed=0\nrun_name=a run/of_mine",
        "python -m paka.train seed=0",
        "random weights",
        source,
        "hf upload USER/NAME .",
        "@article{yeo2025paka",
        "differ from paka's by at most",
    ):
        assert said in text, said


def test_a_run_has_a_card_of_its_own(tmp_path: Path) -> None:
    run = tmp_path / "run"
    encoder = write_run(run, ARCH, "backbone.global_grid=4", scores=SCORES)
    write_run_card(RunFolder(run), encoder)
    text = (run / "model_card.md").read_text().split("---\n", 2)[2]
    headings, tables = rendered(text)
    assert headings[1:] == HEADINGS
    assert len(tables) == 3
    digest = hashlib.sha256((run / "encoder.safetensors").read_bytes()).hexdigest()
    for said in ("+5.17 ✓", digest, "teacher after the last step", 'load_file("encoder.safetensors")'):
        assert said in text, said
    assert "hf upload" not in text  # a run's folder is no publication


@pytest.mark.parametrize("key", ["init_from", "backbone.weights"])
@pytest.mark.parametrize("known", [True, False])
def test_weights_that_were_started_from_are_told(
    key: str, known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    timms = ["backbone=timm", "backbone.name=vit_tiny_patch16_224.augreg_in21k_ft_in1k"]
    start, run = tmp_path / "start.safetensors", tmp_path / "run"
    encoder = write_run(tmp_path / "other", *timms, ARCH)
    weights.save(encoder.model, start, **({"licence_of_start": "dinov3-license"} if known else {}))
    write_run(run, *timms, ARCH, f"{key}={start}", "backbone.global_grid=4")
    cfg = OmegaConf.load(run / "config.yaml")
    cfg.backbone.pretrained = True
    OmegaConf.save(cfg, run / "config.yaml")
    export(composed(f"run='{run}'", name="export"))
    _, front, text = (run / "export" / "timm" / "README.md").read_text().split("---\n", 2)
    assert "base_model" not in front
    metadata = read_metadata(run / "export" / "timm" / "model.safetensors")
    assert str(tmp_path) not in text + front + str(metadata)
    if known:
        assert yaml.safe_load(front)["license_name"] == metadata["licence_of_start"] == "dinov3-license"
    else:
        assert "that of ~/start.safetensors" in metadata["licence_of_start"]


def test_the_published_weights_are_named_where_the_run_began_with_them(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_run(run, "backbone=timm", "backbone.name=vit_tiny_patch16_224", ARCH, "backbone.global_grid=4")
    cfg = OmegaConf.load(run / "config.yaml")
    cfg.backbone.pretrained = True
    OmegaConf.save(cfg, run / "config.yaml")
    export(composed(f"run='{run}'", name="export"))
    assert '\nbase_model: "timm/vit_tiny_patch16_224' in (run / "export" / "timm" / "README.md").read_text()


def test_tags_are_admitted_and_no_kernel_is_claimed(tmp_path: Path) -> None:
    front, text = card_of(tmp_path / "run", "objective=image_tags", "augmentation=image_level")
    assert "without labels" not in text
    assert "No label" not in text
    assert "post-trained on tags of images" in text
    assert "self-supervised-learning" not in front["tags"]  # type: ignore[operator]
    assert "**kernel**" not in text


def test_a_run_without_evaluation_says_that_nothing_is_known(tmp_path: Path) -> None:
    _, text = card_of(tmp_path / "run")
    headings, tables = rendered(text)
    assert headings[1:] == HEADINGS
    assert len(tables) == 3
    assert "Not scored: whether the tokens got better, and at what, is not known." in text


def test_what_hydra_did_not_record_is_said(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_run(run, ARCH, "backbone.global_grid=4")
    (run / ".hydra" / "hydra.yaml").unlink()
    (run / "provenance.json").unlink()
    export(composed(f"run='{run}'", name="export"))
    text = (run / "export" / "timm" / "README.md").read_text()
    assert "Options of its groups: not recorded." in text
    assert "not recorded" in text.partition("The run:")[2]


@pytest.mark.parametrize(
    ("licence", "front", "said"),
    [
        (Licence("apache-2.0"), {"license": "apache-2.0"}, "commercially too"),
        (Licence("cc-by-nc-4.0"), {"license": "cc-by-nc-4.0"}, "must not be used commercially"),
        (
            Licence("dinov3-license"),
            {"license": "other", "license_name": "dinov3-license"},
            "pass that licence on",
        ),
        (Licence("some-license"), {"license": "other", "license_name": "some-license"}, "Read it before"),
        (Licence("unknown"), {"license": "unknown"}, "find it before"),
        (
            Licence("that of f.pth; timm's own: mit"),
            {"license": "unknown"},
            r"that of f.pth; timm's own: mit",
        ),
        (Licence("none: random weights", random=True), {"license": "unknown"}, "chooses one"),
    ],
)
def test_licences_and_their_consequences(licence: Licence, front: dict[str, str], said: str) -> None:
    assert licence.front == front
    assert said in licence.sentence


def test_punctuation_does_not_get_through() -> None:
    words = "a*b* [c](d) <e> `f` | g \\ # h"
    (inline,) = MarkdownIt("commonmark").parseInline(escaped(words))
    assert {child.type for child in inline.children or []} <= {"text", "text_special"}
    assert "".join(child.content for child in inline.children or []) == words


@pytest.mark.parametrize(
    ("home", "text", "shown"),
    [
        ("/home/al", "data.root=/home/al/images '/home/al/my run' [/home/al]", "data.root=~/images '~/my run' [~]"),
        ("/home/al", "that of /home/al/start.pth; timm's own", "that of ~/start.pth; timm's own"),
        ("/home/al", "/home/al", "~"),
        ("/home/al", "/home/alice/x /home/al-other/x /home/al.old", "/home/alice/x /home/al-other/x /home/al.old"),
        ("/al", "/data/al/coco /al/coco", "/data/al/coco ~/coco"),
        ("/", "/data /x", "/data /x"),
    ],
)  # fmt: skip
def test_home_folders_do_not_get_through(
    home: str, text: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", home)
    assert private(text) == shown
