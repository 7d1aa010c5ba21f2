"""Plant one fault in a right translation: the judge finds it, and names that very layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch import nn

import translator
from tests.unit.verify_pairs import Pair, Settings, residual_pair, value
from translator.claims import Claims
from translator.types import Layout
from translator.verdict import Effect, Report, Verdict
from translator.verify.keras_replay import to_numpy
from translator.verify.proof import Subject, prove

pytestmark = pytest.mark.model


def change(pair: Pair, layer: str, name: str, how: Callable[[np.ndarray], np.ndarray]) -> None:
    variable = pair.variable(layer, name)
    variable.assign(how(to_numpy(variable.value)))


def swap(pair: Pair, a: tuple[str, str], b: tuple[str, str]) -> None:
    first, second = pair.variable(*a), pair.variable(*b)
    values = to_numpy(first.value), to_numpy(second.value)
    first.assign(values[1])
    second.assign(values[0])


def one_weight(kernel: np.ndarray) -> np.ndarray:
    kernel = kernel.copy()
    kernel[1, 2, 0, 3] += 1e-4
    return kernel


def bind(pair: Pair, layer: str, name: str, how: Callable[[np.ndarray], np.ndarray]) -> None:
    """A wrong binding: the fault is made again with every weight that is loaded."""
    number = next(i for i, w in enumerate(pair.weights) if (w.layer, w.variable) == (layer, name))
    make = pair.weights[number].make
    pair.weights[number] = replace(pair.weights[number], make=lambda *arrays: how(make(*arrays)))
    pair.load_own()


def rebind(pair: Pair, layer: str, name: str, tensor: str, other: str, tensor2: str) -> None:
    """Two variables bound to each other's tensors."""
    for i, w in enumerate(pair.weights):
        if w.layer == layer and w.variable in (name, other):
            pair.weights[i] = replace(w, tensors=(tensor if w.variable == name else tensor2,))
    pair.load_own()


@dataclass(frozen=True)
class Fault:
    """What is planted: in the weights, in the binding, or in the network's settings; and where it must be seen."""

    layer: str
    plant: Callable[[Pair], None] = lambda pair: None
    settings: Settings = field(default_factory=Settings)
    fresh: bool = True


SQUARE = lambda k: k.transpose(0, 1, 3, 2)
TURNED = lambda k: k.transpose(1, 0, 2, 3)

FAULTS: dict[str, Fault] = {
    "BN scale and variance exchanged": Fault(
        "bn", lambda p: swap(p, ("bn", "gamma"), ("bn", "moving_variance")), fresh=False
    ),
    "BN mean and shift exchanged": Fault(
        "block.bn1", lambda p: swap(p, ("block_bn1", "beta"), ("block_bn1", "moving_mean")), fresh=False
    ),
    "BN scale and variance bound wrongly": Fault(
        "bn", lambda p: rebind(p, "bn", "gamma", "bn.running_var", "moving_variance", "bn.weight")
    ),
    "BN mean and shift bound wrongly": Fault(
        "block.bn2", lambda p: rebind(p, "block_bn2", "beta", "block.bn2.running_mean", "moving_mean", "block.bn2.bias")
    ),
    "epsilon 1e-3": Fault("bn", settings=Settings(bn={"epsilon": 1e-3, "momentum": 0.9})),
    "epsilon 1.001e-5": Fault("bn", settings=Settings(bn={"epsilon": 1.001e-5, "momentum": 0.9})),
    "same padding at stride 2": Fault("stem", settings=Settings(stem_padding="same")),
    "kernel with its channels transposed": Fault("block.conv1", lambda p: change(p, "block_conv1", "kernel", SQUARE)),
    "kernel with its rows and columns exchanged": Fault(
        "block.conv2", lambda p: change(p, "block_conv2", "kernel", TURNED)
    ),
    "kernel bound with its channels transposed": Fault(
        "block.conv1", lambda p: bind(p, "block_conv1", "kernel", SQUARE)
    ),
    "kernel bound with its rows and columns exchanged": Fault("stem", lambda p: bind(p, "stem", "kernel", TURNED)),
    "depthwise channels in the wrong order": Fault(
        "depthwise", lambda p: bind(p, "depthwise", "kernel", lambda k: k.reshape(3, 3, 2, 6).transpose(0, 1, 3, 2))
    ),
    "a bias dropped": Fault("depthwise", settings=Settings(depthwise_bias=False)),
    "ReLU for ReLU6": Fault("relu6", settings=Settings(relu6_max=None)),
    "zero padding for max pooling": Fault("pool", settings=Settings(pool_fill="zero")),
    "flatten in the wrong order": Fault("fc", settings=Settings(flatten_rows="as they are")),
    "two layers of one shape exchanged": Fault(
        "block.conv1", lambda p: swap(p, ("block_conv1", "kernel"), ("block_conv2", "kernel"))
    ),
    "two layers of one shape bound wrongly": Fault("block.conv1", lambda p: _cross(p)),
    "the shortcut taken elsewhere": Fault("block.relu", settings=Settings(shortcut="conv1")),
    "one weight off by 1e-4": Fault("stem", lambda p: change(p, "stem", "kernel", one_weight)),
    "the sign of a bias": Fault("fc", lambda p: change(p, "fc", "bias", np.negative)),
    "scaled by 1.001": Fault("fc", lambda p: change(p, "fc", "kernel", lambda k: k * np.float32(1.001))),
    "a round trip through float16": Fault(
        "block.conv2", lambda p: change(p, "block_conv2", "kernel", lambda k: k.astype("float16").astype("float32"))
    ),
    "NaN in a weight": Fault("depthwise", lambda p: change(p, "depthwise", "bias", lambda b: b * np.float32("nan"))),
    "infinity in a weight": Fault("fc", lambda p: change(p, "fc", "bias", lambda b: b + np.float32("inf"))),
}


