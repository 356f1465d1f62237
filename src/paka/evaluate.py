"""Score an encoder's frozen tokens: `python -m paka.evaluate backbone=tiny benchmark=scenes`."""

from __future__ import annotations

from omegaconf import DictConfig

from paka.config import entry


def run(cfg: DictConfig) -> float | None:
    """Evaluate as configured; return the first protocol's score."""
    # Torch takes seconds to import, so it is imported only once the configuration is known to be good.
    from paka.evaluation import evaluate

    return evaluate(cfg)


main = entry("evaluate", run)

if __name__ == "__main__":
    main()
