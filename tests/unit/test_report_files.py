from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.unit.report_examples import audited, converted
from translator.errors import InputError
from translator.report import FORMS, form_of, formatted, write_report
from translator.report.stored import read_report


def test_the_suffix_chooses_the_form(tmp_path: Path) -> None:
    for suffix in FORMS:
        write_report(audited(), tmp_path / f"report{suffix}")
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["verdict"] == "different"
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert (tmp_path / "report.md").read_text(encoding="utf-8").startswith("## ❌ DIFFERENT")
    assert ET.parse(tmp_path / "report.xml").getroot().tag == "testsuites"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "report.json", "report.md", "report.xml"]


def test_capital_suffixes_count_too(tmp_path: Path) -> None:
    assert form_of("REPORT.JSON") == ".json"
    write_report(converted(), tmp_path / "REPORT.JSON")
    assert read_report(tmp_path / "REPORT.JSON") == converted()


@pytest.mark.parametrize("name", ["report.txt", "report", ".json", "report.json.gz"])
def test_other_suffixes_are_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no report has the suffix .*\n.*end the name in \.json, \.html, \.md"):
        write_report(audited(), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        write_report(audited(), tmp_path / "nowhere" / "report.json")


def test_a_failure_while_writing_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    write_report(converted(), path)

    def half(self: Path, text: str, **_: object) -> int:
        self.write_bytes(text.encode()[:100])
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(InputError, match="no space is left"):
        write_report(audited(), path)
    assert read_report(path) == converted()
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize("form", FORMS)
def test_the_same_report_gives_the_same_file(form: str) -> None:
    assert formatted(audited(), form) == formatted(audited(), form)


def test_reports_need_neither_framework_nor_one_another(tmp_path: Path) -> None:
    code = """
import sys
from translator.report import write_report
assert not {"rich", "jinja2", "matplotlib"} & sys.modules.keys()
from tests.unit.report_examples import audited
write_report(audited(), sys.argv[1] + "/a.json")
write_report(audited(), sys.argv[1] + "/a.md")
write_report(audited(), sys.argv[1] + "/a.xml")
assert not {"jinja2", "matplotlib"} & sys.modules.keys()
write_report(audited(), sys.argv[1] + "/a.html")
assert not {"torch", "tensorflow", "keras"} & sys.modules.keys()
"""
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=root)