def _cross(pair: Pair) -> None:
    names = {"block_conv1": "block.conv2.weight", "block_conv2": "block.conv1.weight"}
    pair.weights = [replace(w, tensors=(names[w.layer],)) if w.layer in names else w for w in pair.weights]
    pair.load_own()


def named(report: Report) -> set[str]:
    return {layer for d in report.differences if d.changes_function for layer in d.layers}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_found_and_its_layer_named(name: str, rng: np.random.Generator) -> None:
    fault = FAULTS[name]
    pair = residual_pair(rng, fault.settings, fresh=fault.fresh)
    fault.plant(pair)
    report = pair.prove()
    assert report.verdict is Verdict.DIFFERENT
    assert report.exit_status == 1
    assert report.first_wrong == fault.layer
    assert fault.layer in named(report)
    assert [row.torch for row in report.layers if not row.ok] in (
        [fault.layer],
        [fault.layer] * 2,
        ["block.conv1", "block.conv2"],
    )


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_found_without_random_weights(name: str, rng: np.random.Generator) -> None:
    """An audit can't load other weights; with weights that vary it finds the same."""
    fault = FAULTS[name]
    pair = residual_pair(rng, fault.settings)
    fault.plant(pair)
    report = pair.prove(load=False)
    assert report.verdict is Verdict.DIFFERENT
    assert report.first_wrong == fault.layer


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("load", [False, True])
def test_right_pair_is_explained_and_keeps_its_weights(fresh: bool, load: bool, rng: np.random.Generator) -> None:
    pair = residual_pair(rng, fresh=fresh)
    before = [to_numpy(v.value) for v in pair.model.weights]
    state = {k: v.clone() for k, v in pair.module.state_dict().items()}
    report = pair.prove(load=load)
    assert report.verdict is Verdict.EXPLAINED, [c for c in report.checks if not c.ok]
    assert report.first_wrong == ""
    assert report.balance.unexplained == 0
    assert [g.count for g in report.balance.gaps] == [36]
    assert all(row.ok and row.chain_f64 is not None and row.chain_f64 < 1e-12 for row in report.layers)
    assert all(np.array_equal(a, to_numpy(v.value)) for a, v in zip(before, pair.model.weights, strict=True))
    assert all(state[k].equal(v) and state[k].dtype == v.dtype for k, v in pair.module.state_dict().items())
    assert not any(layer.dtype_policy.compute_dtype != "float32" for layer in pair.model.layers)


def test_momentum_is_a_difference_in_training(rng: np.random.Generator) -> None:
    report = residual_pair(rng, Settings(bn={"epsilon": 1e-5, "momentum": 0.99})).prove()
    found = [d for d in report.differences if d.kind == "momentum"]
    assert [(d.layers, d.effect) for d in found] == [(("bn",), Effect.TRAINING)]
    assert report.verdict is Verdict.EXPLAINED


