"""From a validated configuration to objects; behind this module nothing knows about configurations."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf
from torch import nn

from paka.applicable import applicable, check_some
from paka.benchmark import Benchmark
from paka.checkpoints import WholeCheckpoints
from paka.config import build
from paka.cores import loader_workers
from paka.datamodule import PostTrainingData
from paka.encoder import Encoder, timm_options
from paka.feature_store import FeatureCache
from paka.head import Branch
from paka.loading import licence_of_start
from paka.loggers import logged
from paka.module import PostTraining
from paka.optim import Recipe
from paka.outcome_store import OutcomeStore
from paka.precision import training_precision
from paka.protocols import Profile
from paka.provenance import private, provenance
from paka.sources import Source
from paka.sources.subset import is_labelled, labelled_splits, open_images, subset, verify_labels
from paka.tuning import Tuning
from paka.workspace import Workspace


def build_source(cfg: DictConfig) -> Source:
    """Return the images that are post-trained on."""
    chosen = {key: cfg.data[key] for key in ("split", "limit", "fraction", "subset_seed")}
    return open_images(build(cfg.data.source), **chosen)


def build_encoder(cfg: DictConfig) -> Encoder:
    """Return the configured encoder; random parts are drawn from the run's seed."""
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    encoder: Encoder = build(cfg.backbone.encoder)
    return encoder


def build_module(cfg: DictConfig, encoder: Encoder, source: Source) -> PostTraining:
    """Return the LightningModule that post-trains `encoder`, of which it freezes or adapts what is configured."""
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    reads = cfg.objective.reads
    head: nn.Module = build(cfg.head, dim=encoder.dim) if "pairs" in reads else nn.Identity()
    image_head = build(cfg.image_head, dim=encoder.dim) if "images" in reads else None
    known = {"dim": encoder.dim, "tags": len(source.tag_names)}
    objective = build(cfg.objective.loss, **{name: known[name] for name in cfg.objective.told})
    # After all that is drawn at random: the head is the same whatever is trained.
    tuning: Tuning = build(cfg.tuning)
    tuning.apply(encoder)
    encoder.model.set_grad_checkpointing(cfg.backbone.checkpointing)
    recipe = Recipe(
        max_steps=cfg.trainer.max_steps,
        lr=cfg.optim.lr,
        head_lr=cfg.optim.head_lr,
        lr_schedule=build(cfg.optim.lr_schedule),
        weight_decay=build(cfg.optim.weight_decay),
        momentum=build(cfg.teacher.momentum),
        layer_decay=tuning.layer_decay,
    )
    return PostTraining(
        Branch(encoder, head, image_head),
        objective,
        build(cfg.optim.optimizer),
        recipe,
        reads=reads,
        grid=cfg.objective.grid,
        refresh_teacher=cfg.teacher.refresh,
        permute_teacher=cfg.teacher.permute,
    )


def build_data(cfg: DictConfig, encoder: Encoder, source: Source) -> PostTrainingData:
    """Return the LightningDataModule over views of `source`; sizes are token grids times the patch."""
    multi_crop = build(
        cfg.augmentation,
        global_size=cfg.backbone.global_grid * encoder.patch_size,
        local_size=cfg.backbone.local_grid * encoder.patch_size,
    )
    return PostTrainingData(
        source,
        multi_crop,
        batch_size=cfg.backbone.batch_size,
        max_steps=cfg.trainer.max_steps,
        seed=cfg.seed,
        workers=loader_workers(cfg.trainer.workers, processes=_processes(cfg)),
        skipped=Path(cfg.output_dir) / "skipped.csv",
        accumulate=cfg.trainer.accumulate,
    )


def _processes(cfg: DictConfig) -> int:
    """Return how many training processes share this machine."""
    if "LOCAL_WORLD_SIZE" in os.environ:
        return int(os.environ["LOCAL_WORLD_SIZE"])
    return max(1, torch.cuda.device_count()) if cfg.trainer.devices == "auto" else int(cfg.trainer.devices)


