"""What keeps a sweep from being started: plugins that are missing, and processes that nobody starts."""

from __future__ import annotations

from omegaconf import DictConfig

from paka.launch import is_launched, world_size

_SUBMITIT = ("slurm", "'hydra-submitit-launcher>=1.2'")
PLUGINS = {
    "optuna": ("optuna", "hydra-optuna-sweeper==1.3.0 'sqlalchemy<2' 'alembic<1.14'"),
    "submitit_local": _SUBMITIT,
    "submitit_slurm": _SUBMITIT,
}
"""The extra and the packages of sweepers and launchers that are plugins."""


def missing_plugin(missing: str) -> str:
    """Return what to install for a sweeper or launcher that Hydra does not know; nothing for other files."""
    for name, (extra, packages) in PLUGINS.items():
        if missing in (f"hydra/sweeper/{name}", f"hydra/launcher/{name}"):
            return (
                f"{missing}: expected its plugin, which is not installed; install this package with its extra {extra}, "
                f"or pip install {packages}"
            )
    return ""


def sweep_problems(cfg: DictConfig, hydra: DictConfig) -> list[str]:
    """Return what keeps the jobs of a sweep from being started, or an optimiser from comparing them."""
    if "trainer" not in cfg:
        return []
    choices = hydra.runtime.choices
    problems = []
    if not is_launched() and cfg.trainer.devices != 1 and not _is_shared_out(cfg, hydra):
        problems.append(_each_would_start_it_again(cfg.trainer.devices))
    if choices["hydra/sweeper"] == "optuna" and not (cfg.eval.protocols and cfg.benchmark):
        problems.append(
            "eval: expected labelled images and a protocol that trials are scored by, got none; choose another eval or benchmark"
        )
    if choices["hydra/sweeper"] == "optuna" and world_size() > 1:
        problems.append(
            "hydra/sweeper: expected basic with several processes, which would ask for trials each on their own, got 'optuna'"
        )
    return problems


def _is_shared_out(cfg: DictConfig, hydra: DictConfig) -> bool:
    """Return whether SLURM starts a process of the job for each device."""
    launcher = hydra.launcher
    return bool(
        hydra.runtime.choices["hydra/launcher"] == "submitit_slurm"
        and cfg.trainer.devices == launcher.tasks_per_node
    )


def _each_would_start_it_again(devices: int | str) -> str:
    count = "N" if devices == "auto" else devices
    return (
        f"trainer.devices: expected 1 in a sweep, got {devices}: Lightning would start the other processes of each job, "
        "and each of them the whole sweep; give each job one GPU, side by side with sweep=[...,submitit_local] or "
        f"sweep=[...,submitit_slurm], or several GPUs with sweep=[...,submitit_slurm] hydra.launcher.tasks_per_node={count} "
        f"hydra.launcher.gpus_per_node={count}, or start the sweep by torchrun --nproc-per-node={count}"
    )
