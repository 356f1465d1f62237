"""Post-train an encoder: `python -m paka.train backbone=vitb kernel=rbf`."""

from __future__ import annotations

from omegaconf import DictConfig

from paka.config import entry


def run(cfg: DictConfig) -> float | None:
    """Post-train as configured; return the validation score that sweeps compare."""
    # Torch takes seconds to import, so it is imported only once the configuration is known to be good.
    from paka.posttraining import post_train

    return post_train(cfg)


main = entry("train", run)

if __name__ == "__main__":
    main()
