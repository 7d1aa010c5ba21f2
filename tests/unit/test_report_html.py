from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings

from tests.unit import browser
from tests.unit.report_examples import EXAMPLES, audited, converted, deep, empty, equal, hostile, not_finite
from tests.unit.report_laws import reports
from translator.report import charts
from translator.report.html import to_html
from translator.verdict import Report

VOID = {"meta", "link", "input", "br", "img"}


class Page(HTMLParser):
    """Reads a page: its elements by id, its text, the rows of the table of layers; and whether tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: dict[str, str] = {}
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self._capture: list[tuple[int, str]] = []
        self._layers = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.elements.append((tag, found))
        if tag not in VOID:
            self.open.append(tag)
        if (name := found.get("id")) is not None:
            assert name not in self.ids, f"id {name} stands twice"
            self.ids[name] = ""
            self._capture.append((len(self.open), name))
        if tag == "tr" and "data-tags" in found:
            self._layers = "hidden" not in found
            self.rows += [[]] if self._layers else []
        elif self._layers and tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._capture = [(depth, name) for depth, name in self._capture if depth <= len(self.open)]
        if self._layers and tag == "tr":
            self.rows[-1] = [cell.strip() for cell in self.rows[-1]]
            self._layers = False

    def handle_data(self, data: str) -> None:
        for _, name in self._capture:
            self.ids[name] += data
        if self._layers and self.rows[-1]:
            self.rows[-1][-1] = (self.rows[-1][-1] + data).lstrip()


def page_of(report: Report, folder: Path, *, script: str = "") -> Path:
    """The page in a file; with a script of the test's, for which the page's security policy is taken out."""
    text = to_html(report)
    if script:
        text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
        text = text.replace("</body>", f"<script>{script}</script></body>")
    path = folder / "report.html"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_page_is_well_formed_and_needs_nothing_else(name: str) -> None:
    text = to_html(EXAMPLES[name]())
    page = Page(text)
    assert page.open == []
    for tag, attributes in page.elements:
        assert tag not in ("iframe", "object", "embed", "img")
        assert not any(attribute.startswith("on") for attribute in attributes)
        for attribute in ("src", "href", "xlink:href"):
            target = attributes.get(attribute)
            assert target is None or target.startswith(("#", "data:,"))
    assert not re.search(r"url\((?!#)|@import|fetch\(|XMLHttpRequest|WebSocket", text)


def test_nothing_of_a_hostile_name_becomes_markup() -> None:
    text = to_html(hostile())
    assert text.count("<script") == 1
    assert "<img" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_the_figures_stand_in_the_page_without_any_script() -> None:
    page = Page(to_html(audited()))
    assert page.ids["torch-total"] == "195,738"
    assert page.ids["keras-total"] == "197,418"
    assert page.ids["unexplained"] == "0"
    assert page.ids["verdict"] == "DIFFERENT"
    assert page.ids["sentence"] == "first at bn ↔ batch_normalization (relative 4.9e-04)"
    assert len(page.rows) == 45
    assert page.rows[1][1:9] == [
        "1", "bn epsilon 1e-05 | 0.001", "BatchNorm2d", "32", "batch_normalization", "BatchNormalization", "64",
        "(N, 32, 32, 16)",
    ]  # fmt: skip


def test_each_difference_stands_with_its_fix_under_what_it_changes() -> None:
    text = to_html(audited())
    function, training, nothing = re.split(r'<h3 class="\w+">', text)[1:]
    assert function.count('<li class="card inference">') == 4
    assert "<code>BatchNormalization(epsilon=1e-5)</code>" in function
    assert training.count('<li class="card training">') == 2
    assert nothing.count('<li class="card nothing">') == 1


def test_the_page_has_what_readers_of_any_kind_need() -> None:
    text = to_html(audited())
    page = Page(text)
    names = [tag for tag, _ in page.elements]
    assert [attributes.get("lang") for tag, attributes in page.elements if tag == "html"] == ["en"]
    assert names.count("h1") == names.count("main") == names.count("nav") == names.count("header") == 1
    assert 'name="viewport"' in text
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert all(a.get("aria-label") for tag, a in page.elements if tag == "svg")
    assert all(a.get("scope") for tag, a in page.elements if tag == "th")
    assert 'class="skip" href="#layers"' in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(scheme: str) -> None:
    style = re.findall(r"<style>(.*?)</style>", to_html(equal()), re.DOTALL)[0]
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[0 if scheme == "light" else 1]))

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    def contrast(one: str, other: str) -> float:
        dark, light = sorted((luminance(colours[one]), luminance(colours[other])))
        return (light + 0.05) / (dark + 0.05)

    for ink in ("ink", "muted", "good", "warn", "bad", "torch", "keras", "f32", "f64"):
        for paper in ("paper", "card", "wash"):
            assert contrast(ink, paper) >= 4.5, (ink, paper)
    for tone in ("good", "warn", "bad"):
        for ink in (tone, "muted", "ink"):
            assert contrast(ink, f"{tone}-wash") >= 4.5, (ink, tone)
    for line in ("f32", "f64", "torch", "keras", "gap"):
        assert contrast(line, "paper") >= 3


def test_the_waterfall_closes() -> None:
    steps = charts.steps(audited().balance)
    assert [step.amount for step in steps] == ["195,738", "+560", "+1,120", "197,418"]
    assert [(step.start, step.stop) for step in steps[1:-1]] == [(195_738, 196_298), (196_298, 197_418)]
    assert [step.amount for step in charts.steps(not_finite().balance)] == ["54", "−10", "+8", "52"]


def test_a_pair_without_gaps_needs_no_waterfall_and_one_without_errors_no_chart() -> None:
    assert "<svg" in to_html(equal())
    assert "Waterfall" not in to_html(equal())
    assert "<svg" not in to_html(empty())


def test_zero_and_nan_have_a_place_on_the_log_axis() -> None:
    scale = charts.Scale.of([0.0, 1e-12, 1e-3, float("nan"), float("inf")])
    assert (scale.low, scale.high) == (-12, -3)
    assert scale.at(0.0) < -12 < -3 < scale.at(float("nan")) == scale.at(float("inf"))
    assert [label for _, label in scale.ticks(4)] == ["0", "1e-12", "1e-09", "1e-06", "1e-03", "NaN"]


def test_a_page_of_1200_layers_stays_small() -> None:
    assert len(to_html(deep(1_200))) < 2_000_000


@given(report=reports)
@settings(max_examples=15, deadline=None)
def test_any_report_makes_a_well_formed_page(report: Report) -> None:
    assert Page(to_html(report)).open == []


def test_a_browser_reads_the_figures_off_the_page(tmp_path: Path) -> None:
    page = Page(browser.dom(page_of(audited(), tmp_path), tmp_path / "profile"))
    assert (page.ids["torch-total"], page.ids["keras-total"], page.ids["unexplained"]) == ("195,738", "197,418", "0")
    assert page.ids["shown"] == "45 of 45 layers"
    rows = {row[2].split()[0]: row for row in page.rows}
    assert rows["bn"][-4:] == ["4.9e-04", "4.9e-04", "5.3e-04", "5.3e-04"]
    assert rows["fc"][4] == rows["fc"][7] == "650"


EXERCISE = """
const out = [];
const get = (selector) => document.querySelector(selector);
const all = (selector) => [...document.querySelectorAll(selector)];
const tell = (id, textContent) =>
  document.body.append(Object.assign(document.createElement("pre"), { id, textContent }));
