"""Check a data set before using it: `python -m paka.doctor benchmark=camvid benchmark.root=PATH`."""

from __future__ import annotations

from omegaconf import DictConfig

from paka.config import entry


def run(cfg: DictConfig) -> None:
    """Check what is configured, or write a miniature of it."""
    # What draws and decodes is imported only once the configuration is known to be good.
    from paka.checkup import check_up, write_miniatures

    if cfg.miniature is None:
        check_up(cfg)
    else:
        write_miniatures(cfg)


main = entry("doctor", run)

if __name__ == "__main__":
    main()
