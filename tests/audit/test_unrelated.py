"""Pairs that have nothing to do with each other are told so; what isn't a model is refused, whichever side it is on."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import keras
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import translator
from translator.cli import cli
from translator.verdict import Report, Verdict

pytestmark = pytest.mark.audit
layers = keras.layers


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.cell, self.head = nn.Embedding(50, 8), nn.LSTM(8, 12, batch_first=True), nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.cell(self.table(x))[0][:, -1])


def convolutional() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))


def dense() -> nn.Module:
    return nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 3))


def keras_convolutional() -> keras.Model:
    return keras.applications.MobileNetV2(input_shape=(32, 32, 3), alpha=0.35, weights=None, classes=5)


def keras_dense() -> keras.Model:
    return keras.Sequential([keras.Input((10,)), layers.Dense(50, activation="tanh"), layers.Dense(7)])


def keras_attention() -> keras.Model:
    inputs = keras.Input((16, 32))
    x = layers.LayerNormalization()(inputs + layers.MultiHeadAttention(4, 8)(inputs, inputs))
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling1D()(x)))


def keras_recurrent() -> keras.Model:
    return keras.Sequential([keras.Input((12,), dtype="int32"), layers.Embedding(100, 16), layers.GRU(6)])


PAIRS: list[tuple[Callable[[], nn.Module], torch.Tensor, Callable[[], keras.Model]]] = [
    (dense, torch.zeros(2, 20), keras_convolutional),
    (dense, torch.zeros(2, 20), keras_dense),
    (convolutional, torch.zeros(2, 3, 8, 8), keras_attention),
    (convolutional, torch.zeros(2, 3, 8, 8), keras_recurrent),
    (Recurrent, torch.zeros(2, 12, dtype=torch.int64), keras_convolutional),
    (Recurrent, torch.zeros(2, 12, dtype=torch.int64), keras_recurrent),
]


@pytest.mark.parametrize(("ours", "inputs", "theirs"), PAIRS, ids=[f"{a.__name__}-{b.__name__}" for a, _, b in PAIRS])
def test_models_that_have_nothing_in_common_are_told_so(
    ours: Callable[[], nn.Module], inputs: torch.Tensor, theirs: Callable[[], keras.Model]
) -> None:
    report: Report = translator.audit(ours().eval(), theirs(), inputs)
    assert report.verdict is Verdict.DIFFERENT
    assert any(n.startswith("these do not match: the best alignment covers") for n in report.notes), report.notes


NETWORKS = textwrap.dedent("""
    import keras
    from torch import nn
    from keras import layers

    def net():
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))

    def example_inputs():
        import torch
        return torch.zeros(2, 3, 8, 8)

    def port():
        return keras.Sequential([keras.Input((10,)), layers.Dense(50, activation="tanh"), layers.Dense(7)])

    def raises():
        raise ValueError("no luck")

    def nothing():
        return None
""")


@pytest.fixture
def audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """The exit status and the words of an audit in a folder with two networks."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NETWORKS)

    def run(port: str, source: str = "nets.py:net") -> tuple[int, str]:
        done = CliRunner().invoke(cli, ["audit", source, port])
        assert "Traceback" not in done.output
        return done.exit_code, done.output

    return run


def test_a_port_whose_sizes_pytorch_does_not_take_is_another_model(audited: Callable[..., tuple[int, str]]) -> None:
    status, words = audited("nets.py:port")
    assert status == 1
    assert "these do not match: the best alignment covers 0%" in words


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_what_is_no_keras_model_is_refused_with_the_reason(audited: Callable[..., tuple[int, str]]) -> None:
    model = keras_dense()
    for suffix in ("keras", "h5"):
        model.save(f"whole.{suffix}")
        whole = Path(f"whole.{suffix}").read_bytes()
        for name, content in (("cut", whole[: len(whole) // 2]), ("garbage", b"\x00\xff" * 500), ("empty", b"")):
            path = f"{name}.{suffix}"
            Path(path).write_bytes(content)
            status, words = audited(path)
            assert status == 2, words
            assert words.startswith(f"error: {path}: "), words
    torch.save(nn.Linear(2, 2).state_dict(), "weights.pt")
    for port, reason in (
        ("weights.pt", "not a Keras model file"), ("nets.py:raises", "the factory raised ValueError: no luck"),
        ("nets.py:nothing", "returned None"), ("nets.py:net", "not a keras.Model"), (".", "is a folder"),
        ("absent.keras", "no such file"), ("nets.py:absent", "has no `absent`"),
    ):  # fmt: skip
        status, words = audited(port)
        assert status == 2, words
        assert reason in words


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_what_is_no_pytorch_model_is_refused_with_the_reason(audited: Callable[..., tuple[int, str]]) -> None:
    keras_dense().save("port.keras")
    torch.save(nn.Linear(2, 2).state_dict(), "weights.pt")
    for source, reason in (
        ("port.keras", "not a source"), ("weights.pt", "a checkpoint holds weights, not an architecture"),
        ("nets.py:port", "not an nn.Module"), ("nets.py:raises", "the factory raised ValueError: no luck"),
        (".", "not a source"), ("model.onnx", "no PyTorch layers to align"),
    ):  # fmt: skip
        status, words = audited("port.keras", source)
        assert status == 2, words
        assert reason in words
