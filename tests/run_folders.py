"""Folders as runs leave them, written without a run: a stand-in that tests of reports share."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from omegaconf import OmegaConf

from paka.resamples import Key, Resampled, keep
from paka.scores import Score, write_results

PROTOCOLS = {"in_context": 16.4, "linear": 22.3, "overclustering": 13.8}
CLASSES = ("background", "sky", "road", "animal", "plant")
RULES = "aspect keep; 1 x seeded"


def base(**changes: Any) -> dict[str, Any]:
    """A configuration of `paka.train`, far smaller than a true one."""
    config = {
        "seed": 0, "resume": None, "split": "test", "method": "paka", "run_name": "run", "output_dir": "here",
        "backbone": {"name": "tiny", "lr": 5e-4, "head_lr": 1e-4, "batch_size": 16},
        "data": {"name": "scenes", "root": None, "limit": None},
        "benchmark": "${data}",
        "kernel": {"_target_": "paka.kernels.rbf", "bandwidth": 1.0},
        "objective": {"loss": {"kernel": "${kernel}", "seed": "${seed}"}},
        "profile": {"name": "compact", "bootstrap": 200},
        "eval": {"every": None},
        "trainer": {"max_steps": 40, "workers": 0},
    }  # fmt: skip
    return {**config, **changes}


def write_run(
    folder: Path,
    *overrides: str,
    gains: Mapping[str, float] | float = 2.0,
    noise: float = 0.3,
    state: str = "finished",
    error: str = "",
    choices: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
    resamples: int = 200,
    validation: float | None = None,
    hours: int = 1,
    job: str = "train",
    score: Mapping[str, Any] | None = None,
) -> Path:
    """Write what a run of `paka.train` leaves: configuration, status, results, resamples, classes, metrics.

    Args:
        folder: Where.
        *overrides: Settings as typed, `kernel.bandwidth=2`; values of groups that `choices` name are not applied.
        gains: What training gives, of each protocol or of all, before noise.
        noise: Standard deviation over seeds of scores.
        state: How it ended; only a finished run has results.
        error: Why.
        choices: Options by group.
        config: The configuration before overrides.
        resamples: Kept resamples; 0 keeps none.
        validation: Score on validation images; None logs none.
        hours: When it ended.
        job: The program.
        score: Other fields of its scores.
    """
    chosen = {
        "kernel": "rbf", "data": "scenes", "logger": "csv", "hydra/job_logging": "paka", **(choices or {})
    }  # fmt: skip
    typed = [one for one in overrides if one.partition("=")[0] not in (choices or {})]
    cfg = OmegaConf.merge(OmegaConf.create(dict(config or base())), OmegaConf.from_dotlist(typed))
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    OmegaConf.save(cfg, folder / "config.yaml", resolve=True)
    OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
    OmegaConf.save(OmegaConf.create([*overrides]), folder / ".hydra" / "overrides.yaml")
    record = {"hydra": {"job": {"name": job}, "runtime": {"choices": chosen}}}
    OmegaConf.save(record, folder / ".hydra" / "hydra.yaml")
    status = {
        "state": state, "started": "2026-11-25T00:00:00Z", "ended": f"2026-11-25T{hours:02}:00:00Z", "score": validation, "error": error,
        "host": "another", "pid": 1,
    }  # fmt: skip
    (folder / "status.json").write_text(json.dumps(status))
    (folder / "provenance.json").write_text(
        json.dumps({"command": f"python -m paka.{job} {' '.join(overrides)}"})
    )
    if state == "finished":
        _results(folder, cfg, gains, noise, resamples, score or {})
        _classes(folder, cfg, gains)
        _metrics(folder, cfg, validation)
    return folder


def _gain(gains: Mapping[str, float] | float, protocol: str) -> float:
    return gains if isinstance(gains, int | float) else gains[protocol]


def _results(
    folder: Path,
    cfg: Any,
    gains: Mapping[str, float] | float,
    noise: float,
    resamples: int,
    fields: Mapping[str, Any],
) -> None:
    shared = np.random.default_rng(7)  # what makes images hard is the same for all runs
    images = shared.normal(0, 1.0, (3, max(resamples, 1)))
    own = np.random.default_rng([cfg.seed, crc32(f"{cfg.kernel} {cfg.objective}".encode())])
    scores, rows = [], {}
    protocols = (
        PROTOCOLS if not isinstance(gains, Mapping) else {name: PROTOCOLS.get(name, 0.5) for name in gains}
    )
    for place, (protocol, start) in enumerate(protocols.items()):
        before = start + 0.4 * (cfg.seed - 1)
        after = before + _gain(gains, protocol) + noise * own.normal()
        values = {
            "benchmark": "scenes", "protocol": protocol, "profile": "compact", "metric": "mIoU", "split": "test", "seed": cfg.seed,
            "before": before, "after": after, "delta": after - before, "ci_low": None, "ci_high": None, "memory": None, "k": None,
            "method": "paka", "size": "16x16 tokens", "classes": 12, "rules": RULES, **fields,
        }  # fmt: skip
        scores.append(Score(**values))
        sides = {"before": before, "after": after}
        for side, value in sides.items():
            moved = value + images[place % 3] + 0.2 * own.normal(size=images.shape[1])
            key = Key(side, values["method"] if side == "after" else "", protocol, values["metric"])
            rows[key] = Resampled(value, moved, 250, f"{protocol} {values['benchmark']}")
    write_results(folder / "results.csv", scores)
    if resamples:
        keep(folder / "resamples.npz", rows)


def _classes(folder: Path, cfg: Any, gains: Mapping[str, float] | float) -> None:
    own = np.random.default_rng([cfg.seed, 5])
    protocols: Sequence[str] = [*PROTOCOLS] if not isinstance(gains, Mapping) else [*gains]
    with (folder / "per_class.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["protocol", "method", "class", "share", "before", "after", "delta", "ci_low", "ci_high"]
        )
        for protocol in protocols:
            for place, name in enumerate(CLASSES):
                delta = _gain(gains, protocol) * (2 - place) + 0.3 * own.normal()
                writer.writerow([protocol, "paka", name, 20, 10, f"{10 + delta:.2f}", f"{delta:.2f}", "", ""])


def _metrics(folder: Path, cfg: Any, validation: float | None) -> None:
    own = np.random.default_rng([cfg.seed, 6])
    steps = range(cfg.trainer.max_steps)
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["cka", "loss", "step", *(["val/in_context"] if validation is not None else [])])
        for step in steps:
            loss = 0.4 + 0.3 * np.exp(-step / 15) + 0.03 * own.normal()
            writer.writerow(
                [f"{1 - loss:.4f}", f"{loss:.4f}", step, *([""] if validation is not None else [])]
            )
        if validation is not None:
            for step in (10, 20, 30, 40):
                writer.writerow(["", "", step, validation - 1 + step / 40])


def bandwidth_sweep(folder: Path, *, seeds: int = 3) -> Path:
    """Write a sweep of five bandwidths, of which 1 is the best."""
    gains = {0.25: 1.0, 0.5: 3.4, 1: 5.0, 2: 4.6, 4: 1.2}
    for number, (bandwidth, seed) in enumerate((b, s) for b in gains for s in range(seeds)):
        own = gains[bandwidth]
        write_run(
            folder / f"{number}_run", "kernel=rbf", f"kernel.bandwidth={bandwidth}", f"seed={seed}",
            gains={"in_context": own, "linear": 0.3 * own, "overclustering": 0.1 * own - 0.3},
            choices={"kernel": "rbf"}, validation=18.0 + own, config=base(run_name=f"run_{number}"),
        )  # fmt: skip
    return folder