def build_benchmark(
    cfg: DictConfig,
    split: str,
    encoder: Encoder,
    *,
    query_images: int | None = None,
    room: Room | None = None,
    changed: bool = False,
) -> Benchmark | None:
    """Return the benchmark whose `split` is scored, or None when there is nothing to compare with.

    Args:
        cfg: The configuration.
        split: `val` or `test`.
        encoder: What is scored; protocols that it cannot serve are left out.
        query_images: At most this many images are scored; None for as many as the profile says.
        room: Where features and outcomes are kept, and where protocols compute; None keeps nothing.
        changed: Whether tokens are changed once they are made, which leaves out protocols that encode images themselves.

    Raises:
        ValueError: A mask does not match its image or the classes, or none of the protocols fits the labelled images.
    """
    if cfg.benchmark is None or cfg.benchmark.splits is None or not cfg.eval.protocols:
        return None
    train, query = labelled_splits(
        build(cfg.benchmark.source), cfg.benchmark.splits, split, seed=cfg.benchmark.subset_seed
    )
    entries = {name: build(node) for name, node in cfg.eval.protocols.items()}
    profile: Profile = build(cfg.profile)
    protocols, skipped = applicable(entries, train, query, encoder, profile, changed=changed)
    if not protocols and not is_labelled(query):
        return None
    check_some(protocols, skipped, query)
    if train is not None:
        train = subset(train, limit=None, fraction=cfg.benchmark.labelled, seed=cfg.benchmark.subset_seed)
        verify_labels(train, cfg.profile.train_images)
    limit = query_images or cfg.profile[f"{split}_images"]
    verify_labels(query, limit)
    plain = {
        name: OmegaConf.to_container(cfg[name], resolve=True)
        for name in ("backbone", "benchmark", "eval", "profile")
    }
    stamps = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in profile.files]
    room = room or Room()
    return Benchmark(
        train,
        query,
        profile,
        protocols,
        cfg.seed,
        limit,
        skipped,
        room.cache,
        room.outcomes,
        {name: plain[name] for name in ("backbone", "benchmark")},
        {name: [plain["profile"], stamps, plain["eval"]["protocols"][name]] for name in protocols},  # type: ignore[call-overload,index]
        room.workspace,
    )


@dataclass(frozen=True)
class Room:
    """Where an evaluation keeps things and computes.

    Attributes:
        cache: Of features; None keeps none.
        outcomes: Of protocols; None keeps none.
        workspace: Device, and room for what is large.
    """

    cache: FeatureCache | None = None
    outcomes: OutcomeStore | None = None
    workspace: Workspace = field(default_factory=Workspace)


def build_room(cfg: DictConfig, *, shared: bool = False) -> Room:
    """Return where an evaluation keeps things and computes, as its configuration says.

    Args:
        cfg: The configuration of an evaluation.
        shared: Whether several processes share it, each on a GPU of its own if there are any.
    """
    dtype = {"float32": torch.float32, "float16": torch.float16}[cfg.store]
    folder = None if cfg.cache is None else Path(cfg.cache)
    large = None if folder is None else folder / "large"
    workspace = Workspace(
        _device(cfg.device), dtype, large, cfg.batch, shared, bfloat16=cfg.search == "bfloat16"
    )
    if folder is None:
        return Room(workspace=workspace)
    cache = FeatureCache(folder, cfg.store, int(cfg.cache_limit * 1e9))
    return Room(cache, OutcomeStore(folder / "outcomes"), workspace)


def _device(name: str) -> torch.device:
    """Return a device by its name; `auto` is this process's GPU if there is one.

    Raises:
        ValueError: There is no such GPU.
    """
    available = torch.cuda.device_count()
    if name == "auto":
        return (
            torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % available)
            if available
            else torch.device("cpu")
        )
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= available:
        raise ValueError(
            f"expected one of {available} GPUs, got device={name}: set device=auto or device=cpu"
        )
    return device


def starting_point(cfg: DictConfig) -> str:
    """Return in words where the backbone's weights come from."""
    if (file := taken(cfg)) is not None:
        return f"weights {file}"
    return "pretrained" if cfg.backbone.pretrained else "random weights"


def taken(cfg: DictConfig) -> str | None:
    """Return the path of weights that are not the published ones; an evaluation has no `init_from`."""
    found: str | None = cfg.backbone.weights or OmegaConf.select(cfg, "init_from")
    return found


