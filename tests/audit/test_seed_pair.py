"""The two networks of the article: seven differences named, a balance that closes, and the advice is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import translator
from models import cifar_resnet, cifar_resnet_keras
from tests.audit import mended
from translator.verdict import Difference, Effect, Report, Verdict

pytestmark = pytest.mark.audit

STRIDED = ("layer2.0.conv1", "layer2.0.downsample.0", "layer3.0.conv1", "layer3.0.downsample.0")


@pytest.fixture(scope="module")
def module() -> torch.nn.Module:
    torch.manual_seed(3)
    return cifar_resnet.resnet()


@pytest.fixture(scope="module")
def report(module: torch.nn.Module) -> Report:
    return translator.audit(module, cifar_resnet_keras.resnet(), cifar_resnet.example_inputs())


def of_kind(report: Report, kind: str) -> Difference:
    (found,) = [d for d in report.differences if d.kind == kind]
    return found


def test_all_seven_differences_are_named_with_their_layers_and_nothing_else_is(report: Report) -> None:
    counts = {d.kind: len(d.layers) for d in report.differences}
    assert counts == {
        "conv-bias": 15, "bn-statistics": 15, "epsilon": 15, "momentum": 15, "padding": 4, "head": 1, "initialiser": 16,
        "num_batches_tracked": 15,
    }  # fmt: skip
    assert of_kind(report, "padding").layers == STRIDED
    (head,) = of_kind(report, "head").layers
    assert head.startswith("dense")


@pytest.mark.parametrize(
    ("kind", "effect", "torch_text", "keras_text", "fix"),
    [
        ("conv-bias", Effect.TRAINING, "none", "a bias", "use_bias=False"),
        ("bn-statistics", Effect.NOTHING, "buffers", "counted as non-trainable weights", ""),
        ("epsilon", Effect.INFERENCE, "1e-05", "0.001", "BatchNormalization(epsilon=1e-05)"),
        ("momentum", Effect.TRAINING, "0.1 → 0.9", "0.99", "BatchNormalization(momentum=0.9)"),
        (
            "padding",
            Effect.INFERENCE,
            "(1,1),(1,1)",
            "same=(0,1)",
            'ZeroPadding2D(1) in front, then Conv2D(padding="valid")',
        ),
        ("head", Effect.INFERENCE, "logits", "softmax", "activation=None, and from_logits=True in the loss"),
        (
            "initialiser",
            Effect.TRAINING,
            "kaiming_uniform(a=√5)",
            "glorot_uniform",
            'kernel_initializer=VarianceScaling(1/3, "fan_in", "uniform")',
        ),
        ("num_batches_tracked", Effect.NOTHING, "15 counters", "none", ""),
    ],
)
def test_each_difference_tells_both_values_its_effect_and_its_fix(
    report: Report, kind: str, effect: Effect, torch_text: str, keras_text: str, fix: str
) -> None:
    found = of_kind(report, kind)
    assert (found.effect, found.torch, found.keras, found.fix) == (effect, torch_text, keras_text, fix)


def test_the_balance_closes(report: Report) -> None:
    balance = report.balance
    gaps = [(g.reason, g.count, len(g.layers)) for g in balance.gaps]
    assert (balance.torch_total, balance.keras_total, balance.unexplained) == (195_738, 197_418, 0)
    assert gaps == [
        ("conv biases that only Keras has", 560, 15),
        ("BN moving statistics, counted by Keras", 1_120, 15),
    ]
    assert (balance.keras_trainable, balance.keras_non_trainable) == (196_298, 1_120)


def test_the_verdict_is_different_and_the_first_wrong_layer_is_the_first_batch_norm(report: Report) -> None:
    assert report.verdict is Verdict.DIFFERENT
    assert report.exit_status == 1
    assert report.first_wrong == "bn"
    wrong = [row.torch for row in report.layers if not row.ok]
    assert set(STRIDED) | {"fc"} <= set(wrong) | {"fc"}
    assert not any(row.ok is False for row in report.layers if row.type == "ReLU")


def test_after_mending_as_advised_the_pair_is_explained(module: torch.nn.Module) -> None:
    report = translator.audit(module, mended.resnet(), cifar_resnet.example_inputs())
    assert {d.kind for d in report.differences} == {"bn-statistics", "num_batches_tracked"}
    assert (report.verdict, report.exit_status, report.balance.unexplained) == (Verdict.EXPLAINED, 0, 0)
    assert report.numerics["float64"].max_rel < 1e-9


def test_an_audit_leaves_both_models_as_they_were(module: torch.nn.Module) -> None:
    model = cifar_resnet_keras.resnet()
    before = [w.numpy() for w in model.weights], {k: v.clone() for k, v in module.state_dict().items()}
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    translator.audit(module, model, cifar_resnet.example_inputs())
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(before[0], model.weights, strict=True))
    assert all(torch.equal(v, module.state_dict()[k]) for k, v in before[1].items())
    assert nodes == [len(layer._inbound_nodes) for layer in model.layers]


def test_a_baseline_accepts_exactly_what_it_holds(module: torch.nn.Module, report: Report, tmp_path: Path) -> None:
    from translator.audit.baseline import write_baseline

    path = tmp_path / "gaps.json"
    write_baseline(report, path)
    model = cifar_resnet_keras.resnet()
    accepted = translator.audit(module, model, cifar_resnet.example_inputs(), baseline=path)
    assert accepted.exit_status == 0
    model.layers[2].momentum = 0.5  # its first BatchNormalization
    changed = translator.audit(module, model, cifar_resnet.example_inputs(), baseline=path)
    assert changed.exit_status == 1
    (check,) = [c for c in changed.checks if c.name == "baseline"]
    assert "new: momentum in bn: 0.1 → 0.9 | 0.5" in check.detail
    assert "gone: momentum" in check.detail
