"""Scoring frozen tokens: a backbone alone, or against other weights or a training-free change of its tokens."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from torch import Tensor

from paka import assembly, terminal, weights
from paka.assembly import Room
from paka.benchmark import Benchmark
from paka.choice import Estimates, estimate, tables
from paka.choice import write as write_estimates
from paka.collectives import group_of_processes, is_first
from paka.encoder import Encoder
from paka.features import TRANSFORMS
from paka.loggers import publish
from paka.pictures import Gallery, Side, draw
from paka.progress import Steps, showing, step
from paka.protocols.harm import HarmReport, harm_report, write_harm
from paka.provenance import command_line, provenance, write_provenance
from paka.resamples import FILE as RESAMPLES
from paka.resamples import write_resamples
from paka.result import Result, printed
from paka.run_folder import save_config
from paka.run_report import RunReport, write_report
from paka.scores import Score, write_results
from paka.snapshots import snapshots

DRAWN = 3
"""Candidates that are drawn at most; the others are in tables only."""


def evaluate(cfg: DictConfig) -> float | None:
    """Run the configured protocols and write results, confusion matrices and a report into the run's folder.

    Args:
        cfg: The composed and validated evaluation configuration.

    Returns:
        The score of the first protocol: of the first candidate if there is one, else of the backbone.

    Raises:
        ValueError: There is nothing to score, or a candidate does not fit the backbone.
    """
    with group_of_processes(cfg.cache) as shared:
        return _evaluate(cfg, assembly.build_room(cfg, shared=shared))


def _evaluate(cfg: DictConfig, room: Room) -> float | None:
    """Evaluate on this process, which shares the work where there are several."""
    encoder = assembly.build_encoder(cfg)
    others = {name: _load(encoder, path) for name, path in _names(cfg.compare).items()}
    benchmark = assembly.build_benchmark(cfg, cfg.split, encoder, room=room, changed=cfg.features != "none")
    if benchmark is None:
        message = "nothing to score: choose a benchmark with labels and at least one protocol"
        raise ValueError(message)
    transform = TRANSFORMS[cfg.features]
    if transform is not None and not others:
        others = {cfg.features: encoder}
    loggers = assembly.build_loggers(cfg) if is_first() else []
    with assembly.logging(cfg, loggers):
        scores, report = _scored_and_reported(cfg, encoder, others, benchmark)
        if report is not None:
            publish(loggers, Path(cfg.output_dir), report)
    first = scores[0]
    return first.before if first.after is None else first.after


def _scored_and_reported(
    cfg: DictConfig, encoder: Encoder, others: Mapping[str, Encoder], benchmark: Benchmark
) -> tuple[list[Score], RunReport | None]:
    """Return the rows of results, and on the first process the report."""
    transform = TRANSFORMS[cfg.features]
    console = terminal.standard_output()
    report = None
    steps = Steps([*benchmark.steps(1 + len(others)), "draw"])
    if is_first():
        _announce(cfg, _facts(cfg, encoder, benchmark), console)
    with showing(steps, console, "evaluate") if is_first() else nullcontext():
        sides = {"before": Side(encoder, benchmark.run(encoder, name="before" if others else ""))}
        for name, other in others.items():
            sides[name] = Side(other, benchmark.run(other, transform, name=name), transform)
        scores = _scores(cfg, benchmark, sides)
        if is_first():
            report = _conclude(cfg, benchmark.alone(), sides, scores)
    return scores, report


def _announce(cfg: DictConfig, facts: Mapping[str, str], console: Console) -> None:
    """Print the banner, and write the resolved configuration and where the run came from."""
    output_dir = Path(cfg.output_dir)
    save_config(output_dir, cfg)
    write_provenance(output_dir / "provenance.json")
    terminal.banner("paka: evaluation of frozen patch tokens", facts, console=console)


def _conclude(
    cfg: DictConfig, benchmark: Benchmark, sides: Mapping[str, Side], scores: Sequence[Score]
) -> RunReport:
    """Write everything that the run leaves, print its table, and return the report."""
    output_dir = Path(cfg.output_dir)
    files = _write(output_dir, benchmark, scores, sides)  # first: nothing that follows can lose it
    drawn = _drawn(sides)
    with step("draw", "draw pictures"):
        galleries = draw(output_dir / "figures", benchmark, drawn, scores)
    harm = _harm(benchmark, sides) if cfg.compare else {}
    estimates = _estimates(cfg, benchmark, sides)
    choice = [] if estimates is None else tables(estimates, _scored(sides))
    reported = _run_report(cfg, benchmark, sides, scores, galleries)
    shown = {name: found for name, found in harm.items() if name in drawn}
    reported = replace(reported, harm=shown, choice=choice)
    paths = {**write_report(output_dir, reported), **files}
    if harm:
        paths["harm.csv"] = write_harm(output_dir / "harm.csv", harm)
    if estimates is not None:
        paths["choice.csv"] = write_estimates(output_dir / "choice.csv", estimates)
    alone = harm if len(harm) == 1 else {}
    terminal.closing(
        scores, paths, command_line("features=whiten"), skipped=benchmark.skipped, harm=alone, choice=choice
    )
    return reported


def _drawn(sides: Mapping[str, Side]) -> dict[str, Side]:
    """Return the sides that pictures show: the first, and up to `DRAWN` of the others, evenly spaced."""
    first, *others = sides
    places = np.linspace(0, len(others) - 1, min(DRAWN, len(others))).astype(int)
    return {name: sides[name] for name in (first, *(others[place] for place in places))}


def _estimates(cfg: DictConfig, benchmark: Benchmark, sides: Mapping[str, Side]) -> Estimates | None:
    """Return what can be said of several encoders without labels, if there are several."""
    if not cfg.compare or len(sides) < 3:
        return None
    features = ((name, benchmark.features(side.encoder)) for name, side in sides.items())
    return estimate(features, len(sides), seed=cfg.seed)


def _scored(sides: Mapping[str, Side]) -> dict[str, dict[str, float]]:
    """Return the first score of each protocol for each encoder, the higher the better: errors with a minus."""
    start = next(iter(sides.values())).results
    return {
        protocol: {
            name: (1 if side.results[protocol].metrics[0].rises else -1) * printed(side.results[protocol])
            for name, side in sides.items()
        }
        for protocol in start
    }


def _run_report(
    cfg: DictConfig,
    benchmark: Benchmark,
    sides: Mapping[str, Side],
    scores: Sequence[Score],
    galleries: Sequence[Gallery],
) -> RunReport:
    start = next(iter(sides.values())).encoder
    facts = {**_facts(cfg, start, benchmark), **_images(benchmark)}
    left_out = ("folder",) if len(sides) > 1 else ("folder", "compared")
    return RunReport(
        title=cfg.run_name,
        facts={name: fact for name, fact in facts.items() if name not in left_out},
        scores=scores,
        command=command_line(),
        provenance=provenance(),
        galleries=galleries,
        skipped=benchmark.skipped,
        loading="\n".join(assembly.loading_lines(cfg, Path(path)) for path in _files(cfg.compare)),
    )


def _harm(benchmark: Benchmark, sides: Mapping[str, Side]) -> dict[str, HarmReport]:
    """Return what changed in the tokens beside the scores, by candidate."""
    (_, start), *others = sides.items()
    return {
        name: harm_report(benchmark.tokens(start.encoder), benchmark.tokens(side.encoder))
        for name, side in others
    }


def _images(benchmark: Benchmark) -> dict[str, str]:
    """Return how many images were scored, and how many memories and probes were built from."""
    scored = f"{len(benchmark.images('query'))} scored"
    train = None if benchmark.train is None else benchmark.images("train")
    labelled = "" if train is None else f", {len(train)} of {train.split} for memory and probes"
    return {"images": scored + labelled}


def _facts(cfg: DictConfig, encoder: Encoder, benchmark: Benchmark) -> dict[str, str]:
    changed = cfg.features != "none" or not cfg.compare
    return {
        "backbone": f"{cfg.backbone.name}, {assembly.starting_point(cfg)}",
        "licence": assembly.licence(cfg, encoder),
        "compared": ", ".join([*cfg.compare, *([f"features={cfg.features}"] if changed else [])]),
        "scored on": f"{benchmark.query.name} {benchmark.query.split}, {', '.join(benchmark.protocols)}",
        "folder": terminal.from_here(cfg.output_dir),
    }


def _scores(cfg: DictConfig, benchmark: Benchmark, sides: Mapping[str, Side]) -> list[Score]:
    """Return the rows of each candidate against the backbone, or those of the backbone alone."""
    (_, start), *others = sides.items()
    if not others:
        return benchmark.compare(start.results, None, method=cfg.method or "")
    only = cfg.method if len(others) == 1 else None
    return [
        score
        for name, side in others
        for score in benchmark.compare(start.results, side.results, method=only or name)
    ]


def _write(
    output_dir: Path, benchmark: Benchmark, scores: Sequence[Score], sides: Mapping[str, Side]
) -> dict[str, Path]:
    """Write scores as CSV and JSON, and the counts that they are computed from; return the files by name."""
    write_results(output_dir / "results.csv", scores)
    rows = {"scores": [asdict(score) for score in scores], "skipped": dict(benchmark.skipped)}
    (output_dir / "results.json").write_text(json.dumps(rows, indent=2) + "\n")
    counts = {
        f"{protocol}.{name}": _recomputable(result).numpy()
        for name, side in sides.items()
        for protocol, result in side.results.items()
    }
    np.savez_compressed(output_dir / "counts.npz", **counts)  # type: ignore[arg-type]  # numpy's stub takes them for its flag
    (_, start), *others = sides.items()
    methods = dict.fromkeys(score.method for score in scores)
    after = {method: side.results for method, (_, side) in zip(methods, others, strict=False)}
    write_resamples(output_dir / RESAMPLES, start.results, after, resamples=benchmark.profile.bootstrap)
    return {name: output_dir / name for name in ("results.csv", "results.json", "counts.npz", RESAMPLES)}


def _recomputable(result: Result) -> Tensor:
    """Return what the scores can be computed from again: sums over the images where that is enough."""
    return result.counts if any(metric.weighs for metric in result.metrics) else result.counts.sum(dim=0)


def _files(paths: Sequence[str]) -> list[str]:
    """Return files of weights: those that are named, and those in the folders that are.

    Raises:
        FileNotFoundError: A folder has none.
        ValueError: One is named twice.
    """
    files = [
        str(file) for path in paths for file in (snapshots(Path(path)) if Path(path).is_dir() else [path])
    ]
    empty = [path for path in paths if Path(path).is_dir() and not snapshots(Path(path))]
    if empty:
        raise FileNotFoundError(
            f"expected .safetensors files in {empty[0]}, found none: name a folder of snapshots, or files"
        )
    if len(set(files)) < len(files):
        raise ValueError(f"expected different files to compare, got {', '.join(files)}: name each once")
    return files


def _names(paths: Sequence[str]) -> dict[str, str]:
    """Return what each file is called in tables: by its folder or its own name, or by both where that is not enough."""
    files = _files(paths)
    paths_of = [Path(file) for file in files]
    for names in ([path.resolve().parent.name for path in paths_of], [path.stem for path in paths_of]):
        if len({*names}) == len(files) and not {*names} & {"", "before"}:
            return dict(zip(names, files, strict=True))
    return {file: file for file in files}


def _load(encoder: Encoder, path: str) -> Encoder:
    other = copy.deepcopy(encoder)
    weights.load_file(other.model, path)
    return other
