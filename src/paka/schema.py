"""What a configuration may hold: the types of its keys, and the rules that its values keep.

The values are in `conf/`. Nodes typed `Any` differ from option to option; their types are those of their
values in `conf/`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


@dataclass
class Backbone:
    """Which encoder, and the sizes and rates that suit it."""

    name: str = MISSING
    weights: str | None = MISSING
    pretrained: bool = MISSING
    layers: list[int] | None = MISSING
    pos_embed: str = MISSING
    checkpointing: bool = MISSING
    resampling: dict[str, Any] = MISSING
    global_grid: int = MISSING
    local_grid: int = MISSING
    batch_size: int = MISSING
    lr: float = MISSING
    head_lr: float = MISSING
    encoder: Any = MISSING


@dataclass
class Photometric:
    """Arguments of `paka.photometric.Photometric`."""

    _target_: str = MISSING
    brightness: float = MISSING
    contrast: float = MISSING
    saturation: float = MISSING
    hue: float = MISSING
    jitter_probability: float = MISSING
    gray_probability: float = MISSING
    blur_probability: float = MISSING
    blur_sigma: list[float] = MISSING
    solarize_probability: float = MISSING
    erase: float = MISSING
    erase_cell: int = MISSING


@dataclass
class Augmentation:
    """Arguments of `paka.views.MultiCrop` but for the sizes, which follow from the backbone."""

    _target_: str = MISSING
    globals: int = MISSING
    locals: int = MISSING
    global_scale: list[float] = MISSING
    local_scale: list[float] = MISSING
    ratio: list[float] = MISSING
    flip: float = MISSING
    containment: float | None = MISSING
    overlap: str = MISSING
    least_overlap: float = MISSING
    local_scale_of: str = MISSING
    pair_with: str = MISSING
    global_pairs: bool = MISSING
    student_globals: bool = MISSING
    clean_teacher: bool = MISSING
    photometric: Photometric | None = MISSING


@dataclass
class Head:
    """Arguments of `paka.head.ProjectionHead`."""

    _target_: str = MISSING
    hidden: int = MISSING
    out: int = MISSING


@dataclass
class ImageHead:
    """Arguments of `paka.head.PrototypeHead`."""

    _target_: str = MISSING
    hidden: int = MISSING
    out: int = MISSING
    prototypes: int = MISSING
    pooling: str = MISSING


@dataclass
class Objective:
    """What is minimised, and what it needs of the step."""

    reads: list[str] = MISSING
    told: list[str] = MISSING
    grid: int = MISSING
    parts: dict[str, Any] = field(default_factory=dict)
    loss: Any = MISSING


@dataclass
class Schedule:
    """Arguments of `paka.optim.CosineSchedule`."""

    _target_: str = MISSING
    start: float = MISSING
    end: float = MISSING
    warmup_steps: int = MISSING


@dataclass
class Optim:
    """The optimizer, its rates and their schedules."""

    lr: float = MISSING
    head_lr: float = MISSING
    optimizer: Any = MISSING
    lr_schedule: Schedule = MISSING
    weight_decay: Schedule = MISSING


@dataclass
class Adapter:
    """Arguments of `paka.tuning.LowRank`."""

    _target_: str = MISSING
    rank: int = MISSING
    alpha: float = MISSING
    targets: list[str] = MISSING


@dataclass
class Tuning:
    """Arguments of `paka.tuning.Tuning`."""

    _target_: str = MISSING
    freeze_blocks: int = MISSING
    train_blocks: int | None = MISSING
    biases_only: bool = MISSING
    layer_decay: float = MISSING
    adapter: Adapter | None = MISSING


@dataclass
class Teacher:
    """How the teacher follows the student."""

    momentum: Schedule = MISSING
    refresh: int | None = MISSING
    permute: bool = MISSING


@dataclass
class Eval:
    """Which protocols run, and how often while training."""

    every: int | None = MISSING
    subset: int = MISSING
    protocols: dict[str, Any] = MISSING


@dataclass
class Profile:
    """Arguments of `paka.protocols.Profile`."""

    _target_: str = MISSING
    name: str = MISSING
    grid: list[int] = MISSING
    aspect: str = MISSING
    interpolation: str = MISSING
    blue_std: float | None = MISSING
    train_images: int | None = MISSING
    val_images: int | None = MISSING
    test_images: int | None = MISSING
    seeds: int = MISSING
    memory: int = MISSING
    memory_passes: int = MISSING
    memory_augment: bool = MISSING
    memory_void: str = MISSING
    patch_void: str = MISSING
    k: int = MISSING
    temperature: float = MISSING
    clusters: int | None = MISSING
    cluster_naming: str = MISSING
    pca: int = MISSING
    kmeans_iterations: int = MISSING
    kmeans_restarts: int = MISSING
    linear_lr: float = MISSING
    linear_momentum: float = MISSING
    linear_weight_decay: float = MISSING
    linear_epochs: int = MISSING
    linear_batch: int = MISSING
    linear_resolution: int = MISSING
    scored_at: int | None = MISSING
    matching: bool = MISSING
    absent: str = MISSING
    uncounted: int = MISSING
    depth_mean: str = MISSING
    bootstrap: int = MISSING
    settings: dict[str, Any] = MISSING


@dataclass
class Trainer:
    """Length, hardware and bookkeeping of the run."""

    max_steps: int = MISSING
    accelerator: str = MISSING
    devices: Any = MISSING
    strategy: str = MISSING
    precision: str = MISSING
    accumulate: int = MISSING
    gradient_clip: float | None = MISSING
    workers: Any = MISSING
    log_every: int = MISSING
    checkpoint_every: int = MISSING
    deterministic: bool = MISSING


@dataclass
class Train:
    """The keys of `conf/train.yaml`."""

    seed: int = MISSING
    resume: str | None = MISSING
    init_from: str | None = MISSING
    split: str = MISSING
    export: str = MISSING
    snapshots: int | None = MISSING
    visualize: int | None = MISSING
    choose: str = MISSING
    method: str = MISSING
    run_name: str = MISSING
    tags: list[str] = MISSING
    output_dir: str | None = MISSING  # none while it is only shown
    sweep_dir: str = MISSING
    backbone: Backbone = MISSING
    data: Any = MISSING
    benchmark: Any = MISSING
    augmentation: Augmentation = MISSING
    kernel: Any = MISSING
    head: Head = MISSING
    image_head: ImageHead = MISSING
    objective: Objective = MISSING
    optim: Optim = MISSING
    tuning: Tuning = MISSING
    teacher: Teacher = MISSING
    eval: Eval = MISSING
    profile: Profile = MISSING
    trainer: Trainer = MISSING
    logger: dict[str, Any] = MISSING


@dataclass
class Evaluate:
    """The keys of `conf/evaluate.yaml`."""

    seed: int = MISSING
    split: str = MISSING
    compare: list[str] = MISSING
    cache: str | None = MISSING
    cache_limit: float = MISSING
    store: str = MISSING
    search: str = MISSING
    device: str = MISSING
    batch: int = MISSING
    method: str | None = MISSING
    features: str = MISSING
    run_name: str = MISSING
    tags: list[str] = MISSING
    output_dir: str | None = MISSING  # none while it is only shown
    sweep_dir: str = MISSING
    backbone: Backbone = MISSING
    benchmark: Any = MISSING
    eval: Eval = MISSING
    profile: Profile = MISSING
    logger: dict[str, Any] = MISSING


@dataclass
class Doctor:
    """The keys of `conf/doctor.yaml`."""

    miniature: str | None = MISSING
    sample: int | None = MISSING
    contact_sheet: int = MISSING
    run_name: str = MISSING
    output_dir: str | None = MISSING  # none while it is only shown
    data: Any = MISSING
    benchmark: Any = MISSING


@dataclass
class Export:
    """The keys of `conf/export.yaml`."""

    run: str = MISSING
    to: Any = MISSING
    output: str | None = MISSING
    overwrite: bool = MISSING
    weights: str | None = MISSING
    branch: str | None = MISSING
    sizes: Any = MISSING
    opset: int = MISSING


def register() -> None:
    """Make the schemas known to Hydra."""
    store = ConfigStore.instance()
    store.store("train_schema", Train)
    store.store("evaluate_schema", Evaluate)
    store.store("doctor_schema", Doctor)
    store.store("export_schema", Export)
