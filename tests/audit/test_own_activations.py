"""Activations of the user's own, whose names say nothing: they are told apart by their numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import activations, layers, ops
from torch import nn

import translator
from translator.verdict import Report, Verdict
from translator.verify.activation_numbers import formula_of, identified, same_function
from translator.verify.facts import Activation
from translator.verify.facts_keras_activations import activation_of

pytestmark = pytest.mark.audit

NAMED = (
    "linear", "relu", "relu6", "leaky_relu", "elu", "celu", "selu", "silu", "gelu", "mish", "sigmoid", "tanh",
    "softplus", "softsign", "hard_sigmoid", "hard_silu", "hard_tanh", "hard_shrink", "soft_shrink", "tanh_shrink",
    "log_sigmoid", "softmax", "log_softmax", "exponential",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_a_function_without_a_name_is_the_one_that_its_numbers_say(name: str) -> None:
    function = getattr(activations, name)
    found = identified(lambda x: function(x))
    assert found == (activation_of(function) if name != "celu" else activation_of(activations.elu))


def leaky(slope: float) -> Activation:
    return Activation(name="leaky_relu", settings=(("negative_slope", slope),))


@pytest.mark.parametrize(
    ("function", "want"),
    [
        (lambda x: ops.leaky_relu(x, negative_slope=0.37), leaky(0.37)),
        (lambda x: ops.maximum(x, 0.1 * x), leaky(0.1)),
        (partial(activations.gelu, approximate=True), Activation(name="gelu", settings=(("approximate", True),))),
        (ops.gelu, Activation(name="gelu", settings=(("approximate", True),))),
        (lambda x: ops.clip(x, -2.0, 5.0), Activation(name="clip", settings=(("max", 5.0), ("min", -2.0)))),
        (lambda x: ops.elu(x, alpha=0.3), Activation(name="elu", settings=(("alpha", 0.3),))),
        (lambda x: x * ops.sigmoid(x), Activation(name="silu")),
        (layers.LeakyReLU(0.01), leaky(0.01)),
        (layers.ReLU(max_value=6.0), Activation(name="clip", settings=(("max", 6.0), ("min", 0.0)))),
    ],
    ids=lambda value: value.text() if isinstance(value, Activation) else "",
)
def test_settings_are_read_off_the_numbers(function: Callable[[Any], Any], want: Activation) -> None:
    found = activation_of(function)
    assert found.name == want.name
    assert [k for k, _ in found.settings] == [k for k, _ in want.settings]
    assert [v for _, v in found.settings] == pytest.approx([v for _, v in want.settings], rel=1e-12)


@pytest.mark.parametrize(
    ("want", "function"),
    [
        (Activation(name="gelu", settings=(("approximate", False),)), partial(activations.gelu, approximate=True)),
        (Activation(name="relu"), lambda x: ops.minimum(ops.relu(x), 1000.0)),
        (Activation(name="relu"), lambda x: ops.where(x > 1e-6, x, 0.0)),
        (Activation(name="silu"), activations.hard_silu),
        (Activation(name="softplus", settings=(("beta", 1.0),)), lambda x: ops.softplus(1.01 * x) / 1.01),
        (leaky(0.1), lambda x: ops.leaky_relu(x, negative_slope=0.1000001)),
    ],
)
def test_functions_that_nearly_agree_are_told_apart(want: Activation, function: Callable[[Any], Any]) -> None:
    assert same_function(want, activation_of(function)) is False


def test_a_function_that_cannot_be_asked_is_left_to_the_judge() -> None:
    def picky(x: Any) -> Any:
        raise ValueError("only images")

    found = activation_of(picky)
    assert (found.name, found.function) == ("picky", picky)
    assert same_function(leaky(0.1), found) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (leaky(0.0), Activation(name="relu")),
        (Activation(name="celu", settings=(("alpha", 1.0),)), Activation(name="elu", settings=(("alpha", 1.0),))),
    ],
)
def test_two_names_of_one_function_are_the_same(one: Activation, other: Activation) -> None:
    assert same_function(one, other) is True


def test_every_named_activation_has_a_formula() -> None:
    for name in NAMED:
        facts = activation_of(getattr(activations, name))
        assert formula_of(facts) is not None, name


def relu(x: Any) -> Any:
    """Bears a name of Keras', and is another function."""
    return ops.leaky_relu(x, negative_slope=0.1)


@keras.saving.register_keras_serializable("tests")
class OwnLeaky(layers.Layer):
    def call(self, x: Any) -> Any:
        return ops.leaky_relu(x, negative_slope=0.1)


WAYS: dict[str, Callable[[Any], Any]] = {
    "lambda inside": lambda x: layers.Conv2D(4, 3, activation=lambda v: ops.leaky_relu(v, negative_slope=0.1))(x),
    "partial inside": lambda x: layers.Conv2D(4, 3, activation=partial(ops.leaky_relu, negative_slope=0.1))(x),
    "function of a Keras name": lambda x: layers.Conv2D(4, 3, activation=relu)(x),
    "layer inside": lambda x: layers.Conv2D(4, 3, activation=layers.LeakyReLU(0.1))(x),
    "Activation layer": lambda x: layers.Activation(relu)(layers.Conv2D(4, 3)(x)),
    "Lambda layer": lambda x: layers.Lambda(relu)(layers.Conv2D(4, 3)(x)),
    "layer of the user's own": lambda x: OwnLeaky()(layers.Conv2D(4, 3)(x)),
    "written out": lambda x: (lambda v: ops.maximum(v, 0.1 * v))(layers.Conv2D(4, 3)(x)),
}


def audited(way: Callable[[Any], Any], slope: float) -> Report:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(slope), nn.Conv2d(4, 2, 1))
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layers.Conv2D(2, 1)(way(inputs)))
    example = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 8, 8), dtype=np.float32))
    return translator.audit(module, model, example, weights="ignore")


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_leaky_relu_is_one_however_it_is_written(way: Callable[[Any], Any]) -> None:
    report = audited(way, 0.1)
    assert report.verdict in (Verdict.EQUAL, Verdict.EXPLAINED)
    assert not [d for d in report.differences if d.changes_function]


@pytest.mark.parametrize("way", [w for name, w in WAYS.items() if name != "written out"], ids=lambda _: "")
def test_another_slope_is_named_with_both_values(way: Callable[[Any], Any]) -> None:
    report = audited(way, 0.2)
    assert report.verdict is Verdict.DIFFERENT
    (found,) = [d for d in report.differences if d.changes_function]
    assert (found.kind, found.layers) == ("activation", ("1",))
    assert (found.torch, found.keras) == ("leaky_relu(negative_slope=0.2)", "leaky_relu(negative_slope=0.1)")