const note = (what) => {
  const first = all("table.layers tbody tr").find((row) => !row.hidden);
  out.push(`${what}: ${get("#shown").textContent}, first ${first ? first.cells[2].firstChild.textContent : "none"}`);
};
const press = (name) => get(`[data-filter="${name}"]`).click();
const type = (text) => { get("#search").value = text; get("#search").dispatchEvent(new Event("input")); };
note("start"); press("wrong"); note("wrong"); type("conv"); note("wrong conv"); press("");
type("LAYER3 batchnorm"); note("words");
type("nothing like it"); note("none"); out.push("message " + !get(".none").hidden); type("");
const heads = all("table.layers thead tr:nth-child(2) th");
const float64 = heads.at(-3);
float64.firstChild.click(); note("by float64"); out.push(float64.getAttribute("aria-sort"));
float64.firstChild.click(); note("again"); heads[0].firstChild.click(); note("by #");
const figure = get("figure.pointed");
get('[data-series="chain-f64"]').click(); out.push(figure.className);
const box = figure.querySelector("svg").getBoundingClientRect();
const at = { clientX: box.left + 5, clientY: box.top + 50, bubbles: true };
figure.dispatchEvent(new PointerEvent("pointermove", at)); out.push("tip " + get(".tip").textContent);
figure.dispatchEvent(new MouseEvent("click", at)); out.push("here " + get(".here").id);
tell("out", out.join("\\n"));
"""


def test_search_filter_sort_and_chart_work_in_a_browser(tmp_path: Path) -> None:
    page = Page(
        browser.dom(page_of(audited(), tmp_path, script=EXERCISE), tmp_path / "profile", "--window-size=1280,900")
    )
    assert page.ids["out"].splitlines() == [
        "start: 45 of 45 layers, first conv",
        "wrong: 20 of 45 layers, first bn",
        "wrong conv: 4 of 45 layers, first layer2.0.conv1",
        "words: 5 of 45 layers, first layer3.0.bn1",
        "none: 0 of 45 layers, first none",
        "message true",
        "by float64: 45 of 45 layers, first layer2.0.conv1",
        "descending",
        "again: 45 of 45 layers, first relu",
        "by #: 45 of 45 layers, first conv",
        "pointed off-chain-f64",
        "tip convconv2dfloat32float64alone1.2e-072.3e-16in the model1.1e-072.1e-16",
        "here layer-0",
    ]


def test_a_page_of_1200_layers_filters_in_a_blink(tmp_path: Path) -> None:
    script = """