def test_frozen_layer_is_a_difference_in_training(rng: np.random.Generator) -> None:
    pair = residual_pair(rng)
    pair.layer("block_conv2").trainable = False
    report = pair.prove()
    found = [d for d in report.differences if d.kind == "trainable"]
    assert found
    assert {layer for d in found for layer in d.layers} == {"block.conv2"}
    assert {d.effect for d in found} == {Effect.TRAINING}
    assert report.balance.keras_trainable == report.balance.torch_trainable - 324


@pytest.mark.parametrize(("rate", "words"), [(None, "none"), (0.5, "0.5")])
def test_dropout_lost_or_at_another_rate_is_a_difference_in_training(
    rate: float | None, words: str, rng: np.random.Generator
) -> None:
    report = residual_pair(rng, Settings(dropout=rate)).prove()
    found = [d for d in report.differences if "drop" in d.layers]
    assert [d.effect for d in found] == [Effect.TRAINING]
    assert words in found[0].keras
    assert report.verdict is Verdict.EXPLAINED


def without(pair: Pair, path: str) -> Claims:
    claims = pair.claims
    return replace(claims, modules=tuple(m for m in claims.modules if m.path != path))


@pytest.mark.parametrize("path", ["stem", "bn", "block.relu", "block.bn2", "depthwise", "relu6", "pool", "fc"])
def test_leaf_without_a_claim_is_named(path: str, rng: np.random.Generator) -> None:
    pair = residual_pair(rng)
    report = pair.prove(claims=without(pair, path))
    assert report.verdict is Verdict.DIFFERENT
    assert not report.checks[0].ok
    assert report.first_wrong == path
    assert path in named(report)


@pytest.mark.parametrize("path", ["flatten", "drop", "block"])
def test_what_does_nothing_by_itself_needs_no_claim(path: str, rng: np.random.Generator) -> None:
    pair = residual_pair(rng)
    report = pair.prove(claims=without(pair, path))
    assert report.checks[0].ok
    assert report.verdict is Verdict.EXPLAINED


def test_empty_claims_prove_nothing(rng: np.random.Generator) -> None:
    report = residual_pair(rng).prove(claims=Claims(inputs=(), outputs=()))
    assert report.verdict is Verdict.DIFFERENT
    assert [c.name for c in report.checks if c.ok] == []


def test_claims_of_the_ends_only_prove_nothing_of_the_layers(rng: np.random.Generator) -> None:
    pair = residual_pair(rng)
    report = pair.prove(claims=Claims(inputs=pair.claims.inputs, outputs=pair.claims.outputs))
    assert report.verdict is Verdict.DIFFERENT
    assert {"stem", "bn", "fc"} <= named(report)


def test_missing_output_claim_is_a_finding(rng: np.random.Generator) -> None:
    pair = residual_pair(rng)
    report = pair.prove(claims=replace(pair.claims, outputs=()))
    assert report.verdict is Verdict.DIFFERENT
    assert "output 0 of the model has no twin" in report.checks[0].detail


@pytest.mark.parametrize("tensor", ["stem.weight", "bn.running_var", "fc.bias"])
def test_parameter_without_a_claim_is_named(tensor: str, rng: np.random.Generator) -> None:
    pair = residual_pair(rng)
    pair.weights = [w for w in pair.weights if w.tensors != (tensor,)]
    report = pair.prove()
    assert report.verdict is Verdict.DIFFERENT
    assert report.balance.unexplained != 0 or not report.checks[1].ok
    assert f"{tensor} is nowhere in the Keras model" in str(report.differences)


def test_parameter_counted_twice_is_named(rng: np.random.Generator) -> None:
    pair = residual_pair(rng)
    pair.weights.append(next(w for w in pair.weights if w.layer == "stem"))
    report = pair.prove()
    assert report.verdict is Verdict.DIFFERENT
    assert "stem.weight is in Keras more than once" in str(report.differences)
    assert "stem" in named(report)


