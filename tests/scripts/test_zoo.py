"""The zoo runner: any list, any path, limits, and a run that goes on where it was stopped."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from scripts import zoo

CIFAR = "models/cifar_resnet.py:resnet"


def row(spec: str, status: str = "proven", **more: Any) -> dict[str, Any]:
    return {"spec": spec, "status": status, "seconds": 1.0, "reason": "", "message": "", **more}


def test_a_model_is_proven_and_a_missing_one_is_refused_with_its_reason(tmp_path: Path) -> None:
    output = tmp_path / "zoo.jsonl"
    assert zoo.main([CIFAR, "no_such_package:model", "--output", str(output), "--workers", "2", "--load", "torch"]) == 0
    rows = {r["spec"]: r for r in map(json.loads, output.read_text().splitlines())}
    assert rows[CIFAR]["status"] == "proven"
    assert rows[CIFAR]["unexplained"] == rows[CIFAR]["transposes"] == 0
    assert rows[CIFAR]["parameters"] == 195_738
    assert rows[CIFAR]["backends"] == ["torch"]
    assert rows["no_such_package:model"]["status"] == "refused"
    assert "no_such_package" in rows["no_such_package:model"]["message"]


def test_what_is_in_the_output_is_not_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    zoo.append("memory://again/zoo.jsonl", row("a:b"))
    asked: list[str] = []
    monkeypatch.setattr(zoo, "run", lambda specs, options: asked.extend(specs) or iter([row("c:d")]))
    assert zoo.main(["a:b", "c:d", "--output", "memory://again/zoo.jsonl"]) == 0
    assert asked == ["c:d"]
    assert set(zoo.earlier("memory://again/zoo.jsonl")) == {"a:b", "c:d"}


def test_what_an_earlier_run_did_not_load_is_no_result_of_one_that_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    for one in (row("a:b"), row("c:d", backends=["jax", "torch"]), row("e:f", "refused", reason="op")):
        zoo.append("memory://loaded/zoo.jsonl", one)
    asked: list[str] = []
    monkeypatch.setattr(zoo, "run", lambda specs, options: asked.extend(specs) or iter(()))
    assert zoo.main(["a:b", "c:d", "e:f", "--load", "jax", "--output", "memory://loaded/zoo.jsonl"]) == 0
    assert asked == ["a:b"]


def test_a_wrong_model_fails_the_run() -> None:
    zoo.append("memory://wrong/zoo.jsonl", row("a:b", "wrong", reason="conv1"))
    assert zoo.main(["a:b", "--output", "memory://wrong/zoo.jsonl"]) == 1


def test_a_model_that_uses_too_much_memory_is_ended() -> None:
    result = zoo.watched(CIFAR, memory=0.05, seconds=60, how=zoo.How())
    assert (result["status"], result["reason"]) == ("limit", "more than 0.05 GB")


def test_a_loading_process_that_was_ended_is_a_crash_not_a_wrong_model() -> None:
    from translator.verify.artifact import ArtifactWorker

    others = psutil.Process().children()
    with ArtifactWorker("tensorflow") as worker:
        (loader,) = (process for process in psutil.Process().children() if process not in others)
        loader.kill()
        result = zoo.work(CIFAR, zoo.How(load=("tensorflow",), proof=False), [worker])
    assert (result["status"], result["reason"]) == ("crash", "tensorflow: exit -9")
    assert "ended with status -9" in result["message"]


def test_an_ended_model_leaves_no_process_behind() -> None:
    command = ["sh", "-c", "sleep 60 & wait"]
    with subprocess.Popen(command) as process:
        parent = psutil.Process(process.pid)
        while not (children := parent.children()):
            time.sleep(0.01)
        zoo._end(parent)
        gone, alive = psutil.wait_procs(children, timeout=10)
    assert len(gone) == 1
    assert not alive
    zoo._end(parent)  # one that is gone already is no error


def test_a_list_is_read_from_any_path_without_its_comments() -> None:
    zoo.write("memory://lists/models.txt", "a:b  # one\n\n# none\nc:d\n")
    assert zoo.listed("memory://lists/models.txt") == ["a:b", "c:d"]


def test_the_table_shows_refusals_with_their_reason() -> None:
    text = zoo.markdown([row("b:x", "refused", reason="op", message="Foo isn't supported\n  fix: no"), row("a:y")])
    assert text.splitlines()[2].startswith("| `a:y` |")
    assert "op: Foo isn't supported |" in text.splitlines()[3]


@pytest.mark.slow
def test_a_local_dask_cluster_does_the_same() -> None:
    options = zoo.parsed(["--memory", "12", "--seconds", "600", "--workers", "2", "--backend", "dask"])
    rows = list(zoo.run([CIFAR, "no_such_package:model"], options))
    assert {r["status"] for r in rows} == {"proven", "refused"}