const start = performance.now();
const box = document.getElementById("search"); box.value = "conv2d3"; box.dispatchEvent(new Event("input"));
document.body.getBoundingClientRect();
const took = String(performance.now() - start);
document.body.append(Object.assign(document.createElement("pre"), { id: "took", textContent: took }));
"""
    page = Page(browser.dom(page_of(deep(), tmp_path, script=script), tmp_path / "profile"))
    assert page.ids["shown"] == "200 of 1,200 layers"
    assert float(page.ids["took"]) < 1_000


def test_a_browser_runs_nothing_that_a_layer_is_called(tmp_path: Path) -> None:
    text = to_html(hostile()).replace("</main>", "<script>document.title = 'owned'</script></main>")
    path = tmp_path / "report.html"
    path.write_text(text, encoding="utf-8")
    found = browser.dom(path, tmp_path / "profile")
    assert "<title>owned</title>" not in found
    assert 'id="shown" aria-live="polite">1 of 1 layers' in found


@pytest.mark.parametrize(
    ("name", "size", "flags"),
    [
        ("desktop", (1280, 1600), []),
        ("phone", (500, 1600), []),
        ("dark", (1280, 1600), ["--blink-settings=preferredColorScheme=0"]),
    ],
)
def test_a_browser_takes_a_picture_of_the_page(
    name: str, size: tuple[int, int], flags: list[str], tmp_path: Path
) -> None:
    from PIL import Image

    target = tmp_path / f"{name}.png"
    browser.screenshot(page_of(audited(), tmp_path), tmp_path / "profile", target, size, *flags)
    with Image.open(target) as picture:
        assert picture.size == size
        pixels = picture.convert("RGB")
        corner = pixels.getpixel((2, size[1] - 2))
        drawn = pixels.getcolors(1 << 24)
    assert isinstance(corner, tuple)
    assert drawn is not None
    assert (sum(corner) > 600) == (name != "dark")
    assert len(drawn) > 100


def test_the_page_prints_with_a_heading_on_each_sheet(tmp_path: Path) -> None:
    target = tmp_path / "report.pdf"
    browser.run(
        page_of(converted(), tmp_path), tmp_path / "profile", "--no-pdf-header-footer", f"--print-to-pdf={target}"
    )
    assert target.read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("width", [360, 768])
def test_the_page_does_not_scroll_sideways_on_a_phone(width: int, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(to_html(hostile() if width == 360 else audited()), encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(
        f"""<iframe id=f src=report.html style="width:{width}px;height:900px;border:0"></iframe><pre id=w></pre><script>
const f = document.getElementById("f");
f.onload = () => {{ document.getElementById("w").textContent = f.contentDocument.documentElement.scrollWidth; }};
</script>""",
        encoding="utf-8",
    )
    found = browser.dom(frame, tmp_path / "profile", "--allow-file-access-from-files")
    widest = re.search(r'<pre id="w">(\d+)</pre>', found)
    assert widest is not None
    assert int(widest.group(1)) <= width
