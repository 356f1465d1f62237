"""The data doctor: what it does with a configuration, and what it prints and writes about a data set."""

from __future__ import annotations

import csv
import json
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from paka import terminal
from paka.config import build
from paka.contact_sheet import draw
from paka.findings import SplitFindings, printable, summary
from paka.inspection import DATA, inspect
from paka.inspection import Progress as Told
from paka.progress import TimeLeft, animated, duration
from paka.provenance import command_line, write_provenance
from paka.run_folder import save_config

GROUPS = ("data", "benchmark")
CLASSES_SHOWN = 30
PROBLEMS_SHOWN = 10
BAR = 24
"""Characters of the longest bar."""


def check_up(cfg: DictConfig) -> None:
    """Read the configured data sets once, say what is there and draw a part of it.

    Writes `findings.json`, `problems.csv` and `contact_sheet.png` into the run's folder.

    Args:
        cfg: The composed and validated configuration, with `data`, `benchmark` or both.

    Raises:
        ValueError: Something has to be put right.
    """
    output_dir, console, started = Path(cfg.output_dir), terminal.standard_output(), time.monotonic()
    name = " and ".join(dict.fromkeys(cfg[group].name for group in _chosen(cfg)))
    save_config(output_dir, cfg)
    write_provenance(output_dir / "provenance.json")
    terminal.banner(f"paka: check of {name}", _facts(cfg), console=console)
    try:
        with _bar(console) as told:
            splits = [one for group in _inspected(cfg) for one in _inspect(cfg, group, told)]
    except KeyboardInterrupt:
        sys.stderr.write(
            "stopped before every image was read, so nothing is known; sample=100 takes less time\n"
        )
        sys.exit(130)
    found = summary(splits)
    print_findings(found, console)
    paths = _write(found, output_dir)
    if cfg.contact_sheet and (sheet := draw(output_dir / "contact_sheet.png", splits, cfg.contact_sheet)):
        paths["contact_sheet.png"] = sheet
    _close(name, found, paths, time.monotonic() - started, console)
    program = "train" if cfg.benchmark is None else "evaluate"
    fitting = {"depth": "eval=depth", "pairs": "eval=correspondence", "videos": "eval=label_propagation"}
    probes = [probe for kind, probe in fitting.items() if any(split[kind] for split in found["splits"])]
    _next(_command(program, "data" if cfg.benchmark is None else "benchmark", *probes[:1]), console)


def write_miniatures(cfg: DictConfig) -> None:
    """Write a miniature of each configured data set: generated images in its true tree, names and formats.

    One data set is written into the folder `cfg.miniature` itself, two into folders of their names below it.

    Raises:
        ValueError: The folder is not empty, or a data set has no miniature.
    """
    root, console = Path(cfg.miniature).expanduser(), terminal.standard_output()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ValueError(f"miniature: expected a new or empty folder, got {root}; choose another or empty it")
    groups = {cfg[group].name: group for group in _chosen(cfg)}
    writers = {name: _writer(cfg, group) for name, group in groups.items()}
    for name, write in writers.items():
        folder = root if len(writers) == 1 else root / name
        folder.mkdir(parents=True, exist_ok=True)
        write(folder)
        count = sum(path.is_file() for path in folder.rglob("*"))
        terminal.banner(
            f"paka: miniature of {name}",
            {"files": str(count), "folder": printable(str(folder))},
            console=console,
        )
        _next(_command("doctor", groups[name], f"{groups[name]}.root={folder}"), console)


def print_findings(found: Mapping[str, Any], console: Console) -> None:
    """Print what `summary` returned: splits, classes, depth, pairs, videos, warnings and problems, as far as there are any."""
    _print_splits(found["splits"], console)
    for labelled in _by_classes(found["splits"]):
        _print_classes(labelled, console)
    deep = [split for split in found["splits"] if split["depth"]]
    if deep:
        _print_depth(deep, console)
    paired = [split for split in found["splits"] if split["pairs"]]
    if paired:
        _print_pairs(paired, console)
    moving = [split for split in found["splits"] if split["videos"]]
    if moving:
        _print_videos(moving, console)
    if found["warnings"]:
        _heading("Warnings", console)
        for warning in found["warnings"]:
            console.print(Text(f"  {warning}", style="yellow"))
    if found["problems"]:
        _print_problems(found["problems"], console)


