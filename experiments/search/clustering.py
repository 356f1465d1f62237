"""Cluster four million tokens that lie in a file: seconds, and the most memory that the process took beside the file.

python experiments/search/clustering.py [--tokens 4000000] [--dim 384] [--clusters 500] [--iterations 10]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

from paka.clustering import kmeans, reduce


def anonymous_bytes() -> int:
    """Return what this process holds that is not a page of a file, in bytes."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.partition("RssAnon:")[2].split()[0])


class Peak(threading.Thread):
    """Watches the memory of this process."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.done = 0, threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.05):
            self.most = max(self.most, anonymous_bytes())


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, value in (
        ("tokens", 4_000_000),
        ("dim", 384),
        ("clusters", 500),
        ("iterations", 10),
        ("pca", 50),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    arguments = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(arguments.clusters, arguments.dim, generator=generator)
    with tempfile.NamedTemporaryFile() as file:
        shape = (arguments.tokens, arguments.dim)
        tokens = torch.from_numpy(np.memmap(file.name, np.float16, "w+", shape=shape))
        for block in tokens.split(65_536):
            chosen = torch.randint(len(centres), (len(block),), generator=generator)
            block.copy_(centres[chosen] + 2 * torch.randn(len(block), arguments.dim, generator=generator))
        before, watch, started = anonymous_bytes(), Peak(), time.perf_counter()
        watch.start()
        reduced = reduce(tokens, arguments.pca)
        after = time.perf_counter()
        kmeans(reduced, arguments.clusters, iterations=arguments.iterations, restarts=1, seed=0)
        ended = time.perf_counter()
        watch.done.set()
        watch.join()
    sys.stdout.write(
        f"{arguments.tokens} tokens of {arguments.dim} channels in float16, {arguments.tokens * arguments.dim * 2 / 1e9:.1f} GB in a file: "
        f"reduced to {arguments.pca} in {after - started:.0f} s, {arguments.clusters} clusters by {arguments.iterations} "
        f"iterations from one start in {ended - after:.0f} s, at most {(watch.most - before) / 1e9:.2f} GB of memory beside it\n"
    )


if __name__ == "__main__":
    main()
