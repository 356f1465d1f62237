"""A memory of a million tokens and a hundred thousand queries: seconds, and the most memory that the process took.

python experiments/search/large.py [--keys 1000000] [--queries 100000] [--dim 384] [--half]
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

import torch
from torch.nn import functional as F

from paka.search import nearest


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, value in (("keys", 1_000_000), ("queries", 100_000), ("dim", 384), ("k", 30)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--half", action="store_true", help="keep the keys in float16")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    dtype = torch.float16 if arguments.half else torch.float32
    keys = torch.empty(arguments.keys, arguments.dim, dtype=dtype)
    for block in keys.split(65_536):  # so that no second copy is ever there
        block.copy_(F.normalize(torch.randn(len(block), arguments.dim, generator=generator), dim=1))
    queries = F.normalize(torch.randn(arguments.queries, arguments.dim, generator=generator), dim=1)
    queries, keys = queries.to(arguments.device), keys.to(arguments.device)
    started = time.perf_counter()
    found = nearest(queries, keys, arguments.k)
    worst = float(found.scores[:, -1].min())
    seconds = time.perf_counter() - started
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9
    size = f"{arguments.keys} keys x {arguments.queries} queries, {arguments.dim} channels, {dtype}"
    sys.stdout.write(f"{size}: {seconds:.0f} s, peak of the process {peak:.2f} GB, least score {worst:.4f}\n")


if __name__ == "__main__":
    main()
