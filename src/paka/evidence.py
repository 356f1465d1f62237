"""What a run leaves behind: the encoder, results, figures, the report and the closing table."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor
from torch.nn import functional as F

from paka import assembly, report, visualize, weights
from paka.benchmark import Benchmark, Result
from paka.encoder import Encoder, timm_options
from paka.features import extract, read_images, read_masks
from paka.frames import Frame
from paka.protocols import shown
from paka.provenance import command_line
from paka.scores import Score, changes, write_results
from paka.statistics import mean_iou


def write_evidence(
    cfg: DictConfig,
    facts: Mapping[str, str],
    encoder: Encoder,
    trained: Encoder,
    benchmark: Benchmark | None,
    before: Mapping[str, Result],
) -> None:
    """Score the trained encoder, write results, figures and report, and print the closing table.

    Args:
        cfg: The run's configuration.
        facts: What the banner said.
        encoder: The encoder before.
        trained: The encoder after.
        benchmark: Where both are scored; None for unlabelled images.
        before: What the protocols made of `encoder`.
    """
    output_dir = Path(cfg.output_dir)
    weights.save(trained.model, output_dir / "encoder.safetensors", **weights_facts(cfg, trained))
    figures = draw_curves(output_dir)
    scores: list[Score] = []
    if benchmark is not None:
        after = benchmark.run(trained)
        scores = benchmark.compare(before, after, method=cfg.method)
        write_results(output_dir / "results.csv", scores)
        visualize.scores_figure(output_dir / "figures" / "scores.png", changes(scores))
        figures["figures/scores.png"] = "Scores before and after, with the 95 % interval of the difference."
        figures |= draw_comparison(output_dir, benchmark, (encoder, trained), (before, after))
    report.write_report(
        output_dir,
        title=cfg.run_name,
        facts={name: fact for name, fact in facts.items() if name not in ("forecast", "folder")},
        scores=scores,
        figures=figures,
        loading=loading_lines(cfg, output_dir / "encoder.safetensors"),
        command=command_line(),
    )
    names = ("encoder.safetensors", "report.md", "results.csv", "metrics.csv", "figures", "skipped.csv")
    paths = {name: output_dir / name for name in names if (output_dir / name).exists()}
    report.closing(scores, paths, next_command())


def weights_facts(cfg: DictConfig, encoder: Encoder) -> dict[str, str]:
    """Return what has to travel with the weights to use them, and to be allowed to."""
    return {
        "timm_model": cfg.backbone.encoder.model,
        "licence_of_start": assembly.licence(cfg, encoder),
        "pos_embed": str(cfg.backbone.encoder.resampling or "timm"),
    }


def next_command() -> str:
    """Return a command that shows something new after this run: another kernel, or another bandwidth."""
    rbf = HydraConfig.get().runtime.choices["kernel"] == "rbf"
    return command_line("kernel.bandwidth=0.5" if rbf else "kernel=rbf")


def loading_lines(cfg: DictConfig, path: Path) -> str:
    """Return the lines that load the exported encoder back into timm, and what timm does otherwise."""
    node = cfg.backbone.encoder
    options = timm_options(node.arch)
    arguments = ", ".join(f"{name}={value!r}" for name, value in options.items())
    otherwise = ""
    if node.resampling is not None:
        otherwise = f"# At other sizes timm resamples position embeddings its own way; this run did so by {node.resampling}.\n"
    return (
        f"{otherwise}import timm; from safetensors.torch import load_file\n"
        f'model = timm.create_model("{node.model}", {arguments})\n'
        f'model.load_state_dict(load_file("{path}"))\n'
    )


def draw_curves(output_dir: Path) -> dict[str, str]:
    """Draw the training curves of `metrics.csv`; return captions by file."""
    with (output_dir / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = [name for name in ("loss", "cka", "rankme", "tag_accuracy") if any(row.get(name) for row in rows)]
    logged = [row for row in rows if row.get("loss")]
    series = {name: [float(row[name]) for row in logged] for name in names}
    validation = {
        name.removeprefix("val/"): _column(rows, name) for name in rows[0] if name.startswith("val/")
    }
    steps = [int(row["step"]) for row in logged]
    visualize.curves_figure(
        output_dir / "figures" / "curves.png", steps, series, validation=validation or None
    )
    return {"figures/curves.png": "Training curves over the optimizer steps."}


def _column(rows: list[dict[str, str]], name: str) -> tuple[list[int], list[float]]:
    """Return the steps at which `name` was logged, and its values."""
    logged = [row for row in rows if row[name]]
    return [int(row["step"]) for row in logged], [float(row[name]) for row in logged]


def draw_comparison(
    output_dir: Path,
    benchmark: Benchmark,
    encoders: tuple[Encoder, Encoder],
    outcomes: tuple[Mapping[str, Result], Mapping[str, Result]],
) -> dict[str, str]:
    """Draw features and outcomes of evenly spaced images; return captions by file."""
    folder = output_dir / "figures"
    source, frame = benchmark.images("query"), benchmark.frame(encoders[0])
    chosen = shown(len(source))
    features = [extract(encoder, source, frame=frame, indices=chosen) for encoder in encoders]
    images = read_images(source, chosen, frame).permute(0, 2, 3, 1).numpy()
    visualize.features_figure(folder / "features.png", images, *(side.tokens.numpy() for side in features))
    captions = {
        "figures/features.png": "Frozen patch tokens before and after, first three components of one joint PCA."
    }
    truth = read_masks(source, chosen, frame).numpy() if source.classes else None
    for name, (before, after) in {
        name: (outcomes[0][name], outcomes[1][name]) for name in outcomes[0]
    }.items():
        if truth is None or before.metrics[0].name != "mIoU":
            continue
        counts = [side.outcomes[0].counts[chosen] for side in (before, after)]
        predictions = [
            np.stack([pictured(side.pictures[index], source.image(index), frame) for index in chosen])
            for side in (before, after)
        ]
        visualize.segmentation_figure(
            folder / f"{name}.png",
            images,
            truth=truth,
            before=predictions[0],
            after=predictions[1],
            classes=source.classes,
            colours=source.palette,
            iou=100.0 * torch.stack([mean_iou(side) for side in counts], dim=1).numpy(),
        )
        captions[f"figures/{name}.png"] = f"Segmentations of the protocol {name} before and after."
    return captions


def pictured(prediction: Tensor, image: NDArray[np.uint8], frame: Frame) -> NDArray[np.uint8]:
    """Return predicted class ids of an image at the size of the frame, by nearest neighbour.

    Args:
        prediction: Class ids, (H, W) uint8: of the image itself, or of the whole frame at any size.
        image: The image.
        frame: Where it lies.
    """
    if prediction.shape == image.shape[:2]:
        return frame.mask(prediction.numpy())
    enlarged: NDArray[np.uint8] = F.interpolate(
        prediction[None, None], size=frame.size, mode="nearest-exact"
    )[0, 0].numpy()
    return enlarged
