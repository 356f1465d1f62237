from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from paka.scores import Score, format_rows
from paka.terminal import banner, closing, forecast, print_table, standard_output

SCORES = [
    Score(
        "scenes",
        name,
        "demo",
        "mIoU",
        "test",
        0,
        40.0,
        40.0 + gain,
        gain,
        gain - 1,
        gain + 1,
        10240,
        30,
        "",
        "paka",
    )
    for name, gain in (("in_context", 4.911), ("linear", 0.2), ("overclustering", -3.0))
]


def pipe(width: int = 100) -> Console:
    return Console(file=io.StringIO(), width=width, soft_wrap=True, highlight=False)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_banner_is_aligned():
    console = pipe()
    banner("paka", {"encoder": "tiny [2.1 M]", "data": "scenes"}, console=console)
    assert written(console) == "paka\n  encoder  tiny [2.1 M]\n  data     scenes\n"


def test_banner_of_twelve_lines_and_not_more():
    console = pipe()
    banner("paka", {str(i): "x" for i in range(11)}, console=console)
    assert written(console).count("\n") == 12
    with pytest.raises(ValueError, match="at most 12 lines, not 13"):
        banner("paka", {str(i): "x" for i in range(12)}, console=console)
    with pytest.raises(ValueError, match="at most 12 lines, not 13"):
        banner("paka", {"a": "\n" * 11}, console=console)


def test_banner_goes_to_standard_output_as_plain_text(capsys):
    banner("paka", {"data": "scenes"})
    assert capsys.readouterr().out == "paka\n  data  scenes\n"


def test_output_to_a_pipe_is_wide(capsys):
    assert standard_output().width >= 100


def test_table_shares_the_numbers_of_the_file():
    console = pipe()
    print_table(SCORES, console)
    lines = written(console).splitlines()
    for line, row in zip(lines[2:], format_rows(SCORES, signed=True)[1], strict=False):
        cells = line.split()
        assert cells[:4] == [row[1], *row[6:9]]
        assert cells[4:6] == [f"[{row[9]},", f"{row[10]}]"]
    assert lines[-1].startswith("benchmark scenes, profile demo")


@pytest.mark.parametrize("width", [20, 100])
def test_table_never_wraps_and_has_no_escape_codes(width):
    console = pipe(width)
    scores = [*SCORES, replace(SCORES[0], note="a long note " * 20, method="x")]
    print_table(scores, console)
    text = written(console)
    assert "\x1b" not in text
    assert len(text.splitlines()) == 2 + len(scores) + 1


def test_certain_gains_are_green_and_losses_red_on_a_terminal():
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", soft_wrap=True)
    print_table(SCORES, console)
    text = written(console)
    assert "\x1b[1;32m+4.91" in text
    assert "\x1b[1;31m-3.00" in text
    assert "\x1b[1;32m+0.20" not in text


def test_closing_names_results_files_and_the_next_command():
    console = pipe()
    closing(SCORES, {"report": "runs/report.md"}, "make demo SEED=1", console=console)
    text = written(console)
    assert text.index("Results") < text.index("in_context") < text.index("runs/report.md")
    assert text.endswith("Next\n  make demo SEED=1\n")


def test_closing_without_scores_has_no_table():
    console = pipe()
    closing([], {"report": "r"}, "x", console=console)
    assert "Results" not in written(console)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1 s"), (45.4, "45 s"), (59.6, "1 min"), (130, "2 min 10 s"), (594, "9 min 50 s"), (596, "10 min"),
        (3571, "1 h"), (3600 * 14 + 1000, "14 h 20 min"), (7200, "2 h"),
    ],
)  # fmt: skip
def test_forecast(seconds, text):
    assert forecast(seconds) == f"about {text}"


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_forecast_of_nonsense(seconds):
    with pytest.raises(ValueError, match="finite and at least 0 seconds"):
        forecast(seconds)


def test_a_table_of_scores_alone_shows_their_own_interval_and_no_empty_column():
    console = pipe()
    print_table([replace(SCORES[0], after=None, delta=None, ci_low=38.5, ci_high=41.5)], console)
    header, _, row, _ = written(console).splitlines()
    assert header.split() == ["protocol", "before", "95", "%", "interval", "memory", "k"]
    assert row.split() == ["in_context", "40.00", "[38.50,", "41.50]", "10240", "30"]


@pytest.mark.parametrize(
    ("set_", "coloured"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)],
)
def test_colours_follow_the_terminal_and_what_the_environment_asks(monkeypatch, capsys, set_, coloured):
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in set_.items():
        monkeypatch.setenv(name, value)
    print_table(SCORES, standard_output())
    text = capsys.readouterr().out
    assert ("\x1b[1;32m" in text) == coloured
