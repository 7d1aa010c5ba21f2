"""Whole networks as source: short, proven against PyTorch, importable with Keras alone on every backend."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from translator.capture.source import LoadedSource, load_source
from translator.capture.trace import capture
from translator.cli import cli
from translator.emit.source.write_plan import checked_source
from translator.engines.native import plan_of, translate
from translator.engines.result import EngineResult
from translator.plan.calls import Plan
from translator.source_writer import write_and_prove
from translator.verdict import Report, Verdict
from translator.verify import written
from translator.verify.written import judge_source

pytestmark = pytest.mark.model

CIFAR = "models/cifar_resnet.py:resnet"
GOLDEN = Path(__file__).parents[1] / "golden"


@cache
def translated(spec: str) -> tuple[LoadedSource, EngineResult]:
    loaded = load_source(spec)
    return loaded, translate(loaded.module, loaded.example_inputs, name=loaded.name)


@cache
def proven(style: str) -> tuple[str, Report]:
    loaded, result = translated(CIFAR)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "resnet.py"
        report = write_and_prove(result, loaded, output, style=style)  # type: ignore[arg-type]
        return output.read_text(), report


def body(source: str) -> list[str]:
    """The lines after the header."""
    return source.split('"""', 2)[2].strip().splitlines()


@pytest.mark.parametrize("style", ["functional", "subclass"])
def test_the_cifar_resnet_is_80_lines_and_the_same_function(style: str) -> None:
    source, report = proven(style)
    assert report.verdict in (Verdict.EQUAL, Verdict.EXPLAINED)
    assert report.artifact is not None
    assert report.artifact.reloaded, report.artifact.error
    assert (report.balance.torch_total, report.balance.keras_total) == (195_738, 195_738 + 1_120)
    assert len(body(source)) <= 80
    assert source.count("esidual_block(x" if style == "functional" else "class ResidualBlock(") >= 1


def without_versions(source: str) -> str:
    return "\n".join(line for line in source.splitlines() if not line.startswith("Written by "))


@pytest.mark.parametrize(
    ("spec", "style"),
    [(CIFAR, "functional"), (CIFAR, "subclass"), ("torchvision:alexnet", "sequential")],
    ids=["resnet-functional", "resnet-subclass", "alexnet-sequential"],
)
def test_the_written_source_is_the_golden_one(spec: str, style: str) -> None:
    """A change of style is seen in review: `UPDATE_GOLDEN=1 scripts/test` writes the files anew."""
    if spec == CIFAR:
        source = proven(style)[0]
    else:
        loaded = load_source(spec)
        plan = plan_of(capture(loaded.module, loaded.example_inputs, name=loaded.name))
        source = checked_source(plan, style=style, spec=spec)
    golden = GOLDEN / f"source_{spec.rpartition(':')[2]}_{style}.py.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(source)
    assert without_versions(source) == without_versions(golden.read_text())


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_the_written_file_runs_on_another_backend(backend: str, tmp_path: Path) -> None:
    _, result = translated(CIFAR)
    path = tmp_path / "resnet.py"
    path.write_text(proven("functional")[0])
    result.model.save_weights(tmp_path / "model.weights.h5")
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    want = np.asarray(result.model(x))
    artifact = judge_source(
        path, model=result.model, weights=[tmp_path / "model.weights.h5"], inputs=[x], want=[want], backend=backend
    )
    assert artifact.reloaded, artifact.error


def test_weights_that_the_fresh_process_says_nothing_of_do_not_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, result = translated(CIFAR)
    path, weights = tmp_path / "resnet.py", [tmp_path / "one.weights.h5", tmp_path / "two.weights.h5"]
    path.write_text(proven("functional")[0])
    for file in weights:
        result.model.save_weights(file)
    ask = written._ask

    def only_the_first(job: dict[str, Any], backend: str) -> dict[str, Any]:
        return ask(job | {"weights": job["weights"][:1]}, backend)

    monkeypatch.setattr(written, "_ask", only_the_first)
    x = np.zeros((2, 32, 32, 3), "float32")
    want = np.asarray(result.model(x))
    artifact = judge_source(path, model=result.model, weights=weights, inputs=[x], want=[want])
    assert not artifact.reloaded
    assert artifact.error == "nothing was loaded from two.weights.h5"


CHAIN = """
import torch
from torch import nn

def chain():
    stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    return nn.Sequential(stem, nn.Flatten(), nn.Linear(64, 5))

def example_inputs():
    return torch.zeros(2, 3, 6, 6)
"""


@pytest.mark.parametrize("style", ["functional", "subclass", "sequential"])
def test_the_weights_that_are_written_with_a_file_fit_what_it_builds(style: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(CHAIN)
    output, spec = tmp_path / "chain.py", f"{tmp_path}/net.py:chain"
    command = ["source", spec, "-o", str(output), "--style", style, "--save-weights", "--quiet"]
    assert CliRunner().invoke(cli, command).exit_code == 0
    scope: dict[str, object] = {"__name__": f"written_{style}"}
    exec(output.read_text(), scope)  # noqa: S102 what the writer wrote is what is tested
    model = scope["build_model"]()  # type: ignore[operator]
    model.load_weights(tmp_path / "chain.weights.h5")
    module, x = load_source(spec).module, np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype("float32")
    with torch.no_grad():
        want = module(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(np.asarray(model(x)), want, rtol=1e-5, atol=1e-6)
    assert CliRunner().invoke(cli, command).exit_code == 2, "both files are there already"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "chain.py",
        "chain.weights.h5",
        "net.py",
    ]


def test_a_file_that_needs_pytorch_does_not_pass(tmp_path: Path) -> None:
    _, result = translated(CIFAR)
    path = tmp_path / "resnet.py"
    path.write_text(proven("functional")[0].replace("import keras\n", "import torch\nimport keras\n", 1))
    result.model.save_weights(tmp_path / "model.weights.h5")
    x = np.zeros((2, 32, 32, 3), "float32")
    want = np.asarray(result.model(x))
    weights = [tmp_path / "model.weights.h5"]
    artifact = judge_source(path, model=result.model, weights=weights, inputs=[x], want=[want])
    assert not artifact.reloaded
    assert "torch is blocked here" in artifact.error


def test_a_file_that_misplaces_the_converted_models_weights_does_not_pass(tmp_path: Path) -> None:
    _, result = translated(CIFAR)
    path, weights = tmp_path / "resnet.py", tmp_path / "model.weights.h5"
    right, wrong = "p._layers or [p]]", "(p._layers or [p])[::-1]]"
    assert right in proven("subclass")[0]
    path.write_text(proven("subclass")[0].replace(right, wrong))
    result.model.save_weights(weights)
    x = np.zeros((2, 32, 32, 3), "float32")
    want = np.asarray(result.model(x))
    artifact = judge_source(path, model=result.model, weights=[weights], inputs=[x], want=[want])
    assert not artifact.reloaded
    assert "weights are others after loading model.weights.h5" in artifact.error


@pytest.mark.slow
def test_a_chain_of_1202_layers_is_written_in_every_style() -> None:
    chain = nn.Sequential(*(nn.Linear(4, 4) if k % 2 == 0 else nn.ReLU() for k in range(1202))).eval()
    plan: Plan = plan_of(capture(chain, (torch.randn(2, 4),), name="chain"))
    for style in ("functional", "subclass", "sequential"):
        scope: dict[str, object] = {"__name__": "written"}
        exec(checked_source(plan, style=style), scope)  # noqa: S102 what the writer wrote is what is tested
        assert scope["build_model"]().count_params() == 601 * 20  # type: ignore[operator]