def _chosen(cfg: DictConfig) -> list[str]:
    return [group for group in GROUPS if cfg[group] is not None]


def _inspected(cfg: DictConfig) -> list[str]:
    """Return the groups to inspect: one of them if both are the same images."""
    groups = _chosen(cfg)
    same = len(groups) == 2 and cfg.data.source == cfg.benchmark.source
    return ["benchmark"] if same else groups


def _inspect(cfg: DictConfig, group: str, told: Told) -> list[SplitFindings]:
    node, same = cfg[group], len(_chosen(cfg)) > len(_inspected(cfg))
    splits = {DATA: cfg.data.split} if group == "data" or same else {}
    if group == "benchmark":
        if node.splits is None:
            raise ValueError(
                f"benchmark: expected labelled images, but {node.name} has none; check data={node.name}"
            )
        splits |= node.splits
    return inspect(build(node.source), splits, home=node.home, sample=cfg.sample, progress=told)


def _writer(cfg: DictConfig, group: str) -> Any:
    if OmegaConf.select(cfg, f"{group}.miniature") is None:
        name = cfg[group].name
        raise ValueError(
            f"{group}: expected a data set that has a miniature, but {name} has none; choose another"
        )
    return build(cfg[group].miniature)


def _facts(cfg: DictConfig) -> dict[str, str]:
    facts = {}
    for group in _chosen(cfg):
        root, home = OmegaConf.select(cfg, f"{group}.root"), cfg[group].home
        where = "" if root is None else f" in {printable(str(root))}"
        facts[group] = f"{cfg[group].name}{where}" + ("" if home is None else f"\npublished at {home}")
    reads = "every image" if cfg.sample is None else f"at most {cfg.sample} images of each split"
    return {**facts, "reads": reads, "folder": terminal.from_here(cfg.output_dir)}


