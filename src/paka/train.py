"""Post-train an encoder: `python -m paka.train backbone=vitb kernel=rbf`."""

from __future__ import annotations

from omegaconf import DictConfig

from paka import resuming
from paka.config import entry


def run(cfg: DictConfig) -> float | None:
    """Post-train as configured; return the validation score that sweeps compare."""
    resuming.examine(cfg)
    # Torch takes seconds to import, so it is imported only once the configuration is known to be good.
    from paka.posttraining import post_train

    return post_train(cfg)


main = entry("train", run, resuming.settings)

if __name__ == "__main__":
    main()
