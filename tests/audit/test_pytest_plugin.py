"""The plugin in a pytest of its own: what it imports, what a pass and a failure look like."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.audit

ROOT = Path(__file__).parents[2]

MODELS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.norm(self.conv(x)).relu().mean((2, 3)))

def example_inputs():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
"""

PORT = """
import keras
from keras import layers

def port(epsilon=1e-5):
    x = image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="conv")(x)
    x = layers.BatchNormalization(epsilon=float(epsilon), momentum=0.9, name="norm")(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return keras.Model(image, layers.Dense(2)(x))
"""

TESTS = """
import sys

LOADED = sorted({"torch", "tensorflow", "keras"} & set(sys.modules))

import pytest


def test_the_plugin_alone_loads_no_framework():
    assert LOADED == []


@pytest.mark.equivalent("net.py:Net", "port.py:port")
def test_marked_pair_is_the_same(equivalence_report):
    assert equivalence_report.balance.unexplained == 0


@pytest.mark.equivalent("net.py:Net", "port.py:port?epsilon=0.001")
def test_marked_pair_differs():
    raise RuntimeError("the body of a failed audit does not run")


@pytest.mark.equivalent("net.py:Net", "nothing.keras")
def test_marked_file_is_missing():
    pass


def test_fixture(assert_equivalent):
    import translator
    from net import Net, example_inputs
    from port import port

    net, model = Net().eval(), port()
    with pytest.raises(pytest.fail.Exception, match="weights"):
        assert_equivalent(net, model, example_inputs())
    translator.transfer(net, model, example_inputs())
    assert assert_equivalent(net, model, example_inputs()).exit_status == 0
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("plugin")
    for name, text in {"net.py": MODELS, "port.py": PORT, "test_port.py": TESTS}.items():
        (folder / name).write_text(text)
    command = [
        sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(folder), "-W", "ignore", "-v",
        "--junitxml=out.xml", "--strict-markers", "test_port.py",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    return done.stdout + done.stderr, (folder / "out.xml").read_text()


def outcomes(text: str) -> dict[str, str]:
    return dict(re.findall(r"test_port\.py::(\w+) (PASSED|FAILED|ERROR)", text))


def test_tests_pass_and_fail_as_the_models_do(run: tuple[str, str]) -> None:
    assert outcomes(run[0]) == {
        "test_the_plugin_alone_loads_no_framework": "PASSED",
        "test_marked_pair_is_the_same": "PASSED",
        "test_marked_pair_differs": "FAILED",
        "test_marked_file_is_missing": "ERROR",
        "test_fixture": "PASSED",
    }, run[0]


def test_a_failure_shows_the_audit_and_the_layers_that_differ(run: tuple[str, str]) -> None:
    text = run[0]
    assert "BatchNormalization(epsilon=1e-05)" in text
    assert "DIFFERENT: first at norm" in text
    assert re.search(r"layers that differ -+\n.*norm +norm +alone", text)
    assert "the body of a failed audit does not run" not in text.partition("short test summary")[2]


def test_a_model_that_can_not_be_loaded_is_said_in_one_message(run: tuple[str, str]) -> None:
    assert "nothing.keras: no such file" in run[0]


def test_junit_carries_the_verdict(run: tuple[str, str]) -> None:
    assert '<property name="equivalence" value="explained"' in run[1]
    assert '<property name="equivalence" value="different"' in run[1]
