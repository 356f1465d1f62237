from __future__ import annotations

import math
from dataclasses import replace

import pytest

from paka.scores import (
    COLUMNS,
    Score,
    changes,
    decimal,
    format_rows,
    layout,
    merge_results,
    read_results,
    summarise,
    verdict,
    write_results,
)

SCORE = Score(
    "scenes", "in_context", "demo", "mIoU", "test", 0, 40.214, 45.126, 4.912, 3.9, 5.9, 10240, 30, "", "paka"
)
LINEAR = replace(
    SCORE,
    protocol="linear",
    before=50.0,
    after=49.75,
    delta=-0.25,
    ci_low=-0.6,
    ci_high=0.1,
    memory=None,
    k=None,
)
HEADER = "benchmark,protocol,profile,metric,split,seed,before,after,delta,ci_low,ci_high,memory,k,note,method,size,temperature,classes,rules,unit,better,upsampling"


def test_file_has_the_documented_columns_and_two_decimals(tmp_path):
    write_results(tmp_path / "run" / "results.csv", [SCORE, LINEAR])
    assert (tmp_path / "run" / "results.csv").read_text().splitlines() == [
        HEADER,
        "scenes,in_context,demo,mIoU,test,0,40.21,45.13,4.91,3.90,5.90,10240,30,,paka,,,,,%,higher,",
        "scenes,linear,demo,mIoU,test,0,50.00,49.75,-0.25,-0.60,0.10,,,,paka,,,,,%,higher,",
    ]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["results.csv"]


def test_round_trip(tmp_path):
    rows = [LINEAR, replace(LINEAR, before=None, after=None, delta=None, note='a "quoted", note', seed=None)]
    write_results(tmp_path / "r.csv", rows)
    assert read_results(tmp_path / "r.csv") == rows
    text = (tmp_path / "r.csv").read_text()
    write_results(tmp_path / "r.csv", read_results(tmp_path / "r.csv"))
    assert (tmp_path / "r.csv").read_text() == text


def test_reading_a_file_without_later_columns(tmp_path):
    (tmp_path / "r.csv").write_text(
        HEADER.removesuffix(",method") + "\ns,linear,p,mIoU,test,1,1.00,,,,,,,hello\n"
    )
    (score,) = read_results(tmp_path / "r.csv")
    assert (score.seed, score.before, score.after, score.note, score.method) == (1, 1.0, None, "hello", "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a,b\n1,2\n",
        HEADER + ",more\n",
        HEADER.removesuffix(",note,method,size,temperature,classes,rules,unit,better,upsampling") + "\n",
    ],
)
def test_reading_something_else(tmp_path, text):
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(ValueError, match="must begin with the columns benchmark,protocol"):
        read_results(tmp_path / "r.csv")


@pytest.mark.parametrize("line", ["s,linear,p,mIoU,test,one,1,1,1,1,1,1,1,,,,,,", "s,linear"])
def test_reading_a_broken_line(tmp_path, line):
    (tmp_path / "r.csv").write_text(f"{HEADER}\n{line}\n")
    with pytest.raises(ValueError, match=r"line 2 of .*r\.csv is no row of scores"):
        read_results(tmp_path / "r.csv")


def test_merging_replaces_by_key_and_keeps_order(tmp_path):
    path = tmp_path / "r.csv"
    merge_results(path, [SCORE, LINEAR])
    other = replace(SCORE, seed=1)
    merge_results(path, [replace(SCORE, after=46.0, note="again"), other])
    assert [(s.protocol, s.seed, s.after) for s in read_results(path)] == [
        ("in_context", 0, 46.0),
        ("linear", 0, 49.75),
        ("in_context", 1, 45.13),
    ]


@pytest.mark.parametrize("name", ["benchmark", "protocol", "profile", "metric", "split", "method"])
def test_every_part_of_the_key_counts(tmp_path, name):
    merge_results(tmp_path / "r.csv", [SCORE])
    assert len(merge_results(tmp_path / "r.csv", [replace(SCORE, **{name: "other"})])) == 2


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_results(tmp_path / "r.csv", [SCORE])
    with pytest.raises(UnicodeEncodeError):
        write_results(tmp_path / "r.csv", [replace(SCORE, note="\ud800")])
    assert len(read_results(tmp_path / "r.csv")) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_signs_are_for_readers_and_zero_has_none():
    zero = replace(SCORE, delta=-0.001, ci_low=-0.004, ci_high=0.004)
    header, (row,) = format_rows([zero], signed=True)
    assert header == COLUMNS
    assert row[8:11] == ("0.00", "0.00", "0.00")
    assert format_rows([SCORE])[1][0][8] == "4.91"
    assert format_rows([SCORE], signed=True)[1][0][8] == "+4.91"


