"""The main job: encoder in, label-free post-training, better frozen tokens out, with the evidence."""

from __future__ import annotations

import copy
import dataclasses
import logging
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from paka import assembly, choice, resuming, terminal, warm_start, weights
from paka.benchmark import Benchmark
from paka.callbacks import DenseEvaluation, HealthAlarm, StepProgress
from paka.changes import plain
from paka.checkpoints import Recorded
from paka.datamodule import PostTrainingData
from paka.encoder import Encoder
from paka.evidence import weights_facts, write_evidence
from paka.feature_visualizer import FeatureVisualizer
from paka.frames import Frame
from paka.interrupt import Interrupt, is_requeued_by, requeue
from paka.loggers import publish
from paka.module import PostTraining
from paka.precision import training_precision
from paka.provenance import write_provenance
from paka.result import Result, printed
from paka.resuming import LAST
from paka.resumption import Resumption
from paka.run_folder import save_config
from paka.snapshots import Snapshots, estimate_files, snapshots
from paka.sources import Source
from paka.sweep_job import in_sweep
from paka.tuning import merge
from paka.warm_start import WarmStart


def post_train(cfg: DictConfig) -> float | None:
    """Post-train an encoder as configured and leave results, report, figures and weights in the run's folder.

    Args:
        cfg: The composed and validated training configuration.

    Returns:
        The last in-training validation score of the first protocol as printed, for sweeps to compare. A job of a sweep
        that took none is scored on the same images at its end. None outside of sweeps or without evaluation.

    Raises:
        SystemExit: With 130 after Ctrl-C, 143 after SIGTERM, 138 after SLURM's warning; the checkpoint to go on from has been
            written, if training had begun.
    """
    _quieten()
    with Interrupt() as interrupt:
        try:
            return _post_train(cfg, interrupt)
        except SystemExit:
            _leave(cfg, interrupt)
            raise


def _post_train(cfg: DictConfig, interrupt: Interrupt) -> float | None:
    """Post-train under an interrupt that is in charge of the signals."""
    output_dir = Path(cfg.output_dir)
    resumption = None if cfg.resume is None else Resumption(cfg)
    encoder, start = _start(cfg)
    source = assembly.build_source(cfg)
    benchmark = assembly.build_benchmark(cfg, cfg.split, encoder)
    module = assembly.build_module(cfg, copy.deepcopy(encoder), source)
    told = [] if start is None else [start.fill(module, cfg.export)]
    told += [] if resumption is None else resumption.told(module)
    data = assembly.build_data(cfg, encoder, source)
    evaluation = _evaluation(cfg, encoder)
    callbacks = _callbacks(cfg, encoder, data, [*evaluation, interrupt])
    trainer = assembly.build_trainer(cfg, output_dir, callbacks, resumption.metrics if resumption else ())
    with assembly.logging(cfg, trainer.loggers):
        steps = cfg.trainer.max_steps - (resumption.kept.step if resumption else 0)
        facts = _facts(cfg, module, source, benchmark, steps * _seconds_per_step(module, data, trainer))
        _announce(cfg, facts, told)
        facts |= {"resumed": resumption.fact} if resumption else {}
        before = _run(benchmark, encoder, first=trainer.is_global_zero)
        _fit(cfg, trainer, module, data, interrupt)
        if not trainer.is_global_zero:
            return None
        trained = _exported(cfg, module, encoder, source, facts)
        if count := len(data.skipped.indices):
            facts["skipped"] = f"{count} images that cannot be read, listed in skipped.csv"
        report = write_evidence(cfg, facts, encoder, trained, benchmark, before)
        publish(trainer.loggers, output_dir, report)
    return _score(cfg, evaluation, trained)


def _callbacks(
    cfg: DictConfig, encoder: Encoder, data: PostTrainingData, others: Sequence[L.Callback]
) -> list[L.Callback]:
    """Return the callbacks in their order: `others` come before the progress, and the interrupt among them last."""
    *evaluation, interrupt = others
    return [
        Recorded(plain(cfg), cfg.seed),
        HealthAlarm(),
        *evaluation,
        *_snapshots(cfg, encoder),
        *_visualizer(cfg, data, encoder),
        StepProgress(cfg.backbone.batch_size),
        interrupt,
    ]


def _fit(
    cfg: DictConfig, trainer: L.Trainer, module: PostTraining, data: PostTrainingData, interrupt: Interrupt
) -> None:
    """Train, and keep the last checkpoint also when a signal stops it.

    Raises:
        SystemExit: It was stopped.
    """
    trainer.fit(module, data, ckpt_path=cfg.resume, weights_only=True)
    if interrupt.requested or cfg.trainer.max_steps % cfg.trainer.checkpoint_every:
        trainer.save_checkpoint(Path(cfg.output_dir) / LAST)
    if interrupt.received is not None:
        raise SystemExit(128 + interrupt.received)


