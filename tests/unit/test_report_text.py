from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from tests.unit.report_examples import EXAMPLES, audited, converted, deep, empty, equal, hostile, not_finite
from tests.unit.report_golden import must_equal_golden
from tests.unit.report_laws import reports
from translator.report import words
from translator.report.grid import Column, Fit, Grid, middle
from translator.report.text import fitting, render
from translator.verdict import Balance, Check, Report, Verdict


def shown(report: Report, width: int = 80, *, layers: bool = False, encoding: str = "utf-8", **console: object) -> str:
    target = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
    render(report, Console(file=target, width=width, **console), layers=layers)  # type: ignore[arg-type]
    target.flush()
    return target.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("name", ["converted", "audited"])
def test_report_is_the_golden_page(name: str, width: int) -> None:
    must_equal_golden(f"report_{name}_{width}.txt", shown(EXAMPLES[name](), width))


@pytest.mark.parametrize("name", ["not_finite", "empty", "equal", "hostile", "deep"])
def test_unusual_report_is_the_golden_page(name: str) -> None:
    must_equal_golden(f"report_{name}_80.txt", shown(EXAMPLES[name](), 80))


def test_every_layer_is_shown_on_request() -> None:
    text = shown(audited(), 160, layers=True)
    assert all(f" {row.torch} " in text for row in audited().layers)
    must_equal_golden("report_audited_layers_160.txt", text)


def test_without_request_only_the_first_wrong_layers_are_shown_and_it_says_so() -> None:
    text = shown(audited(), 120)
    assert "20 of 45 wrong; the first 5 here, all with --layers" in text
    assert " bn " in text
    assert "layer3.1.conv2" not in text


def test_sound_report_shows_the_layers_with_the_largest_errors() -> None:
    rows = sorted(converted().layers, key=words.severity)
    text = shown(converted(), 120)
    assert "45, each one sound; the worst 5 here" in text
    assert f" {rows[-1].torch} " in text
    assert f" {rows[0].torch} " not in text


@pytest.mark.parametrize("width", [60, 72, 80, 100, 120, 200])
@pytest.mark.parametrize("name", EXAMPLES)
def test_no_line_is_longer_than_the_terminal(name: str, width: int) -> None:
    for layers in (False, True):
        for line in shown(EXAMPLES[name](), width, layers=layers).splitlines():
            assert cell_len(line) <= width, line


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_numbers_stay_whole_at_any_width(width: int) -> None:
    report = audited()
    text = shown(report, width)
    balance = report.balance
    totals = [balance.torch_total, balance.keras_total, balance.keras_trainable, *(g.count for g in balance.gaps)]
    for total in totals:
        assert re.search(rf"(?<![\d,]){total:,}(?![\d,])", text)
    assert "4.9e-04" in text


def test_the_balance_closes_on_the_screen() -> None:
    sheet = shown(audited(), 120).split("Changes the function")[0]
    amounts = [int(n.replace(",", "")) for n in re.findall(r"^  [P+=].*?  +([\d,]+)(?:  |$)", sheet, re.MULTILINE)]
    assert amounts[:-1] == [195_738, 560, 1_120]
    assert sum(amounts[:-1]) == amounts[-1] == 197_418
    assert "unexplained 0 ✔" in sheet


def test_an_unexplained_parameter_stands_in_the_balance() -> None:
    balance = replace(audited().balance, keras_total=197_419)
    text = shown(replace(audited(), balance=balance))
    assert "unexplained +1 ✘" in text


def test_the_verdict_is_the_last_line_with_the_first_wrong_layer_and_how_big() -> None:
    assert shown(audited(), 120).rstrip().splitlines()[-1] == (
        "DIFFERENT: first at bn ↔ batch_normalization (relative 4.9e-04)"
    )
    assert shown(converted(), 120).rstrip().splitlines()[-1] == (
        "EXPLAINED: the same function in inference; 1 parameter gap and 1 difference named, 0 unexplained"
    )
    assert shown(equal()).rstrip().splitlines()[-1] == "EQUAL: the same function with the same parameters"
    assert shown(empty()).rstrip().splitlines()[-1] == "DIFFERENT: checks: nothing was checked"


def test_differences_stand_under_what_they_change() -> None:
    text = shown(audited(), 200)
    headings = ["Changes the function", "Changes training only", "Nothing to do"]
    assert [text.index(heading) for heading in headings] == sorted(text.index(heading) for heading in headings)
    function, training, nothing = re.split("|".join(headings), text)[1:]
    assert all(kind in function for kind in ("epsilon", "padding", "head-activation", "conv-bias"))
    assert all(kind in training for kind in ("momentum", "initialiser"))
    assert "num-batches-tracked" in nothing
    assert "15 BatchNorm2d" in function
    assert "15 Conv2d, 1 Linear" in training
    assert "→ BatchNormalization(epsilon=1e-5)" in function


