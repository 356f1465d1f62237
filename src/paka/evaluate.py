"""Score an encoder's frozen tokens: `python -m paka.evaluate backbone=tiny benchmark=scenes`."""

from __future__ import annotations

import sys

from omegaconf import DictConfig

from paka.config import entry


def run(cfg: DictConfig) -> float | None:
    """Evaluate as configured; return the first protocol's score.

    Raises:
        SystemExit: With 130 after Ctrl-C.
    """
    try:
        # Torch takes seconds to import, so it is imported only once the configuration is known to be good.
        from paka.evaluation import evaluate

        return evaluate(cfg)
    except KeyboardInterrupt:
        kept = (
            "the same command goes on from what is finished"
            if cfg.cache
            else "with cache=null nothing is kept"
        )
        sys.stderr.write(f"stopped before all was scored; {kept}\n")
        sys.exit(130)


main = entry("evaluate", run)

if __name__ == "__main__":
    main()