def _score(cfg: DictConfig, evaluation: Sequence[DenseEvaluation], encoder: Encoder) -> float | None:
    """Return the first protocol's last score on validation images; in a sweep `encoder` is scored if there is none yet."""
    if taken := [score for callback in evaluation for score in callback.scores.values()]:
        return taken[0]
    if not in_sweep(cfg):
        return None
    benchmark = assembly.build_benchmark(cfg, "val", encoder, query_images=cfg.eval.subset)
    if benchmark is None:
        return None
    name, entry = next(iter(benchmark.protocols.items()))
    return printed(dataclasses.replace(benchmark, protocols={name: entry}).run(encoder)[name])


def _start(cfg: DictConfig) -> tuple[Encoder, WarmStart | None]:
    """Return the encoder that results are compared with, and all weights to start from if those are of another run.

    A run that is resumed starts from its checkpoint alone.

    Raises:
        FileNotFoundError: The weights are gone.
    """
    if cfg.init_from is None:
        return assembly.build_encoder(cfg), None
    unfilled = cfg.copy()
    unfilled.backbone.pretrained = False
    encoder = assembly.build_encoder(unfilled)
    resumed = cfg.resume is not None
    if resumed and not cfg.eval.protocols:
        return encoder, None  # nothing is compared
    try:
        start = warm_start.read(cfg.init_from, encoder)
    except FileNotFoundError as error:
        if not resumed:
            raise
        message = (
            f"resume={cfg.resume}: expected the weights that its run started from at {cfg.init_from}, because its results are compared "
            "with them, found none: bring them back, or go on without results with eval=none"
        )
        raise FileNotFoundError(message) from error
    return start.encoder(cfg.export, encoder), None if resumed else start


