"""What a run leaves behind: the encoder, results, figures, the report and the closing table."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from paka import assembly, feature_visualizer, terminal, weights
from paka.benchmark import Benchmark
from paka.digests import write_digests
from paka.document import Figure
from paka.encoder import Encoder
from paka.encoder_spec import EncoderSpec
from paka.exporting import write_run_card
from paka.figures.curves import curves_figure
from paka.loading import ENCODER
from paka.pictures import Gallery, Side, draw
from paka.protocols.harm import HarmReport, harm_report, write_harm
from paka.provenance import command_line, provenance
from paka.resamples import FILE as RESAMPLES
from paka.resamples import write_resamples
from paka.result import Result
from paka.run_folder import RunFolder
from paka.run_report import RunReport, write_report
from paka.scores import Score, write_results
from paka.sweep_job import in_sweep


def write_evidence(
    cfg: DictConfig,
    facts: Mapping[str, str],
    encoder: Encoder,
    trained: Encoder,
    benchmark: Benchmark | None,
    before: Mapping[str, Result],
) -> RunReport:
    """Score the trained encoder, write results, figures and report, and print the closing table.

    Args:
        cfg: The run's configuration.
        facts: What the banner said.
        encoder: The encoder before.
        trained: The encoder after.
        benchmark: Where both are scored; None for unlabelled images.
        before: What the protocols made of `encoder`.

    Returns:
        What there is to report.
    """
    output_dir = Path(cfg.output_dir)
    path = output_dir / ENCODER
    told = {name: facts[name] for name in ("images", "exported") if name in facts}
    weights.save(trained.model, path, **weights_facts(cfg, trained), **told)
    write_digests(output_dir, [path.name])
    scores: list[Score] = []
    galleries: list[Gallery] = []
    harm: dict[str, HarmReport] = {}
    if benchmark is not None:
        after = benchmark.run(trained)
        scores = benchmark.compare(before, after, method=cfg.method)
        write_results(output_dir / "results.csv", scores)
        kept = output_dir / RESAMPLES
        write_resamples(kept, before, {cfg.method: after}, resamples=benchmark.profile.bootstrap)
        sides = {"before": Side(encoder, before), cfg.method: Side(trained, after)}
        galleries = draw(output_dir / "figures", benchmark, sides, scores)
        harm = {cfg.method: harm_report(benchmark.tokens(encoder), benchmark.tokens(trained))}
        write_harm(output_dir / "harm.csv", harm)
    report = RunReport(
        title=cfg.run_name,
        facts={name: fact for name, fact in facts.items() if name not in ("forecast", "folder")},
        scores=scores,
        command=command_line(),
        provenance=provenance(),
        galleries=galleries,
        training=[draw_curves(output_dir), *feature_visualizer.figures(output_dir / "figures")],
        harm=harm,
        skipped={} if benchmark is None else benchmark.skipped,
        loading=assembly.loading_lines(cfg, path),
    )
    written = write_report(output_dir, report)
    write_run_card(RunFolder(output_dir), trained)
    others = ("results.csv", "harm.csv", "metrics.csv", "skipped.csv", "choice.csv")
    animation = output_dir / "figures" / feature_visualizer.ANIMATION
    paths = {
        path.name: path,
        **written,
        **{name: output_dir / name for name in others},
        animation.name: animation,
    }
    terminal.closing(scores, {name: path for name, path in paths.items() if path.exists()}, next_command(cfg))
    return report


def weights_facts(cfg: DictConfig, encoder: Encoder) -> dict[str, str]:
    """Return what has to travel with the weights to use them, and to be allowed to."""
    node: Any = OmegaConf.to_container(cfg.backbone.encoder, resolve=True)
    return {
        **EncoderSpec.configured(node, cfg.backbone.global_grid).metadata(),
        "licence_of_start": assembly.licence(cfg, encoder),
        "pos_embed": str(cfg.backbone.encoder.resampling or "timm"),
    }


def next_command(cfg: DictConfig) -> str | None:
    """Return a command that shows something new after this run, in a folder of its own: another kernel or bandwidth.

    None in a sweep, which says itself what comes next.
    """
    if in_sweep(cfg):
        return None
    rbf = HydraConfig.get().runtime.choices["kernel"] == "rbf"
    return command_line(
        "kernel.bandwidth=0.5" if rbf else "kernel=rbf", without=("resume", "hydra.run.dir", "output_dir")
    )


def draw_curves(output_dir: Path) -> Figure:
    """Draw the training curves of `metrics.csv`."""
    with (output_dir / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = [name for name in ("loss", "cka", "rankme", "tag_accuracy") if any(row.get(name) for row in rows)]
    logged = [row for row in rows if row.get("loss")]
    series = {name: [float(row[name]) for row in logged] for name in names}
    validation = {
        name.removeprefix("val/"): _column(rows, name) for name in rows[0] if name.startswith("val/")
    }
    steps = [int(row["step"]) for row in logged]
    path = output_dir / "figures" / "curves.png"
    curves_figure(path, steps, series, validation=validation or None)
    ends = [f"{name} from {values[0]:.3g} to {values[-1]:.3g}" for name, values in series.items() if values]
    return Figure(path, "Training curves over the optimizer steps.", f"Curves: {', '.join(ends)}")


def _column(rows: list[dict[str, str]], name: str) -> tuple[list[int], list[float]]:
    """Return the steps at which `name` was logged, and its values."""
    logged = [row for row in rows if row[name]]
    return [int(row["step"]) for row in logged], [float(row[name]) for row in logged]