def licence(cfg: DictConfig, encoder: Encoder) -> str:
    """Return the licence of the weights that the run starts from, as far as it is known: it travels from file to file."""
    if (file := taken(cfg)) is not None:
        unknown = f"that of {file}; timm's own weights of this model: {encoder.licence}"
        return private(licence_of_start(Path(file).expanduser()) or unknown)
    return encoder.licence if cfg.backbone.pretrained else "none: random weights"


def loading_lines(cfg: DictConfig, path: Path) -> str:
    """Return the lines that load an encoder's file back into timm, and what timm does otherwise."""
    node = cfg.backbone.encoder
    options = [f'"{node.model}"', *(f"{name}={value!r}" for name, value in timm_options(node.arch).items())]
    indented = textwrap.indent(textwrap.fill(", ".join(options), 84, break_on_hyphens=False), "    ")
    otherwise = ""
    if node.resampling is not None:
        otherwise = f"# At other sizes timm resamples position embeddings its own way; this run did so by {node.resampling}.\n"
    return (
        f"{otherwise}import timm\nfrom safetensors.torch import load_file\n\n"
        f"model = timm.create_model(\n{indented}\n)\n"
        f'model.load_state_dict(load_file("{path}"))\n'
    )


def build_trainer(
    cfg: DictConfig,
    output_dir: Path,
    callbacks: Sequence[Callback],
    metrics: Sequence[Mapping[str, str]] = (),
) -> L.Trainer:
    """Return the trainer: one long epoch of `max_steps` optimizer steps.

    Args:
        cfg: The configuration.
        output_dir: The run's folder.
        callbacks: Beside the one that keeps checkpoints.
        metrics: Rows that `metrics.csv` begins with, of a run that is gone on with.

    Raises:
        ValueError: This machine has no such devices.
    """
    checkpoint = ModelCheckpoint(
        dirpath=output_dir / "checkpoints",
        filename="last",
        every_n_train_steps=cfg.trainer.checkpoint_every,
        enable_version_counter=False,
    )
    # Lightning would save in the midst of a step, into a folder that jobs share; `paka.interrupt` requeues.
    slurm = [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []
    with _refused(cfg.trainer):
        return L.Trainer(
            default_root_dir=output_dir,
            plugins=[WholeCheckpoints(), *slurm],
            accelerator=cfg.trainer.accelerator,
            devices=cfg.trainer.devices,
            strategy=cfg.trainer.strategy,
            precision=training_precision(cfg.trainer.precision, cfg.trainer.accelerator),  # type: ignore[arg-type]
            max_steps=cfg.trainer.max_steps,
            accumulate_grad_batches=cfg.trainer.accumulate,
            gradient_clip_val=cfg.trainer.gradient_clip,
            log_every_n_steps=min(cfg.trainer.log_every, cfg.trainer.max_steps),
            deterministic=cfg.trainer.deterministic,
            logger=build_loggers(cfg, metrics),
            callbacks=[*callbacks, checkpoint],
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )


@contextmanager
def _refused(trainer: DictConfig) -> Iterator[None]:
    """Say in a sentence which settings Lightning cannot do here.

    Raises:
        ValueError: There are some.
    """
    try:
        yield
    except MisconfigurationException as error:
        settings = ", ".join(
            f"trainer.{key}={trainer[key]}" for key in ("accelerator", "devices", "strategy")
        )
        raise ValueError(f"expected what this machine can do, got {settings}: {error}") from error


def build_loggers(cfg: DictConfig, metrics: Sequence[Mapping[str, str]] = ()) -> list[Logger]:
    """Return the loggers, none of which has begun a run; `metrics` are rows that `metrics.csv` begins with."""
    known = {"csv": {"before": metrics}}
    return [build(node, **known.get(str(name), {})) for name, node in cfg.logger.items()]


def logging(cfg: DictConfig, loggers: Sequence[Logger]) -> AbstractContextManager[None]:
    """Return a block within which a run is logged, with its whole configuration and where it came from."""
    plain = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    return logged(loggers, {**plain, "provenance": provenance()})
