"""Time and memory of exact search beside FAISS and a bare matrix product, in one process by turns: needs `pip install faiss-cpu`.

python experiments/search/compare.py --rounds 5 > experiments/search/results.csv
"""

from __future__ import annotations

import argparse
import csv
import gc
import io
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from paka.search import BLOCKS, nearest, working_bytes

Found = tuple[np.ndarray, np.ndarray]


def units(count: int, dim: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def product(queries: Tensor, keys: Tensor, k: int) -> None:
    """Compute every score and keep none, in the blocks of the search."""
    del k
    rows, columns = BLOCKS["cpu"]
    buffer = torch.empty(rows * columns)
    for block in keys.split(columns):
        for part in queries.split(rows):
            torch.mm(part, block.T, out=buffer[: len(part) * len(block)].view(len(part), len(block)))


def paka(queries: Tensor, keys: Tensor, k: int) -> Found:
    found = nearest(queries, keys, k)
    return found.scores.numpy(), found.indices.numpy()


def paka_bfloat16(queries: Tensor, keys: Tensor, k: int) -> Found:
    found = nearest(queries, keys, k, bfloat16=True)
    return found.scores.numpy(), found.indices.numpy()


def flat(queries: Tensor, keys: Tensor, k: int) -> Found:
    index = faiss.IndexFlatIP(keys.shape[1])
    index.add(keys.numpy())
    return index.search(queries.numpy(), k)


WAYS: dict[str, Callable[[Tensor, Tensor, int], object]] = {
    "product": product,
    "faiss": flat,
    "paka": paka,
    "paka_bfloat16": paka_bfloat16,
}


def extra_bytes(way: str, arguments: argparse.Namespace) -> int:
    """Return how many bytes a search takes beside queries and keys, measured in a process of its own."""
    command = [sys.executable, __file__, "--memory-of", way]
    command += [f"--{name}={getattr(arguments, name)}" for name in ("queries", "keys", "dim", "k")]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure_memory(arguments: argparse.Namespace) -> None:
    queries, keys = units(arguments.queries, arguments.dim, 1), units(arguments.keys, arguments.dim, 0)
    search = WAYS[arguments.memory_of]
    search(queries[:64], keys[:8192], arguments.k)  # what a library takes for itself once
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    before = status("VmRSS")
    search(queries, keys, arguments.k)
    sys.stdout.write(str(status("VmHWM") - before))


def status(name: str) -> int:
    """Return a figure of this process's memory in bytes."""
    return 1024 * int(Path("/proc/self/status").read_text().partition(f"{name}:")[2].split()[0])


def agreement(queries: Tensor, keys: Tensor, k: int) -> dict[str, float]:
    """Return how far scores are apart at most, and the share of neighbours that are others although no scores tie."""
    scores, places = flat(queries, keys, k + 1)  # one more tells what ties with the last
    found = nearest(queries, keys, k)
    apart = float(np.abs(found.scores.numpy() - scores[:, :k]).max())
    gaps = np.abs(np.diff(scores, prepend=2.0))
    other = (found.indices.numpy() != places[:, :k]) & (np.minimum(gaps[:, :-1], gaps[:, 1:]) > 1e-5)
    return {
        "largest difference of scores": apart,
        "share of other neighbours without ties": float(other.mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, value in (("queries", 20_000), ("keys", 100_000), ("dim", 384), ("k", 30), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--ways", nargs="+", choices=[*WAYS], default=["product", "faiss", "paka"])
    parser.add_argument("--memory-of", choices=[*WAYS])
    arguments = parser.parse_args()
    if arguments.memory_of:
        measure_memory(arguments)
        return
    queries, keys = units(arguments.queries, arguments.dim, 1), units(arguments.keys, arguments.dim, 0)
    seconds: dict[str, list[float]] = {way: [] for way in arguments.ways}
    for _ in range(arguments.rounds):
        for way in arguments.ways:
            started = time.perf_counter()
            WAYS[way](queries, keys, arguments.k)
            seconds[way].append(time.perf_counter() - started)
    rows = []
    for way, times in seconds.items():
        ratios = [own / other for own, other in zip(times, seconds["faiss"], strict=True)]
        extra = extra_bytes(way, arguments) if way != "product" else 0
        rows.append(
            {
                "way": way,
                "seconds": f"{statistics.median(times):.2f}",
                "fastest": f"{min(times):.2f}",
                "ratio_to_faiss": f"{statistics.median(ratios):.2f}",
                "ratios": " ".join(f"{ratio:.2f}" for ratio in ratios),
                "extra_megabytes": f"{extra / 1e6:.0f}",
            }
        )
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    facts = {
        **{name: getattr(arguments, name) for name in ("queries", "keys", "dim", "k")},
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "faiss": faiss.__version__,
        "formula_megabytes": round(working_bytes(arguments.queries, arguments.k, arguments.dim) / 1e6),
        **agreement(queries, keys, arguments.k),
    }
    sys.stdout.write(table.getvalue())
    sys.stderr.write(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
