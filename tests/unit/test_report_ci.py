"""The two forms that CI shows: JUnit XML and Markdown."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings

from tests.unit.report_examples import EXAMPLES, audited, converted, deep, empty, equal, hostile
from tests.unit.report_golden import must_equal_golden
from tests.unit.report_laws import reports
from translator.report.junit import to_junit
from translator.report.markdown import code, table, text, to_markdown
from translator.verdict import Difference, Effect, Report, Verdict

CHILDREN = {
    "testsuites": {"testsuite"},
    "testsuite": {"properties", "testcase"},
    "properties": {"property"},
    "testcase": {"failure", "system-out"},
    "property": set(),
    "failure": set(),
    "system-out": set(),
}
ATTRIBUTES = {
    "testsuites": {"name", "tests", "failures", "errors", "skipped", "time"},
    "testsuite": {"name", "tests", "failures", "errors", "skipped"},
    "testcase": {"classname", "name", "time"},
    "property": {"name", "value"},
    "failure": {"type", "message"},
    "properties": set(),
    "system-out": set(),
}
GITHUB_LIMIT = 65_536


def cases(report: Report, suite: str = "") -> Iterator[ET.Element]:
    """The test cases of one suite, or of all."""
    for found in ET.fromstring(to_junit(report)):
        if suite in ("", found.get("name")):
            yield from found.iter("testcase")


def must_be_junit(xml: str) -> ET.Element:
    """The structure that Jenkins, GitLab and the GitHub actions read, with counts that are true."""
    root = ET.fromstring(xml)
    for element in root.iter():
        assert {child.tag for child in element} <= CHILDREN[element.tag]
        assert set(element.attrib) == ATTRIBUTES[element.tag]
    for element in [root, *root]:
        found = list(element.iter("testcase"))
        assert int(element.attrib["tests"]) == len(found) > 0
        assert int(element.attrib["failures"]) == sum(case.find("failure") is not None for case in found)
    for case in root.iter("testcase"):
        assert len(case) <= 1
        assert float(case.attrib["time"]) >= 0
    return root


@pytest.mark.parametrize("name", EXAMPLES)
def test_junit_has_the_structure_that_servers_read(name: str) -> None:
    must_be_junit(to_junit(EXAMPLES[name]()))


@given(report=reports)
@settings(max_examples=150, deadline=None)
def test_junit_is_red_exactly_where_the_verdict_is_different(report: Report) -> None:
    root = must_be_junit(to_junit(report))
    assert (int(root.attrib["failures"]) > 0) == (report.verdict is Verdict.DIFFERENT)


def test_each_check_and_each_layer_is_one_case() -> None:
    report = audited()
    assert [case.get("name") for case in cases(report, "checks")] == [check.name for check in report.checks]
    assert len(list(cases(report, "layers"))) == len(report.layers) == 45
    failed = [case for case in cases(report, "layers") if case.find("failure") is not None]
    assert len(failed) == 20
    assert failed[0].get("name") == "bn ↔ batch_normalization"
    failure = failed[0].find("failure")
    assert failure is not None
    assert failure.get("message") == "relative error 4.9e-04; epsilon 1e-05 | 0.001"


def test_a_module_called_twice_is_two_cases() -> None:
    names = [case.get("name") for case in cases(converted(), "layers")]
    assert len(names) == len(set(names))
    assert "layer1.0.relu ↔ layer1_0_relu (call 2)" in names


def test_a_difference_fails_only_where_it_changes_the_function() -> None:
    failed = {str(case.get("name")) for case in cases(audited(), "differences") if case.find("failure") is not None}
    kinds = {name.split(":")[0] for name in failed}
    assert kinds == {"epsilon", "padding", "head-activation", "conv-bias"}


def test_a_report_without_checks_is_red() -> None:
    failures = [case.find("failure") for case in cases(empty(), "checks")]
    assert [f.get("message") for f in failures if f is not None] == ["nothing was checked"]


def test_junit_is_the_golden_file() -> None:
    must_equal_golden("report_audited.xml", to_junit(audited()))


def test_junit_holds_no_character_that_xml_forbids() -> None:
    xml = to_junit(hostile())
    assert "\x1b" not in xml
    assert "\\x1b" in xml


@pytest.mark.parametrize("name", ["audited", "converted", "not_finite", "hostile", "empty"])
def test_markdown_is_the_golden_file(name: str) -> None:
    must_equal_golden(f"report_{name}.md", to_markdown(EXAMPLES[name]()))


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_row_of_a_markdown_table_has_the_cells_of_its_head(name: str) -> None:
    width = 0
    for line in to_markdown(EXAMPLES[name]()).splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        pipes = line.replace("\\|", "").count("|")
        assert width in (0, pipes), line
        width = pipes


@pytest.mark.parametrize("name", EXAMPLES)
def test_markdown_brings_no_html_of_the_model(name: str) -> None:
    outside = to_markdown(EXAMPLES[name]())
    for fence in ("``", "`"):
        parts = outside.split(fence)
        outside = "".join(parts[::2])
    for tag in ("<details>", "</details>", "<summary>", "</summary>"):
        outside = outside.replace(tag, "")
    assert "<" not in outside
    assert "@o" not in outside


def test_markdown_fits_into_a_comment_whatever_the_model() -> None:
    assert len(to_markdown(deep(5_000))) < GITHUB_LIMIT
    long = Difference(
        kind="k" * 999, layers=(), torch="t" * 999, keras="|" * 999, effect=Effect.INFERENCE, fix="f" * 999
    )
    markdown = to_markdown(replace(audited(), differences=(long,) * 500, notes=("n" * 999,) * 500))
    assert len(markdown) < GITHUB_LIMIT
    assert "… and 460 more" in markdown or "too long for a comment" in markdown


@given(report=reports)
@settings(max_examples=60, deadline=None)
def test_any_report_has_its_verdict_in_the_first_line_of_markdown(report: Report) -> None:
    assert report.verdict.upper() in to_markdown(report).splitlines()[0]


def test_markdown_of_a_sound_pair_says_so_in_one_line() -> None:
    assert to_markdown(equal()).startswith("## ✅ EQUAL: the same function with the same parameters\n")


@pytest.mark.parametrize(
    ("value", "want"),
    [("a", "`a`"), ("", "–"), ("a`b", "``a`b``"), ("`a", "`` `a ``"), ("a``b`", "``` a``b` ```"), ("a|b", "`a|b`")],
)
def test_code_spans_hold_backticks(value: str, want: str) -> None:
    assert code(value) == want


def test_sentences_are_free_of_markup() -> None:
    assert text("a*b_c <i> @me | #1 [x]") == "a\\*b\\_c &lt;i> @\N{ZERO WIDTH JOINER}me \\| \\#1 \\[x\\]"


def test_long_tables_are_cut_and_say_so() -> None:
    assert table(["n"], [[str(i)] for i in range(45)]).endswith("… and 5 more")
