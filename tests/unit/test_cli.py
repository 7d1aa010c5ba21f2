"""The command line: what it offers, how fast it says so, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import translator.commands.options as options
from translator.cli import cli
from translator.errors import InputError, InternalError, UnsupportedError, Where
from translator.verdict import Balance, Check, Report

COMMANDS = ("audit", "convert", "ops", "parity", "source", "summary", "transfer")


def translator(*arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "translator", *arguments], capture_output=True, text=True, timeout=600, **settings
    )


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(cli, list(arguments))


def test_help_lists_every_command_in_under_half_a_second() -> None:
    seconds = []
    for _ in range(5):
        before = os.times()
        done = translator("--help")
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
        assert done.returncode == 0
        assert all(f"  {name}  " in done.stdout for name in COMMANDS)
    assert min(seconds) < 0.5, "processor time: the wall clock belongs to whatever else runs here"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_examples(command: str) -> None:
    done = invoke(command, "--help")
    assert done.exit_code == 0
    assert "Examples:\n    translator " in done.stdout


def test_every_example_names_a_command_and_options_that_exist() -> None:
    for name, command in cli.commands.items():
        lines = [line.split() for line in (command.epilog or "").splitlines() if line.startswith("  translator")]
        assert lines, name
        for _, shown, *arguments in lines:
            assert shown == name
            with click.Context(command, info_name=name):
                command.make_context(name, arguments)


def test_the_version_is_told() -> None:
    assert invoke("--version").stdout == "translator, version 0.1.0\n"


@pytest.mark.parametrize(
    "arguments",
    [[], ["convert"], ["convert", "x"], ["nonsense"], ["convert", "a:b", "-o", "x.keras", "--engine", "magic"]],
)
def test_a_wrong_command_line_ends_with_2(arguments: list[str]) -> None:
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert "Usage: " in done.stderr


def failing(error: BaseException) -> click.Command:
    @click.command()
    @options.runs
    def fail(*, quiet: bool) -> int:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "status", "lines"),
    [
        (
            InputError("x.pt: no such file", fix="give another"),
            2,
            ["error: x.pt: no such file", "  fix:     give another"],
        ),
        (
            UnsupportedError(
                "Det: not supported", where=Where(module="a.b", source="n.py, line 3, in forward", node="n1")
            ),
            2,
            ["error: Det: not supported", "  module:  a.b", "  source:  n.py, line 3, in forward", "  node:    n1"],
        ),
        (KeyboardInterrupt(), 130, ["interrupted: no output was written"]),
    ],
)
def test_an_error_is_printed_as_it_is(error: BaseException, status: int, lines: list[str]) -> None:
    done = CliRunner().invoke(failing(error))
    assert (done.exit_code, done.stdout, done.stderr.splitlines()) == (status, "", lines)


@pytest.mark.parametrize("error", [ZeroDivisionError("division by zero"), InternalError("a state that can't be")])
def test_a_bug_of_ours_says_so_and_how_to_report_it(error: Exception) -> None:
    done = CliRunner().invoke(failing(error))
    assert done.exit_code == 3
    first, second, third = done.stderr.splitlines()
    assert str(error) in first
    assert second == "  This is a bug of translator, not of your model."
    assert "--debug" in third
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback() -> None:
    for error, status in ((ZeroDivisionError("x"), 3), (InputError("y"), 2)):
        done = CliRunner().invoke(failing(error), ["--debug"])
        assert done.exit_code == status
        assert done.stderr.startswith("Traceback (most recent call last)")
        assert "in fail" in done.stderr


def report(*, ok: bool) -> Report:
    balance = Balance(
        torch_total=1, torch_trainable=1, torch_buffers=0, keras_total=1, keras_trainable=1, keras_non_trainable=0
    )
    return Report(
        title="t", torch_name="a", keras_name="b", balance=balance, checks=(Check(name="c", ok=ok, subjects=1),)
    )


@pytest.fixture
def writes_source(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stands in for the source writer: writes its file, and proves what the test says."""
    import types

    seen: dict[str, Any] = {"ok": True}

    def write_source_file(request: Any, *, on_progress: Any) -> Report:
        on_progress("writing")
        seen["request"] = request
        request.output.write_text("model = 1\n")
        return report(ok=seen["ok"])

    module = types.ModuleType("translator.source_writer")
    module.write_source_file = write_source_file  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "translator.source_writer", module)
    return seen


