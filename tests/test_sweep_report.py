"""Reports over runs: numbers by hand, the same in every format, nothing mixed that is not alike, and always the same."""

from __future__ import annotations

import csv
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from scipy import stats
from tests.full_disks import files_of_at_most
from tests.run_folders import bandwidth_sweep, base, write_run
from tests.test_html_report import Page

from paka.cohort import Cohort, Measure, Point, cohorts
from paka.comparisons import comparisons
from paka.figures.canvas import save_both
from paka.figures.sweeps import logarithmic
from paka.report import main as report_main
from paka.resamples import Resampled
from paka.runs import Run, find, read
from paka.scores import Score, read_results
from paka.sweep_report import report_over


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def report(folder: Path, reference: str | None = None) -> str:
    """Return the Markdown of a report over a folder, whose figures are empty: drawing takes a second."""
    with undrawn():
        return report_over([folder], folder / "report", reference=reference)["report.md"].read_text()


@contextmanager
def undrawn() -> Iterator[None]:
    """Leave figures empty."""
    with ExitStack() as patches:
        for module in ("sweeps", "gains", "learning"):
            patches.enter_context(mock.patch(f"paka.figures.{module}.save_both", empty_picture))
        yield


def empty_picture(figure: object, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (3, 2)).save(path)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five bandwidths with three seeds, two runs that did not end, and their report."""
    folder = bandwidth_sweep(tmp_path_factory.mktemp("a sweep"))
    write_run(
        folder / "15_run", "kernel.bandwidth=8", "seed=0", state="failed", error="expected a finite loss"
    )
    write_run(folder / "16_run", "kernel.bandwidth=8", "seed=1", state="killed")
    report_over([folder], folder)
    return folder


def test_everything_is_written(swept: Path) -> None:
    files = {
        "report.html",
        "report.md",
        "runs.csv",
        "configurations.csv",
        "comparisons.csv",
        "class_gains.csv",
    }
    assert files <= {path.name for path in swept.iterdir()}
    for name in ("bandwidth", "classes_in_context", "learning"):
        assert (swept / "figures" / f"{name}.png").stat().st_size > 5000
        assert (swept / "figures" / f"{name}.svg").read_text().startswith("<?xml")


def test_means_and_intervals_are_those_of_the_runs(swept: Path) -> None:
    scores = [score for n in range(6, 9) for score in read_results(swept / f"{n}_run" / "results.csv")]
    values = [score.after for score in scores if score.protocol == "linear"]
    (row,) = [
        row
        for row in rows(swept / "configurations.csv")
        if row["configuration"] == "bandwidth=1" and row["protocol"] == "linear"
    ]
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert float(row["mean"]) == pytest.approx(np.mean(values), abs=0.01)
    assert (float(row["ci_low"]), float(row["ci_high"])) == pytest.approx((low, high), abs=0.02)
    assert row["seeds"] == "0 1 2"
    starts = [score.before for score in scores if score.protocol == "linear"]
    assert float(row["gain"]) == pytest.approx(np.mean(values) - np.mean(starts), abs=0.01)


def test_every_format_has_the_same_numbers(swept: Path) -> None:
    text, page = (swept / "report.md").read_text(), Page((swept / "report.html").read_text()).text
    for row in rows(swept / "configurations.csv"):
        reach = float(row["ci_high"]) - float(row["mean"])
        assert f"{row['mean']} ± " in text
        assert f"{row['mean']} ± " in page
        assert abs(float(text.split(f"{row['mean']} ± ")[1][:4]) - reach) < 0.02
    for row in rows(swept / "comparisons.csv"):
        if row["significant"] == "yes":
            difference = f"{float(row['difference']):+.2f}"
            assert difference in text
            assert difference in page


def test_what_differs_is_told_with_the_better_first(swept: Path) -> None:
    found = rows(swept / "comparisons.csv")
    assert len(found) == 3 * (5 + 10)
    pairs = {(row["first"], row["second"]) for row in found if row["significant"] == "yes"}
    assert ("bandwidth=2", "bandwidth=4") in pairs
    assert ("bandwidth=2", "start of training") in pairs
    assert {row["interval_over"] for row in found} == {"seeds and images"}
    assert all(float(row["difference"]) >= 0 for row in found if "start" not in row["second"])
    assert all(float(row["corrected_p"]) >= float(row["p"]) for row in found)


def test_the_best_is_chosen_by_validation_scores(swept: Path) -> None:
    text = (swept / "report.md").read_text()
    assert "* **configuration**: bandwidth=1: mean 23.00" in text
    assert "score on validation images" in text
    assert "Mind that" not in text


def test_runs_that_did_not_end_are_listed_and_in_no_mean(swept: Path) -> None:
    text = (swept / "report.md").read_text()
    assert "| 15_run | failed | expected a finite loss |" in text
    assert "| 16_run | killed | its process is gone, and left no reason |" in text
    assert text.startswith(
        "# Runs by bandwidth\n\n15 runs of 5 configurations with 3 seeds; 2 more left out."
    )
    assert "bandwidth=8" not in text
    of_failed = [row for row in rows(swept / "runs.csv") if row["run"] == "15_run"]
    assert [(row["state"], row["kernel.bandwidth"], row["after"]) for row in of_failed] == [
        ("failed", "8", "")
    ]
    finished = [row for row in rows(swept / "runs.csv") if row["run"] == "4_run"]
    assert [row["protocol"] for row in finished] == ["in_context", "linear", "overclustering"]
    assert {(row["seconds"], row["steps"], row["seed"]) for row in finished} == {("3600", "40", "1")}


def test_the_page_needs_nothing_else(swept: Path) -> None:
    page = (swept / "report.html").read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page
    assert page.count("<img") == 5


def test_the_same_runs_give_the_same_report_elsewhere_and_at_other_times(swept: Path, tmp_path: Path) -> None:
    other = tmp_path / "an other"
    bandwidth_sweep(other)
    for number in (7, 3):  # as if they had been killed and run again
        bandwidth, seed = [0.25, 0.5, 1, 2, 4][number // 3], number % 3
        gain = {0.25: 1.0, 0.5: 3.4, 1: 5.0, 2: 4.6, 4: 1.2}[bandwidth]
        shutil.rmtree(other / f"{number}_run")
        write_run(
            other / f"{number}_run", "kernel=rbf", f"kernel.bandwidth={bandwidth}", f"seed={seed}", hours=9,
            gains={"in_context": gain, "linear": 0.3 * gain, "overclustering": 0.1 * gain - 0.3},
            choices={"kernel": "rbf"}, validation=18.0 + gain, config=base(run_name="again"),
        )  # fmt: skip
    for name in ("15_run", "16_run"):
        shutil.copytree(swept / name, other / name)
    report_over([other], other)
    for name in ("report.md", "report.html"):
        here, there = (without_command(folder / name) for folder in (other, swept))
        assert here == there
    for name in ("configurations.csv", "comparisons.csv", "class_gains.csv", "figures/bandwidth.svg"):
        assert (other / name).read_text() == (swept / name).read_text()


def without_command(path: Path) -> list[str]:
    """Return the lines of a report but for the one that holds its folder."""
    lines = path.read_text().splitlines()
    (command,) = [line for line in lines if "python -m paka.report" in line]
    return [line for line in lines if line != command]


def test_one_reference_makes_fewer_comparisons(swept: Path, tmp_path: Path) -> None:
    for name in ("0_run", "3_run", "6_run", "9_run", "12_run"):
        shutil.copytree(swept / name, tmp_path / name)
    report(tmp_path, reference="bandwidth=0.5")
    command = ["python", "-m", "paka.report", str(tmp_path), "--output", str(tmp_path / "report")]
    assert (
        shlex.join([*command, "--reference", "bandwidth=0.5"])
        in (tmp_path / "report" / "report.md").read_text()
    )
    found = rows(tmp_path / "report" / "comparisons.csv")
    assert len(found) == 3 * (5 + 4)
    assert {row["second"] for row in found} == {"start of training", "bandwidth=0.5"}
    with pytest.raises(
        LookupError, match=r"got 'bandwidth=7': it is none of 'bandwidth=0\.25'; 'bandwidth=0\.5'"
    ):
        report_over([swept], tmp_path, reference="bandwidth=7")
    with pytest.raises(LookupError, match="got 'bandwidth=0'"):
        report_over([swept], tmp_path, reference="bandwidth=0")  # not 0.25, nor 0.5


def test_a_table_without_the_reference_says_so(tmp_path: Path) -> None:
    for bandwidth in (1, 2, 3):
        profile = "compact" if bandwidth == 1 else "clean"
        for other in (1, 2):
            write_run(
                tmp_path / f"{bandwidth} {other}", f"kernel.bandwidth={bandwidth}", f"teacher={other}", choices={"teacher": f"{other}"},
                config=base(teacher=other), score={"profile": profile},
            )  # fmt: skip
    text = report(tmp_path, reference="teacher=1, bandwidth=2")
    assert (
        text.count("No single one of these is named teacher=1, bandwidth=2, so that every pair is compared.")
        == 1
    )


def test_what_an_earlier_report_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / f"{n}", f"teacher={n}", choices={"teacher": f"{n}"}, config=base(teacher=n))
        for n in "ab"
    ]
    report(tmp_path)
    left = tmp_path / "report"
    (left / "figures" / "my own.png").write_bytes(b"")
    (left / "mine.csv").write_text("")
    assert (left / "class_gains.csv").is_file()
    assert (left / "figures" / "configurations.png").is_file()
    for folder in folders:
        for file in ("per_class.csv", "results.csv", "metrics.csv"):
            (folder / file).unlink()
    report(tmp_path)
    assert {path.name for path in left.iterdir()} == {
        "report.md",
        "report.html",
        "runs.csv",
        "mine.csv",
        "figures",
    }
    assert [path.name for path in (left / "figures").iterdir()] == ["my own.png"]


@pytest.mark.parametrize("size", [100, 300])  # no page fits, or the table does not
def test_a_full_disk_leaves_what_was_there_whole(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run")
    report(tmp_path)
    left = tmp_path / "report"
    before = {path: path.read_bytes() for path in left.rglob("*") if path.is_file()}
    monkeypatch.setattr(sys, "argv", ["paka-report", str(tmp_path), "--output", str(left)])
    if size > 100:
        monkeypatch.setattr("paka.sweep_report.html", lambda document: "page")
        monkeypatch.setattr("paka.sweep_report.markdown", lambda document, folder: "page")
    with undrawn(), files_of_at_most(size), pytest.raises(SystemExit):
        report_main()
    told = capsys.readouterr().err
    assert told.startswith(f"error: expected room for another file in {left}, but the file is too large")
    assert told.endswith("make room and report again\n")
    after = {path: path.read_bytes() for path in left.rglob("*") if path.is_file()}
    assert {path.name for path in after if after[path] != before[path]} == (
        {"report.html", "report.md"} if size > 100 else set()
    )


def test_a_figure_is_saved_whole_or_not_at_all(tmp_path: Path) -> None:
    for file in ("a.png", "a.svg"):
        (tmp_path / file).write_text("before")
    with files_of_at_most(100), pytest.raises(OSError, match="File too large"):
        save_both(Figure(), tmp_path / "a.png")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "a.png": "before",
        "a.svg": "before",
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [("benchmark", "voc"), ("profile", "clean"), ("split", "val"), ("size", "37x37 tokens")],
)
def test_what_is_measured_otherwise_is_in_no_mean_together(tmp_path: Path, field: str, value: str) -> None:
    for seed in (0, 1):
        write_run(tmp_path / f"a{seed}", f"seed={seed}")
        write_run(tmp_path / f"b{seed}", f"seed={seed}", gains=9.0, score={field: value})
    text = report(tmp_path)
    assert "Scores that are not measured alike are in tables of their own" in text
    assert text.count("\n| start of training |") == 2
    means = [float(row["mean"]) for row in rows(tmp_path / "report" / "configurations.csv")]
    assert len(means) == 6
    assert min(abs(a - b) for a, b in zip(means[:3], means[3:], strict=True)) > 5


@pytest.mark.parametrize(("name", "tables"), [("folder", 2), ("voc", 1)])
def test_other_folders_hold_other_images_where_these_are_own(tmp_path: Path, name: str, tables: int) -> None:
    data = {"name": name, "root": "???", "source": {"root": "${..root}"}, "miniature": None}
    for seed, root in enumerate(("/scratch/job1", "/scratch/job2")):
        write_run(
            tmp_path / f"{seed}",
            f"seed={seed}",
            f"data.root={root}",
            "trainer.devices=2",
            config=base(data=data),
        )
    found = cohorts(read(find([tmp_path]), [tmp_path]))
    assert len(found) == tables
    assert all(one.names == [] for one in found)


def test_other_settings_of_a_protocol_are_another_score_and_no_other_configuration(tmp_path: Path) -> None:
    for number, fraction in enumerate((0.5, 0.125)):
        protocols = {"in_context": {"run": {"fraction": fraction}}, "linear": {"run": {"epochs": 5}}}
        config = base(eval={"every": number, "protocols": protocols})
        write_run(
            tmp_path / f"{number}", f"eval.protocols.in_context.run.fraction={fraction}", hours=number + 1,
            gains={"in_context": 2.0, "linear": 1.0 + number}, config=config,
        )  # fmt: skip
    text = report(tmp_path)
    assert (
        "| configuration | seeds | in-context, fraction=0.125 | gain | in-context, fraction=0.5 | gain | linear |"
        in text
    )
    assert "Runs that are left out" not in text  # the older one is left in one score
    assert text.splitlines()[2].startswith("2 runs of 1 configuration with 1 seed.")
    found = [(row["protocol"], row["settings"]) for row in rows(tmp_path / "report" / "configurations.csv")]
    assert sorted(found) == [
        ("in_context", "fraction=0.125"),
        ("in_context", "fraction=0.5"),
        ("linear", ""),
    ]


def test_scores_that_are_printed_differently_are_of_different_encoders(tmp_path: Path) -> None:
    depth = {"metric": "RMSE", "unit": "m", "better": "lower"}
    for name, before in {"vits": 0.450, "vitb": 0.436}.items():
        backbone = base(backbone={"name": name})
        score = {**depth, "before": before, "after": 0.4}
        write_run(
            tmp_path / name,
            f"backbone={name}",
            choices={"backbone": name},
            config=backbone,
            resamples=0,
            score=score,
        )
    (found,) = cohorts(read(find([tmp_path]), [tmp_path]))
    assert found.start(found.measures[0]) is None


def test_other_metrics_have_columns_of_their_own_and_errors_are_better_when_they_fall(tmp_path: Path) -> None:
    depth = {"metric": "RMSE", "unit": "m", "better": "lower"}
    for seed in (0, 1, 2):
        for name, gain in {"a": -0.1, "b": -0.3}.items():
            write_run(
                tmp_path / f"{name}{seed}", f"seed={seed}", f"teacher={name}", gains={"linear_depth": gain}, noise=0.0,
                resamples=0, choices={"teacher": name}, score=depth, config=base(teacher=name),
            )  # fmt: skip
        write_run(
            tmp_path / f"c{seed}",
            f"seed={seed}",
            "teacher=c",
            choices={"teacher": "c"},
            config=base(teacher="c"),
        )
    text = report(tmp_path)
    assert "lower is better: linear-depth" in text
    header = next(line for line in text.splitlines() if line.startswith("| teacher"))
    assert [name.strip() for name in header.strip("|").split("|")][2:] == [
        "linear-depth", "gain", "in-context", "gain", "linear", "gain", "overclustering", "gain",
    ]  # fmt: skip
    assert [
        row["first"] for row in rows(tmp_path / "report" / "comparisons.csv") if row["second"] == "teacher=a"
    ] == ["teacher=b"]


def test_one_seed_is_told_from_the_images_alone(tmp_path: Path) -> None:
    for bandwidth in (0.5, 1, 2):
        write_run(tmp_path / f"{bandwidth}", f"kernel.bandwidth={bandwidth}", gains=4 - abs(bandwidth - 1))
    text = report(tmp_path)
    assert "A single seed has no interval." in text
    assert "they compare these runs, not these configurations" in text
    assert {row["interval_over"] for row in rows(tmp_path / "report" / "comparisons.csv")} == {
        "images, one seed"
    }
    assert "±" not in text


def test_without_resamples_it_falls_back_to_the_seeds_and_says_so(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        for bandwidth in (1, 2):
            write_run(
                tmp_path / f"{bandwidth}{seed}", f"kernel.bandwidth={bandwidth}", f"seed={seed}", resamples=0
            )
    text = report(tmp_path)
    assert "t intervals over paired seeds, on these images" in text
    assert "paired bootstrap" not in text
    found = rows(tmp_path / "report" / "comparisons.csv")
    assert {row["interval_over"] for row in found} == {"seeds"}
    first = next(row for row in found if row["second"].startswith("bandwidth"))
    scores = {
        key: [
            next(
                s.after
                for s in read_results(tmp_path / f"{key}{seed}" / "results.csv")
                if s.protocol == first["protocol"]
            )
            for seed in range(3)
        ]
        for key in (1, 2)
    }
    expected = stats.ttest_rel(scores[1], scores[2])
    assert float(first["p"]) == pytest.approx(expected.pvalue, rel=0.1)


def test_other_images_are_never_paired(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "kernel.bandwidth=1")
    write_run(tmp_path / "b", "kernel.bandwidth=2", resamples=150)
    found = rows_of_pairs(tmp_path)
    assert {(row["interval_over"], row["p"]) for row in found} == {("", "")}
    assert "cannot be tested" in (tmp_path / "report" / "report.md").read_text()


def rows_of_pairs(folder: Path) -> list[dict[str, str]]:
    report(folder)
    return [
        row for row in rows(folder / "report" / "comparisons.csv") if row["second"] != "start of training"
    ]


@pytest.mark.parametrize(
    ("resamples", "basis"), [(200, "different seeds and images"), (0, "different seeds")]
)
def test_configurations_with_different_seeds_are_compared_by_means(
    tmp_path: Path, resamples: int, basis: str
) -> None:
    for bandwidth, seeds in {1: (0, 1, 2), 2: (3, 4)}.items():
        for seed in seeds:
            write_run(
                tmp_path / f"{bandwidth}{seed}", f"kernel.bandwidth={bandwidth}", f"seed={seed}", gains={"linear": 2.0},
                resamples=resamples,
            )  # fmt: skip
    (row,) = rows_of_pairs(tmp_path)
    (first, second) = (
        [s.after for path in tmp_path.glob(f"{name[-1]}[0-9]") for s in read_results(path / "results.csv")]
        for name in (row["first"], row["second"])
    )
    assert row["seeds"] == f"{len(first)} and {len(second)}"
    assert row["interval_over"] == basis
    assert float(row["difference"]) == pytest.approx(np.mean(first) - np.mean(second), abs=0.02)
    text = (tmp_path / "report" / "report.md").read_text()
    assert "Means over different seeds" in text
    assert "over the seeds that both have" not in text


def test_differences_over_the_seeds_that_both_have_are_told(tmp_path: Path) -> None:
    for bandwidth, seeds in {1: (0, 1, 2), 2: (1, 2)}.items():
        for seed in seeds:
            write_run(tmp_path / f"{bandwidth}{seed}", f"kernel.bandwidth={bandwidth}", f"seed={seed}")
    assert {row["seeds"] for row in rows_of_pairs(tmp_path)} == {"2"}
    text = (tmp_path / "report" / "report.md").read_text()
    assert "over the seeds that both have, where one has more" in text
    assert "Means over different seeds" not in text


def test_a_run_that_was_repeated_counts_once(tmp_path: Path) -> None:
    for name, hours in {"old": 1, "new": 2}.items():
        write_run(tmp_path / name, "seed=1", hours=hours, gains=float(hours))
    write_run(tmp_path / "other", "seed=0")
    text = report(tmp_path)
    assert "| old | finished | same configuration and seed as new, which ended later |" in text
    assert text.splitlines()[2].startswith("2 runs of 1 configuration with 2 seeds; 1 more left out.")


def test_picking_by_test_scores_is_called_what_it_is(tmp_path: Path) -> None:
    for name in "ab":
        write_run(tmp_path / name, f"teacher={name}", choices={"teacher": name}, config=base(teacher=name))
    text = report(tmp_path)
    assert "the in-context score of the results, on the test split" in text
    assert "Mind that picking by the images that are reported on" in text


@pytest.mark.parametrize("broken", [False, True])
def test_the_best_is_chosen_over_the_seeds_that_all_have(tmp_path: Path, broken: bool) -> None:
    scores = {(1, 0): 20.0, (1, 1): 22.0, (1, 2): 24.0, (2, 2): 23.0, **({(2, 0): np.nan} if broken else {})}
    for (bandwidth, seed), score in scores.items():
        write_run(
            tmp_path / f"{bandwidth} {seed}", f"kernel.bandwidth={bandwidth}", f"seed={seed}",
            gains={"linear": 1.0}, validation=score,
        )  # fmt: skip
    text = report(tmp_path)
    assert "* **configuration**: bandwidth=1: mean 24.00\n* **run**: 1 2: 24.00\n" in text
    assert "on validation images, over the seed with a score in all configurations: 2\n" in text


def test_a_score_that_is_no_number_is_chosen_by_nowhere_and_told(tmp_path: Path) -> None:
    for name, score in {"a": np.nan, "b": 20.0, "c": 19.0}.items():
        write_run(
            tmp_path / name, f"teacher={name}", choices={"teacher": name}, config=base(teacher=name), validation=score,
            score={"before": score, "after": score} if name == "a" else {}, resamples=200 if name == "b" else 0,
        )  # fmt: skip
    text = report(tmp_path)
    assert "* **configuration**: teacher=b: mean 20.00" in text
    assert "| a | finished | no number: in-context, linear, overclustering |" in text
    assert text.splitlines()[2].startswith("2 runs of 2 configurations with 1 seed; 1 more left out.")
    for name in "bc":
        shutil.rmtree(tmp_path / name)
    assert "None of 1 run has scores to report" in report(tmp_path)


def test_evaluations_on_validation_images_are_not_told_to_choose_by_them(tmp_path: Path) -> None:
    for name in "ab":
        config = base(teacher=name)
        write_run(
            tmp_path / name,
            f"teacher={name}",
            choices={"teacher": name},
            config=config,
            score={"split": "val"},
        )
    assert "score it with split=test to report it" in report(tmp_path)


def test_evaluations_are_reported_too(tmp_path: Path) -> None:
    config = {key: value for key, value in base().items() if key not in ("trainer", "data")} | {
        "compare": [], "benchmark": {"name": "scenes"},
    }  # fmt: skip
    for name in ("vits", "vitb"):
        for seed in (0, 1):
            write_run(
                tmp_path / f"{name}{seed}", f"backbone={name}", f"seed={seed}", job="evaluate",
                choices={"backbone": name}, config={**config, "backbone": {"name": name}, "trainer": {"max_steps": 4}},
                score={"after": None, "delta": None, "method": ""},
            )  # fmt: skip
    text = report(tmp_path)
    assert "| backbone | seeds | in-context | linear | overclustering |" in text
    assert "start of training" not in text
    assert "gain" not in text.split("## Runs")[0].split("## Differences")[0]


def test_trainings_and_evaluations_side_by_side_differ_in_no_key_of_one_program(tmp_path: Path) -> None:
    config = {key: value for key, value in base().items() if key != "data"}
    write_run(tmp_path / "train")
    for seed in (0, 1):
        write_run(
            tmp_path / f"evaluate{seed}", f"seed={seed}", "store=float16", job="evaluate",
            config={**config, "compare": [], "benchmark": {"name": "scenes"}},
        )  # fmt: skip
    report(tmp_path)
    (header,) = {tuple(row) for row in rows(tmp_path / "report" / "runs.csv")}
    assert header[:7] == ("run", "program", "state", "reason", "seed", "benchmark", "protocol")


def test_no_run_with_scores_is_a_report_of_reasons(tmp_path: Path) -> None:
    write_run(tmp_path / "a | b", state="failed", error="expected a | b")
    text = report(tmp_path)
    assert "None of 1 run has scores to report; the reasons are below." in text
    assert r"| failed | expected a \| b |" in text


@pytest.mark.parametrize("file", ["per_class.csv", "metrics.csv", "resamples.npz", ".hydra/overrides.yaml"])
def test_what_else_is_missing_or_damaged_leaves_the_scores(tmp_path: Path, file: str) -> None:
    for name in "ab":
        write_run(tmp_path / name, f"teacher={name}", choices={"teacher": name}, config=base(teacher=name))
    (tmp_path / "a" / file).unlink()
    (tmp_path / "b" / file).write_bytes(b"\xff\x00half")
    assert "in-context" in report(tmp_path)


def test_nothing_differs_more_often_than_it_should() -> None:
    """Of sweeps whose configurations are alike, few have a difference in a score that is called significant."""
    rng = np.random.default_rng(0)
    trials, alarms, uncorrected = 100, 0, 0
    for _ in range(trials):
        pairs = [one for one in comparisons(alike(rng)) if one.against is not None]
        alarms += any(one.significant for one in pairs)
        uncorrected += any(one.estimate is not None and one.estimate.p < 0.05 for one in pairs)
    limit = 0.05 + 3 * (0.05 * 0.95 / trials) ** 0.5
    assert alarms / trials < limit < uncorrected / trials


def alike(rng: np.random.Generator) -> Cohort:
    """Return a cohort of seven configurations with three seeds, in one score, that differ by seeds and images only."""
    measure = Measure("linear", "mIoU", "%", "higher", "", first=True)
    images = rng.integers(0, 50, (100, 50))
    samples: dict[tuple[str, ...], dict[Measure, dict[int, Point]]] = {}
    for name in "abcdefg":
        suits = rng.normal(20, 1, 50)
        for seed in range(3):
            of_images = suits + rng.normal(0, 0.2) + rng.normal(0, 1, 50)
            kept = Resampled(float(of_images.mean()), of_images[images].mean(axis=1), 50, "the same")
            score = Score(
                "scenes",
                "linear",
                "compact",
                "mIoU",
                "test",
                seed,
                kept.value,
                None,
                None,
                None,
                None,
                None,
                None,
            )
            run = Run(Path(f"{name}{seed}"), f"{name}{seed}", "evaluate", "finished")
            samples.setdefault((name,), {}).setdefault(measure, {})[seed] = Point(run, score, kept, None)
    return Cohort("evaluate", {}, ["name"], samples, [], {}, {})


def test_what_is_no_number_is_drawn_as_dots_beside_the_curve(tmp_path: Path) -> None:
    for bandwidth in (0.5, 1, 2):
        config = base(kernel={"_target_": "paka.kernels.rbf", "bandwidth": bandwidth})
        write_run(
            tmp_path / f"{bandwidth}",
            "kernel=rbf",
            f"kernel.bandwidth={bandwidth}",
            choices={"kernel": "rbf"},
            config=config,
        )
    linear = base(kernel={"_target_": "paka.kernels.linear"})
    report(tmp_path)
    assert not (tmp_path / "report" / "figures" / "configurations.png").exists()
    write_run(tmp_path / "linear", "kernel=linear", choices={"kernel": "linear"}, config=linear)
    text = report(tmp_path)
    assert "figures/bandwidth.png" in text
    assert "figures/configurations.png" in text


@pytest.mark.parametrize(
    ("values", "is_logarithmic"),
    [
        ([0.25, 0.5, 1, 2, 4], True),
        ([0, 0.5, 0.9, 1], False),
        ([1, 2, 3, 4], False),
        ([0.1, 10], False),
        ([1e-4, 3e-4, 1e-3], True),
    ],
)
def test_an_axis_is_logarithmic_where_numbers_are_spaced_so(
    values: list[float], is_logarithmic: bool
) -> None:
    assert logarithmic(values) == is_logarithmic