@pytest.mark.parametrize(
    ("changes", "layer"),
    [
        ({"outputs": (value("block_conv1"),)}, "stem"),
        ({"outputs": (value("nowhere"),)}, "stem"),
        ({"outputs": (value("stem", call=1),)}, "stem"),
        ({"outputs": (value("stem", Layout(axes=(0, 3, 2, 1))),)}, "stem"),
        ({"outputs": (value("stem", Layout.identity(4)),)}, "stem"),
        ({"outputs": (value("stem", Layout(axes=(0, 1))),)}, "stem"),
        ({"outputs": (value("stem"), value("bn"))}, "stem"),
        ({"inputs": (value("image", Layout(axes=(0, 3, 2, 1))),)}, "stem"),
    ],
)
def test_wrong_claim_is_named(changes: dict[str, object], layer: str, rng: np.random.Generator) -> None:
    pair = residual_pair(rng)
    pair.change(layer, **changes)
    report = pair.prove()
    assert report.verdict is Verdict.DIFFERENT
    assert layer in named(report)


def test_claim_for_a_call_that_never_happens_is_named(rng: np.random.Generator) -> None:
    pair = residual_pair(rng)
    pair.modules.append(replace(pair.modules[0], call=1))
    report = pair.prove()
    assert report.verdict is Verdict.DIFFERENT
    assert "PyTorch never makes it" in report.checks[0].detail


def test_constant_reference_proves_nothing(rng: np.random.Generator) -> None:
    """A head of zeros puts out zeros, whatever it is compared with; random weights are needed to see anything."""
    pair = residual_pair(rng)
    for tensor in (pair.module.fc.weight, pair.module.fc.bias):
        tensor.data.zero_()
    pair.load_own()
    blind = pair.prove(load=False)
    assert blind.verdict is Verdict.DIFFERENT
    assert "constant" in str(blind.differences)
    assert blind.first_wrong == "fc"
    assert pair.prove().verdict is Verdict.EXPLAINED


class Blind(nn.Module):
    """Puts out zeros, though it has parameters and reads numbers that vary."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(3) + 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale.clamp(max=0)


def test_what_comes_in_does_not_vouch_for_what_comes_out() -> None:
    report = translator.convert(nn.Sequential(Blind(), nn.Linear(3, 2)), torch.randn(2, 3)).report
    assert report.verdict is Verdict.DIFFERENT
    assert report.first_wrong == "0"
    assert "constant" in str(report.differences)


@pytest.mark.parametrize("nested", [False, True])
def test_a_constant_function_without_parameters_shows_itself_by_other_numbers(nested: bool) -> None:
    """A normalisation of one number gives 0 whatever comes in: the same for all that it was asked with."""
    head = nn.Sequential(nn.Linear(3, 1), nn.LayerNorm(1, elementwise_affine=False))
    module = nn.Sequential(head, nn.Linear(1, 4)) if nested else head
    assert translator.convert(module, torch.randn(2, 3)).report.verdict is Verdict.EQUAL


@pytest.mark.parametrize("size", [1, 4])
def test_only_a_normalisation_of_one_number_vouches_for_itself(size: int) -> None:
    """One whose scale is zero puts out zeros, too, but its epsilon might be any: without random weights it is named."""
    module, x = nn.Sequential(nn.Linear(3, size), nn.LayerNorm(size), nn.Linear(size, 4)).eval(), torch.randn(2, 3)
    module[1].weight.data.zero_()  # type: ignore[union-attr, operator]
    done = translator.convert(module, x)
    report = prove(module, (x,), Subject(keras_model=done.model, claims=done.claims))
    assert report.first_wrong == ("" if size == 1 else "1")


@pytest.mark.parametrize("exchanged", [False, True])
def test_random_weights_tell_scale_from_shift_where_one_number_is_normalised(exchanged: bool) -> None:
    """It gives its bias whatever comes in (timm's csatv2 has such ones)."""
    module, x = nn.Sequential(nn.Linear(3, 1), nn.LayerNorm(1), nn.Linear(1, 4)).eval(), torch.randn(2, 3)
    done = translator.convert(module, x)
    (norm,) = (layer for layer in done.model.layers if type(layer).__name__ == "LayerNormalization")

    def load(state: Mapping[str, np.ndarray]) -> None:
        done.load_checkpoint({name: torch.from_numpy(array) for name, array in state.items()})
        if exchanged:
            gamma, beta = to_numpy(norm.gamma.value), to_numpy(norm.beta.value)
            norm.gamma.assign(beta)
            norm.beta.assign(gamma)

    report = prove(module, (x,), Subject(keras_model=done.model, claims=done.claims, load_state=load))
    assert report.verdict is (Verdict.DIFFERENT if exchanged else Verdict.EQUAL)
    assert report.first_wrong == ("1" if exchanged else "")