@contextmanager
def _bar(console: Console) -> Iterator[Told]:
    """Show a bar in a terminal; it has no thread of its own, as processes are forked meanwhile."""
    columns = TextColumn("{task.description}"), BarColumn(30), MofNCompleteColumn(), TimeLeft()
    shown = Progress(
        *columns, console=console, transient=True, auto_refresh=False, disable=not animated(console)
    )
    tasks: dict[str, Any] = {}
    with shown:

        def told(split: str, done: int, total: int) -> None:
            if split not in tasks:
                tasks[split] = shown.add_task(split, total=total)
            shown.update(tasks[split], completed=done)
            if done == total or done % max(total // 200, 1) == 0:
                shown.refresh()

        yield told


def _heading(title: str, console: Console) -> None:
    console.print(Text(f"\n{title}", style="bold"))


def _print_splits(splits: list[dict[str, Any]], console: Console) -> None:
    _heading("Images", console)
    header = [
        "data",
        "split",
        "used as",
        "images",
        "read",
        "problems",
        "smallest",
        "median",
        "largest",
        "files",
    ]
    rows: list[list[str | Text]] = [
        [
            split["data set"],
            split["split"],
            ", ".join(split["roles"]),
            f"{split['images']:,}",
            f"{split['read']:,}",
            Text(f"{split['problems']:,}", style="bold red" if split["problems"] else "green"),
            *(
                "x".join(map(str, split["sizes"].get(name, "-")))
                for name in ("smallest", "median", "largest")
            ),
            ", ".join(f"{count:,} {ending}" for ending, count in split["endings"].items()),
        ]
        for split in splits
    ]
    terminal.print_columns(header, rows, [True, True, True, *[False] * 6, True], console)


def _by_classes(splits: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return the splits with masks, those of the same classes together."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for split in splits:
        groups.setdefault(tuple(row["class"] for row in split["classes"]), []).append(split)
    return [group for names, group in groups.items() if names]


def _print_classes(splits: list[dict[str, Any]], console: Console) -> None:
    """Print the share of the labelled pixels and the number of images of each class, by the first split's share."""
    _heading("Classes: share of the labelled pixels, images", console)
    first = splits[0]["classes"]
    order = sorted(range(len(first)), key=lambda place: -first[place]["share"])[:CLASSES_SHOWN]
    longest = max(first[order[0]]["share"], 1e-9)
    rows: list[list[str | Text]] = []
    for place in order:
        row: list[str | Text] = [first[place]["class"], _bar_of(first[place]["share"] / longest, console)]
        for split in splits:
            own = split["classes"][place]
            row += [f"{own['share']:.2f} %", f"{own['images']:,}"]
        rows.append(row)
    rows.append(
        [
            Text("void, of all pixels", style="dim"),
            "",
            *(x for s in splits for x in (f"{s['void']:.2f} %", "")),
        ]
    )
    header = ["class", "", *(x for split in splits for x in (split["split"], "images"))]
    terminal.print_columns(header, rows, [True, True, *[False] * 2 * len(splits)], console)
    if len(first) > len(order):
        console.print(Text(f"and {len(first) - len(order)} more classes in findings.json", style="dim"))


def _bar_of(share: float, console: Console) -> Text:
    block = "█" if console.encoding.startswith("utf") else "#"
    return Text(block * max(round(BAR * share), share > 0), style="blue")


def _print_depth(splits: list[dict[str, Any]], console: Console) -> None:
    _heading("Depth in metres", console)
    header = ["split", "nearest", "median", "farthest", "unknown"]
    names = ("nearest", "median", "farthest")
    rows = [
        [
            split["split"],
            *(f"{split['depth'][name]:.2f}" for name in names),
            f"{split['depth']['unknown']:.1f} %",
        ]
        for split in splits
    ]
    terminal.print_columns(header, rows, [True, *[False] * 4], console)


def _print_pairs(splits: list[dict[str, Any]], console: Console) -> None:
    _heading("Pairs of images with keypoints", console)
    names = ("pairs", "points", "categories")
    rows = [[split["split"], *(f"{split['pairs'][name]:,}" for name in names)] for split in splits]
    terminal.print_columns(["split", *names], rows, [True, *[False] * 3], console)


def _print_videos(splits: list[dict[str, Any]], console: Console) -> None:
    _heading("Videos: their lengths in frames, frames with a mask, objects", console)
    names = ("videos", "shortest", "longest", "masks", "objects")
    rows = [[split["split"], *(f"{split['videos'][name]:,}" for name in names)] for split in splits]
    terminal.print_columns(["split", *names], rows, [True, *[False] * 5], console)


def _print_problems(problems: list[dict[str, str]], console: Console) -> None:
    _heading("Problems", console)
    for problem in problems[:PROBLEMS_SHOWN]:
        named = problem["item"] in problem["sentence"]
        where = problem["split"] if named else f"{problem['split']}, {problem['item']}"
        console.print(Text.assemble(("  " + where, "bold"), ": ", problem["sentence"]))
    if len(problems) > PROBLEMS_SHOWN:
        console.print(Text(f"  and {len(problems) - PROBLEMS_SHOWN:,} more in problems.csv", style="dim"))


def _write(found: Mapping[str, Any], output_dir: Path) -> dict[str, Path]:
    paths = {name: output_dir / name for name in ("findings.json", "problems.csv")}
    paths["findings.json"].write_text(
        json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    with paths["problems.csv"].open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["split", "item", "sentence"])
        writer.writeheader()
        writer.writerows(found["problems"])
    return paths


def _command(program: str, group: str, *more: str) -> str:
    """Return a command line for another program about the same data set, with `more` overrides."""
    replaced = {one.partition("=")[0] for one in more}
    own = [
        one
        for one in sys.argv[1:]
        if one.partition("=")[0].partition(".")[0] == group and one.partition("=")[0] not in replaced
    ]
    return shlex.join(["python", "-m", f"paka.{program}", *own, *more])


def _next(command: str, console: Console) -> None:
    _heading("Next", console)
    console.print(Text(f"  {command}", style="cyan"))


def _close(
    name: str, found: Mapping[str, Any], paths: Mapping[str, Path], seconds: float, console: Console
) -> None:
    """Print the verdict, where everything is and what to do next.

    Raises:
        ValueError: Something has to be put right.
    """
    read = sum(split["read"] for split in found["splits"])
    be = "are" if " and " in name else "is"
    verdict = f"\n{name} {be} sound: {read:,} images read in {duration(seconds)}"
    if found["sound"]:
        console.print(Text(verdict, style="bold green"))
    console.print(Text("\nFiles", style="bold"))
    terminal.print_paths(console, paths)
    if not found["sound"]:
        count = len(found["problems"])
        what = "1 problem" if count == 1 else f"{count:,} problems"
        raise ValueError(
            f"{name} {be} not sound: {what}, listed in {paths['problems.csv']}; then check again: {command_line()}"
        )
