"""The pictures of a run: what protocols and tokens look like before and after, as files with captions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from paka.benchmark import Benchmark
from paka.document import Figure
from paka.encoder import Encoder
from paka.features import Transform
from paka.figures.scores import scores_figure
from paka.outcome_pictures import OutcomePictures
from paka.per_class import ClassScore, class_scores
from paka.result import Result
from paka.scores import Score, changes
from paka.token_pictures import TokenPictures, TokenView


class Side(NamedTuple):
    """An encoder, and what the protocols made of it.

    Attributes:
        encoder: The encoder.
        results: Results by protocol.
        transform: Change of its tokens; None leaves them as they are.
    """

    encoder: Encoder
    results: Mapping[str, Result]
    transform: Transform | None = None


@dataclass(frozen=True)
class Gallery:
    """What can be seen of one comparison, or of one encoder alone.

    Attributes:
        name: What was done between before and after; empty for one encoder alone.
        overview: Figures of all protocols.
        protocols: Figures of single protocols, by name.
        tokens: Figures of the tokens themselves.
        classes: Scores of single classes, of the protocols that predict any.
    """

    name: str
    overview: Sequence[Figure]
    protocols: Mapping[str, Sequence[Figure]]
    tokens: Sequence[Figure]
    classes: Sequence[ClassScore]


def draw(
    folder: Path, benchmark: Benchmark, sides: Mapping[str, Side], scores: Sequence[Score]
) -> list[Gallery]:
    """Draw the pictures of a run, one gallery for each encoder that is compared with the first.

    Args:
        folder: Where the files go; with several galleries, into a folder of each.
        benchmark: Where all sides were scored.
        sides: What was scored, by name: the encoder as it was, and those that are compared with it, if any.
        scores: The rows of results.
    """
    (first, start), *others = sides.items()
    frame = benchmark.frame(start.encoder)
    tokens = TokenPictures(benchmark, frame)
    outcomes = OutcomePictures(benchmark, frame, tokens.images)
    views = {name: tokens.view(side.encoder, side.transform, name=name) for name, side in sides.items()}
    galleries = []
    for number, (name, side) in enumerate(others or [("", start)], start=1):
        place = folder / f"{number}-{_slug(name)}" if len(others) > 1 else folder
        compared = {"Before": start, "After": side} if others else {"Prediction": start}
        seen = {"Before": views[first], "After": views[name]} if others else {"Tokens": views[first]}
        rows = [score for score in scores if len(others) < 2 or score.method == name]
        classes = _classes(outcomes, compared, rows[0].method)
        galleries.append(
            Gallery(
                name,
                _overview(place, rows),
                _protocols(place, outcomes, compared, classes),
                _tokens(place, tokens, seen, joint=side.transform is None),
                classes,
            )
        )
    return galleries


def _slug(name: str) -> str:
    """Return a name as a folder may be called."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[-40:]


def _overview(folder: Path, scores: Sequence[Score]) -> list[Figure]:
    rows = changes(scores)
    if not rows:
        return []
    path = folder / "scores.png"
    metrics = list(dict.fromkeys(score.metric for score in scores if score.unit == "%"))
    scores_figure(path, rows, metric=", ".join(metrics))
    return [
        Figure(
            path,
            "Scores before and after. The band is the 95 % interval of the difference, drawn where the score after lies.",
            "Arrows from the score before to the score after: "
            + "; ".join(f"{row.label} {row.text}" for row in rows),
        )
    ]


def _classes(outcomes: OutcomePictures, sides: Mapping[str, Side], method: str) -> list[ClassScore]:
    before, *after = (side.results for side in sides.values())
    return [
        score
        for protocol, result in before.items()
        if outcomes.counts_classes(result)
        for score in class_scores(
            outcomes.benchmark, protocol, result, after[0][protocol] if after else None, method=method
        )
    ]


def _protocols(
    folder: Path, outcomes: OutcomePictures, sides: Mapping[str, Side], classes: Sequence[ClassScore]
) -> dict[str, list[Figure]]:
    """Draw what each protocol predicted."""
    drawn: dict[str, list[Figure]] = {}
    for protocol in next(iter(sides.values())).results:
        results = {title: side.results[protocol] for title, side in sides.items()}
        title, last = list(results.items())[-1]
        drawn[protocol] = []
        if outcomes.counts_classes(last) and outcomes.shows(last):
            drawn[protocol].append(outcomes.segmentation(folder / f"{protocol}.png", protocol, results))
        if outcomes.counts_classes(last):
            rows = [score for score in classes if score.protocol == protocol]
            drawn[protocol] += [
                outcomes.classes(folder / f"{protocol}_classes.png", protocol, rows),
                outcomes.confusion(folder / f"{protocol}_confusion.png", protocol, last, title),
            ]
        if outcomes.predicts_depth(last):
            drawn[protocol].append(outcomes.depth(folder / f"{protocol}.png", protocol, results))
    return drawn


def _tokens(
    folder: Path, tokens: TokenPictures, views: Mapping[str, TokenView], *, joint: bool
) -> list[Figure]:
    """Draw the tokens themselves."""
    found: list[Figure | None] = [tokens.draw_features(folder / "features.png", views, joint=joint)]
    if tokens.benchmark.query.classes:
        found.append(tokens.draw_kernels(folder / "kernels.png", views))
    if tokens.has_neighbours:
        found.append(tokens.draw_neighbours(folder / "neighbours.png", views))
    return [figure for figure in found if figure is not None]