def test_layout_lifts_what_all_rows_share():
    caption, header, rows = layout([SCORE, LINEAR])
    assert header == ("protocol", "before", "after", "delta", "95 % interval", "memory", "k")
    assert rows[0] == ("in_context", "40.21", "45.13", "+4.91", "[+3.90, +5.90]", "10240", "30")
    assert caption == (
        "benchmark scenes, profile demo, metric mIoU, split test, seed 0, method paka, scores in percent"
    )


def test_layout_keeps_what_differs():
    _, header, _ = layout([SCORE, replace(SCORE, seed=1, method="permuted", note="x")])
    assert header[:3] == ("method", "protocol", "seed")
    assert header[-1] == "note"


def test_changes_for_the_figure():
    change, bare = changes([SCORE, replace(SCORE, after=None), replace(LINEAR, ci_low=None, ci_high=None)])
    assert change == ("in-context", 40.214, 45.126, 3.9, 5.9, "+4.91 [+3.90, +5.90]")
    assert bare.text == "-0.25"
    assert math.isnan(bare.low)


def test_means_over_seeds():
    rows = [
        replace(SCORE, seed=s, before=40.0, after=40.0 + d, delta=d, ci_low=d - 1.5)
        for s, d in enumerate((1, 2, 6))
    ]
    mean, alone = summarise([*rows, LINEAR])
    assert (mean.before, mean.after, mean.delta) == (40, 43, 3)
    assert (mean.seed, mean.ci_low, mean.ci_high) == (None, None, None)
    assert mean.note == "mean of seeds 0, 1, 2; delta +1.00 to +6.00; 2 of 3 intervals above 0"
    assert alone == LINEAR


def test_means_keep_methods_apart_and_missing_values_missing():
    rows = [
        replace(SCORE, seed=s, method=m, after=None, delta=None, ci_low=None) for s in (0, 1) for m in "ab"
    ]
    first, second = summarise(rows)
    assert (first.method, second.method, first.after, first.note) == ("a", "b", None, "mean of seeds 0, 1")


def test_depth_errors_have_three_decimals_and_are_better_when_lower():
    rmse = replace(
        SCORE, metric="RMSE", before=0.51234, after=0.45678, delta=-0.05556, unit="m", better="lower"
    )
    gain = replace(rmse, ci_low=-0.06, ci_high=-0.05)
    table = layout([LINEAR, gain])
    row = dict(zip(table.header, table.rows[1], strict=True))
    assert (row["before"], row["after"], row["delta"]) == ("0.512", "0.457", "-0.056")
    assert (row["unit"], row["better"]) == ("m", "lower")
    assert table.caption.endswith("percentages where the unit says so, lower is better where it says so")
    assert [score.verdict for score in (gain, replace(gain, better="higher"), LINEAR)] == ["gain", "loss", ""]
    assert replace(gain, delta=None).verdict == ""
    assert changes([gain]) == []


def test_decimals():
    values = {0.005: "0.01", -0.001: "0.00", 12: "12.00", 1234.567: "1234.57"}
    assert {value: decimal(value) for value in values} == values
    assert [decimal(value, signed=True, digits=1) for value in (2.04, -2.04, 0.01, None)] == [
        "+2.0",
        "-2.0",
        "0.0",
        "",
    ]


def test_a_verdict_needs_an_interval_that_leaves_out_zero():
    assert [verdict(1.0, low, high) for low, high in ((0.1, 2), (-2, -0.1), (-1, 1), (0, 1))] == [
        "gain",
        "loss",
        "",
        "",
    ]
    assert verdict(1.0, 0.1, 2.0, rises=False) == "loss"
    assert verdict(1.0, math.nan, math.nan) == verdict(None, 0.1, 2.0) == verdict(1.0, None, 2.0) == ""


def test_units_survive_a_file(tmp_path):
    rows = [replace(LINEAR, metric="AbsRel", before=0.123, after=0.1, delta=-0.023, unit="", better="lower")]
    write_results(tmp_path / "r.csv", rows)
    assert read_results(tmp_path / "r.csv")[0].unit == ""
    assert read_results(tmp_path / "r.csv")[0].before == 0.123


def test_the_caption_has_the_rules_that_all_rows_keep_to():
    one, other = (
        replace(SCORE, rules="aspect keep; 1 x seeded"),
        replace(LINEAR, rules="aspect keep; 5 x seeded"),
    )
    assert "rules aspect keep," in layout([one, other]).caption
    assert "rules aspect keep; 1 x seeded," in layout([one, replace(other, rules=one.rules)]).caption
    assert "rules" not in layout([SCORE, LINEAR]).caption