def test_options_reach_the_work(writes_source: dict[str, Any], tmp_path: Path) -> None:
    done = invoke(
        "source", "f.py:g?a=1", "-o", str(tmp_path / "m.py"), "--style", "subclass", "--weights", "w.pt", "--seed", "7",
        "--input-shape", "1,3,8,8", "--input-shape", "(1, 4)", "--input-dtype", "float32", "--input-dtype", "int64",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    request = writes_source["request"]
    assert request.style == "subclass"
    assert request.source.spec == "f.py:g?a=1"
    assert request.source.weights == Path("w.pt")
    assert request.source.input_shapes == ((1, 3, 8, 8), (1, 4))
    assert request.source.input_dtypes == ("float32", "int64")
    assert request.source.seed == 7
    assert (tmp_path / "m.py").read_text() == "model = 1\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.py"]


@pytest.mark.parametrize(("extra", "kept"), [([], False), (["--keep-failed"], True)])
def test_an_output_that_fails_its_proof_is_kept_on_request_only(
    writes_source: dict[str, Any], tmp_path: Path, extra: list[str], *, kept: bool
) -> None:
    writes_source["ok"] = False
    output, page = tmp_path / "m.py", tmp_path / "r.json"
    done = invoke("source", "f.py:g", "-o", str(output), "--report", str(page), *extra)
    assert done.exit_code == 1
    assert output.exists() is kept
    assert page.exists(), "the report of a failed proof is written in any case"


def test_quiet_prints_nothing(writes_source: dict[str, Any], tmp_path: Path) -> None:
    done = invoke("source", "f.py:g", "-o", str(tmp_path / "m.py"), "-q")
    assert (done.exit_code, done.output) == (0, "")


def test_both_outputs_are_checked_before_the_work(writes_source: dict[str, Any], tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    page.write_text("old")
    done = invoke("source", "f.py:g", "-o", str(tmp_path / "m.py"), "--report", str(page))
    assert done.exit_code == 2
    assert "exists already" in done.stderr
    assert "request" not in writes_source
    assert invoke("source", "f.py:g", "-o", str(tmp_path / "m.py"), "--report", str(page), "--force").exit_code == 0
    assert "<html" in page.read_text()


def test_a_report_is_written_in_each_form_that_is_asked_for(writes_source: dict[str, Any], tmp_path: Path) -> None:
    pages = [tmp_path / f"r{suffix}" for suffix in (".json", ".html", ".md", ".xml")]
    named = [part for page in pages for part in ("--report", str(page))]
    assert invoke("source", "f.py:g", "-o", str(tmp_path / "m.py"), *named).exit_code == 0
    assert all(page.stat().st_size for page in pages)
    twice = invoke("source", "f.py:g", "-o", str(tmp_path / "n.py"), "--report", "r.md", "--report", "r.md")
    assert (twice.exit_code, "named twice" in twice.stderr) == (2, True)


def test_a_transfer_into_the_wrong_framework_is_refused() -> None:
    done = invoke("transfer", "net.py:Net", "port.keras", "-o", "out.pt")
    assert done.exit_code == 2, "Keras to PyTorch needs the PyTorch model as TO"
    assert "for Keras to PyTorch end the output in .safetensors" in done.stderr


def test_ops_are_listed_as_a_table_and_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    monkeypatch.setenv("COLUMNS", "80")

    rules = {rule["op"]: rule for rule in json.loads(invoke("ops", "--json").stdout)}
    assert rules["Conv"]["keras"]
    table = invoke("ops").stdout
    assert all(op in table for op in rules)


def test_a_summary_prints_to_a_pipe_and_nothing_else_is_on_the_screen() -> None:
    done = translator("summary", "models/cifar_resnet_keras.py:resnet")
    assert (done.returncode, done.stderr) == (0, "")
    assert "197,418 parameters: 196,298 trainable, 1,120 not" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("form", ["", "--json"])
def test_a_reader_that_leaves_changes_nothing(form: str) -> None:
    command = f"{sys.executable} -m translator ops {form} | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_summary_tells_the_framework_from_what_the_factory_returns() -> None:
    done = invoke("summary", "models.cifar_resnet:resnet", "--input-shape", "2,3,32,32", "--csv")
    assert done.exit_code == 0, done.stderr
    assert len(done.stdout.splitlines()) == 52


def test_control_c_ends_with_130_and_leaves_no_output(tmp_path: Path) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text("import time\ndef build():\n    open('begun', 'w').close()\n    time.sleep(60)\n")
    command = [sys.executable, "-m", "translator", "convert", "slow.py:build", "-o", "out.keras"]
    listening = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background would ignore it
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    signal.signal(signal.SIGINT, listening)
    deadline = time.monotonic() + 120
    while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr == "interrupted: no output was written\n"
    assert not list(tmp_path.glob("*.keras*"))
    assert not list(tmp_path.glob(".*.tmp*"))