def test_a_pipe_gets_no_colour_and_a_terminal_does() -> None:
    assert "\x1b" not in shown(audited())
    assert "\x1b[" in shown(audited(), force_terminal=True, color_system="standard", no_color=False)
    plain = Text.from_ansi(shown(audited(), force_terminal=True, color_system="truecolor", no_color=False)).plain
    assert plain.rstrip() == shown(audited()).rstrip()


def test_no_color_leaves_the_same_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    assert shown(audited(), force_terminal=True).replace("\x1b[1m", "").count("\x1b[3") == 0
    assert shown(audited()) == shown(audited(), no_color=True)


def test_a_terminal_without_unicode_gets_ascii() -> None:
    text = shown(audited(), 80, encoding="ascii")
    must_equal_golden("report_audited_80_ascii.txt", text)
    assert "unexplained 0 ok" in text


def test_names_cannot_steer_the_terminal() -> None:
    text = shown(hostile(), 200)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\\x1b[31m\\u202e[bold]" in text


def test_a_check_that_looked_at_nothing_is_shown_as_failed() -> None:
    report = replace(equal(), checks=(Check(name="structure", ok=True, subjects=0),))
    assert "✘  structure  0  looked at nothing, which proves nothing" in shown(report)


def test_numbers_without_a_limit_are_not_ticked() -> None:
    assert "·  float32  max abs 1.84" in shown(audited())
    assert "✘  float32  max abs NaN" in shown(not_finite())


def test_two_runs_differ_in_the_timing_alone() -> None:
    first, second = shown(deep()), shown(replace(deep(), timing={"capture": 1.0, "prove": 2.0}))
    different = [a for a, b in zip(first.splitlines(), second.splitlines(), strict=True) if a != b]
    assert [line.split()[0] for line in different] == ["Time"]


@given(report=reports)
@settings(max_examples=60, deadline=None)
def test_any_report_can_be_shown(report: Report) -> None:
    assert report.verdict.upper() in shown(report, 100, layers=True)


@given(report=reports)
@settings(max_examples=200, deadline=None)
def test_a_report_is_different_exactly_where_it_has_a_failure_to_name(report: Report) -> None:
    assert bool(words.failures(report)) == (report.verdict is Verdict.DIFFERENT)


def test_a_name_loses_its_middle_not_its_number() -> None:
    assert middle("batch_normalization_14", 12) == "batch_…on_14"
    assert cell_len(middle("层" * 20, 9)) <= 9


def test_a_long_fix_moves_below_every_row() -> None:
    grid = Grid(columns=(Column(), Column(fit=Fit.ALL_BELOW)), width=20)
    rows = [[Text("a"), Text("short")], [Text("b"), Text("a long one, really")]]
    lines = [[line.plain for line in block] for block in grid.blocks(rows, Console(width=20))]
    assert lines == [["  a", "     short"], ["  b", "     a long one,", "     really"]]


@pytest.mark.parametrize(
    ("value", "want"),
    [(None, "–"), (0.0, "0"), (4.94e-4, "4.9e-04"), (0.371, "0.371"), (1.0, "1"), (1e9, "1.0e+09"),
     (float("nan"), "NaN"), (float("inf"), "inf"), (9.8e-16, "9.8e-16")],
)  # fmt: skip
def test_errors_are_short_and_never_hide_nan(value: float | None, want: str) -> None:
    assert words.error(value) == want


@pytest.mark.parametrize(
    ("number", "want"), [(0, "0 B"), (812, "812 B"), (1_034_567, "1.03 MB"), (999_900, "1 MB"), (97_800_000, "97.8 MB")]
)
def test_file_sizes_are_decimal(number: int, want: str) -> None:
    assert words.size(number) == want


def test_buffers_are_told_apart_where_they_are_known() -> None:
    balance = Balance(torch_total=5, torch_trainable=3, torch_buffers=4, keras_total=5, keras_trainable=5,
                      keras_non_trainable=0)  # fmt: skip
    assert words.torch_totals(balance) == ["5 parameters", "3 trainable", "4 buffer elements"]
    assert words.torch_totals(replace(balance, torch_statistics=4)) == [
        "5 parameters",
        "3 trainable",
        "4 BN statistics",
    ]


def test_of_many_findings_those_that_fit_are_shown() -> None:
    assert fitting("one; two; and 17 more", 30) == "one; two; and 17 more"
    assert fitting("one; two; and 17 more", 14) == "one; two; …"
    assert fitting("one; two; and 17 more", 4) == "one; …"
    assert fitting("a sentence that wraps", 9) == "a sentence that wraps"
