"""The main job: encoder in, label-free post-training, better frozen tokens out, with the evidence."""

from __future__ import annotations

import copy
import dataclasses
import logging
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path

import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from paka import assembly, choice, terminal, weights
from paka.benchmark import Benchmark
from paka.callbacks import DenseEvaluation, HealthAlarm, Interrupt, StepProgress
from paka.datamodule import PostTrainingData
from paka.encoder import Encoder
from paka.evidence import weights_facts, write_evidence
from paka.frames import Frame
from paka.module import PostTraining
from paka.precision import training_precision
from paka.provenance import command_line, write_provenance
from paka.result import Result, printed
from paka.snapshots import Snapshots, estimate_files, snapshots
from paka.sources import Source
from paka.sweep_job import in_sweep
from paka.tuning import merge


def post_train(cfg: DictConfig) -> float | None:
    """Post-train an encoder as configured and leave results, report, figures and weights in the run's folder.

    Args:
        cfg: The composed and validated training configuration.

    Returns:
        The last in-training validation score of the first protocol as printed, for sweeps to compare. A job of a sweep
        that took none is scored on the same images at its end. None outside of sweeps or without evaluation.

    Raises:
        SystemExit: With 130 after Ctrl-C; the checkpoint to go on from has been written.
    """
    _quieten()
    output_dir = Path(cfg.output_dir)
    if cfg.resume is not None and not Path(cfg.resume).is_file():
        message = f"expected a checkpoint at resume={cfg.resume}, found no such file"
        raise FileNotFoundError(message)
    encoder = assembly.build_encoder(cfg)
    source = assembly.build_source(cfg)
    benchmark = assembly.build_benchmark(cfg, cfg.split, encoder)
    module = assembly.build_module(cfg, copy.deepcopy(encoder), source)
    data = assembly.build_data(cfg, encoder, source)
    interrupt = Interrupt()
    evaluation = _evaluation(cfg, encoder)
    kept = _snapshots(cfg, encoder)
    callbacks = [interrupt, HealthAlarm(), *evaluation, *kept, StepProgress(cfg.backbone.batch_size)]
    trainer = assembly.build_trainer(cfg, output_dir, callbacks)
    with assembly.finishing(trainer):
        facts = _facts(cfg, module, source, benchmark, _seconds_per_step(module, data, trainer))
        _announce(cfg, facts)
        before = _run(benchmark, encoder, first=trainer.is_global_zero)
        trainer.fit(module, data, ckpt_path=cfg.resume, weights_only=True)
        if interrupt.requested:
            _stop(cfg, trainer, output_dir)
        if trainer.is_global_zero:
            trained = _exported(cfg, module, encoder, source, facts)
            if count := len(data.skipped.indices):
                facts["skipped"] = f"{count} images that cannot be read, listed in skipped.csv"
            write_evidence(cfg, facts, encoder, trained, benchmark, before)
    return _score(cfg, evaluation, trained if trainer.is_global_zero else None)


def _score(cfg: DictConfig, evaluation: list[DenseEvaluation], encoder: Encoder | None) -> float | None:
    """Return the first protocol's last score on validation images; in a sweep `encoder` is scored if there is none yet."""
    if taken := [score for callback in evaluation for score in callback.scores.values()]:
        return taken[0]
    if encoder is None or not in_sweep(cfg):
        return None
    benchmark = assembly.build_benchmark(cfg, "val", encoder, query_images=cfg.eval.subset)
    if benchmark is None:
        return None
    name, entry = next(iter(benchmark.protocols.items()))
    return printed(dataclasses.replace(benchmark, protocols={name: entry}).run(encoder)[name])


def _quieten() -> None:
    """Leave the terminal to the banner, the bar and the table."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for expected in (
        "Found .* module.s. in eval mode",  # the teacher, by design
        "Experiment logs directory .* exists",  # the run's own folder; it holds no earlier metrics
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
def _announce(cfg: DictConfig, facts: Mapping[str, str]) -> None:
    """Print the banner, and write the resolved configuration and where the run came from."""
    output_dir = Path(cfg.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(cfg, output_dir / "config.yaml", resolve=True)
    write_provenance(output_dir / "provenance.json")
    terminal.banner("paka: post-training of frozen patch tokens", facts)


def _facts(
    cfg: DictConfig, module: PostTraining, source: Source, benchmark: Benchmark | None, seconds: float
) -> dict[str, str]:
    encoder = module.student.encoder
    sizes = [(parameter.numel() / 1e6, parameter.requires_grad) for parameter in encoder.parameters()]
    whole, trained = sum(size for size, _ in sizes), sum(size for size, trains in sizes if trains)
    partly = "" if trained == whole else f", {trained:.2g} M trained"
    sides = [grid * encoder.patch_size for grid in (cfg.backbone.global_grid, cfg.backbone.local_grid)]
    choices = HydraConfig.get().runtime.choices
    scored = "nothing: eval=none, or no masks; see the groups eval and benchmark"
    if benchmark is not None:
        scored = f"{benchmark.query.name} {benchmark.query.split}, {', '.join(benchmark.protocols)}"
    size = f"{whole:.1f} M parameters{partly}, patch {encoder.patch_size}"
    return {
        "backbone": f"{cfg.backbone.name}, {size}, {assembly.starting_point(cfg)}",
        "licence": assembly.licence(cfg, encoder),
        "images": f"{source.name}, {len(source)} of them, no mask read, global {sides[0]} px, local {sides[1]} px",
        "objective": f"{choices['objective']}, kernel {choices['kernel']}",
        "steps": f"{cfg.trainer.max_steps} of {cfg.backbone.batch_size} images, seed {cfg.seed}",
        "device": f"{cfg.trainer.accelerator}, {training_precision(cfg.trainer.precision, cfg.trainer.accelerator)}",
        "scored on": scored,
        "forecast": f"{terminal.forecast(seconds * cfg.trainer.max_steps)} of training, then the evaluation",
        "folder": cfg.output_dir,
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


def _stop(cfg: DictConfig, trainer: L.Trainer, output_dir: Path) -> None:
    """Save everything after Ctrl-C, say how to go on and leave."""
    path = output_dir / "checkpoints" / "last.ckpt"
    trainer.save_checkpoint(path)
    if trainer.is_global_zero:
        how = "" if in_sweep(cfg) else f"; to go on:\n  {command_line(f'resume={path}')}"
        sys.stdout.write(f"\nstopped after step {trainer.global_step} of {cfg.trainer.max_steps}{how}\n")
    raise SystemExit(130)