def _quieten() -> None:
    """Leave the terminal to the banner, the bar and the table."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for expected in (
        "Found .* module.s. in eval mode",  # the teacher, by design
        "Experiment logs directory .* exists",  # the run's own folder; it holds no earlier metrics
        "Checkpoint directory .* exists",  # of the run that goes on
        "Be aware that when using `ckpt_path`, callbacks",  # those that were configured otherwise
        "The dirpath has changed",  # the run goes on in a folder of its own
        ".*resuming from a checkpoint that ended before the epoch",  # the sampler goes on, see `paka.datamodule`
        ".*does not have many workers",  # the number of loader processes is the user's choice
        ".*LeafSpec",  # Lightning's own use of torch
    ):
        warnings.filterwarnings("ignore", expected)


def _evaluation(cfg: DictConfig, encoder: Encoder) -> list[DenseEvaluation]:
    """Return the callback that scores validation images while training, if that is asked for and possible."""
    if cfg.eval.every is None:
        return []
    benchmark = assembly.build_benchmark(cfg, "val", encoder, query_images=cfg.eval.subset)
    return [DenseEvaluation(benchmark, every=cfg.eval.every, branch=cfg.export)] if benchmark else []


@rank_zero_only
def _announce(cfg: DictConfig, facts: Mapping[str, str], told: Sequence[str]) -> None:
    """Print the banner and what more there is to tell, and write the resolved configuration and where the run came from."""
    output_dir = Path(cfg.output_dir)
    save_config(output_dir, cfg)
    write_provenance(
        output_dir / "provenance.json", before=None if cfg.resume is None else Path(cfg.resume).parent.parent
    )
    terminal.banner("paka: post-training of frozen patch tokens", facts)
    sys.stdout.writelines(f"{line}\n" for line in told)


def _facts(
    cfg: DictConfig, module: PostTraining, source: Source, benchmark: Benchmark | None, seconds: float
) -> dict[str, str]:
    encoder = module.student.encoder
    sizes = [(parameter.numel() / 1e6, parameter.requires_grad) for parameter in encoder.parameters()]
    whole, trained = sum(size for size, _ in sizes), sum(size for size, trains in sizes if trains)
    partly = "" if trained == whole else f", {trained:.2g} M trained"
    sides = [grid * encoder.patch_size for grid in (cfg.backbone.global_grid, cfg.backbone.local_grid)]
    choices = HydraConfig.get().runtime.choices
    if benchmark is not None:
        scored = f"{benchmark.query.name} {benchmark.query.split}, {', '.join(benchmark.protocols)}"
    elif cfg.eval.protocols:
        scored = "nothing: there are no labelled images, see the group benchmark"
    else:
        scored = "nothing: eval=none"
    then = "" if benchmark is None else ", then the evaluation"
    size = f"{whole:.1f} M parameters{partly}, patch {encoder.patch_size}"
    return {
        "backbone": f"{cfg.backbone.name}, {size}, {assembly.starting_point(cfg)}",
        "licence": assembly.licence(cfg, encoder),
        "images": f"{source.name}, {len(source)} of them, no mask read, global {sides[0]} px, local {sides[1]} px",
        "objective": f"{choices['objective']}, kernel {choices['kernel']}",
        "steps": f"{cfg.trainer.max_steps} of {cfg.backbone.batch_size} images, seed {cfg.seed}",
        "device": f"{cfg.trainer.accelerator}, {training_precision(cfg.trainer.precision, cfg.trainer.accelerator)}",
        "scored on": scored,
        "forecast": f"{terminal.forecast(seconds)} of training{then}",
        "folder": terminal.from_here(cfg.output_dir),
    }


def _seconds_per_step(module: PostTraining, data: PostTrainingData, trainer: L.Trainer) -> float:
    """Time one forward and backward pass on the device; nothing of it remains."""
    module.to(trainer.strategy.root_device)
    batch = data.transfer_batch_to_device(data.example(), module.device, 0)
    objective = copy.deepcopy(module.objective)  # may keep a queue, a centre, or count its draws
    with torch.random.fork_rng():
        for _ in range(2):
            started = time.perf_counter()
            loss, _ = objective(module.correspond(batch))
            loss.backward()
            loss.item()
    module.zero_grad(set_to_none=True)
    return (time.perf_counter() - started) * data.accumulate


def _snapshots(cfg: DictConfig, encoder: Encoder) -> list[Snapshots]:
    """Return the callback that keeps encoders while training, if that is asked for."""
    if cfg.snapshots is None:
        return []
    folder, facts = Path(cfg.output_dir) / "snapshots", weights_facts(cfg, encoder)
    return [Snapshots(folder, every=cfg.snapshots, branch=cfg.export, plain=encoder, facts=facts)]


def _visualizer(cfg: DictConfig, data: PostTrainingData, encoder: Encoder) -> list[FeatureVisualizer]:
    """Return the callback that draws tokens and kernels while training, if that is asked for."""
    if cfg.visualize is None:
        return []
    folder, grid = Path(cfg.output_dir) / "figures", cfg.backbone.global_grid
    frame = Frame(grid, grid, encoder.patch_size, "keep")
    return [
        FeatureVisualizer(folder, data.dataset, frame, every=cfg.visualize, branch=cfg.export, seed=cfg.seed)
    ]


def _exported(
    cfg: DictConfig, module: PostTraining, encoder: Encoder, source: Source, facts: dict[str, str]
) -> Encoder:
    """Return the encoder that is exported, and say in `facts` how it was chosen where there was a choice."""
    if cfg.choose == "last":
        adapted = (module.teacher if cfg.export == "teacher" else module.student).encoder.cpu()
        return merge(adapted, copy.deepcopy(encoder)).eval()
    output_dir, grid = Path(cfg.output_dir), cfg.backbone.global_grid
    paths = snapshots(output_dir / "snapshots")
    frame = Frame(grid, grid, encoder.patch_size, "keep")
    found = estimate_files(paths, encoder, source, frame, seed=cfg.seed)
    choice.write(output_dir / "choice.csv", found)
    best = output_dir / "snapshots" / f"{found.best(cfg.choose)}.safetensors"
    facts["exported"] = (
        f"{best.stem.replace('_', ' ')} of {cfg.trainer.max_steps}, chosen without labels by {cfg.choose}"
    )
    trained = copy.deepcopy(encoder)
    weights.load_file(trained.model, best)
    return trained.eval()


def _run(benchmark: Benchmark | None, encoder: Encoder, *, first: bool) -> dict[str, Result]:
    """Run the protocols on the first process; the others have nothing to do with the result."""
    return {} if benchmark is None or not first else benchmark.run(encoder)


@rank_zero_only
def _leave(cfg: DictConfig, interrupt: Interrupt) -> None:
    """Say after a signal how to go on, or have SLURM do it."""
    if interrupt.received is None:
        return
    output_dir = Path(cfg.output_dir)
    if is_requeued_by(interrupt.received):
        sys.stdout.write(f"\n{requeue()}\n")
    elif (output_dir / LAST).is_file():
        how = "" if in_sweep(cfg) else f"; to go on:\n  {resuming.next_command(output_dir)}"
        sys.stdout.write(f"\nstopped after step {interrupt.step} of {cfg.trainer.max_steps}{how}\n")
    else:
        sys.stdout.write("\nstopped before the first checkpoint; the same command starts anew\n")
