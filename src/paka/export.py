"""Write a run's encoder for other libraries: `python -m paka.export run=RUN to=timm`."""

from __future__ import annotations

import sys

from omegaconf import DictConfig

from paka.config import entry
from paka.run_folder import RunFolder


def run(cfg: DictConfig) -> None:
    """Export as configured.

    Raises:
        SystemExit: With 130 after Ctrl-C.
    """
    RunFolder(cfg.run)  # refuses what is no run's folder
    try:
        # Torch takes seconds to import, so it is imported only once the configuration is known to be good.
        from paka.exporting import export

        export(cfg)
    except KeyboardInterrupt:
        sys.stderr.write("stopped before the export was whole; nothing of it is left\n")
        sys.exit(130)


main = entry("export", run)

if __name__ == "__main__":
    main()
