"""Right pairs of every kind are accepted: recurrent, embedded, shared, nested, several inputs, functional code."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
import torch
from keras import layers
from torch import nn

from tests.unit.verify_pairs import (
    BN,
    PLAIN2,
    PLAIN3,
    Pair,
    Weight,
    accepted,
    conv,
    dense,
    norm,
    scatter,
    twin,
    value,
)
from translator.claims import ModuleClaim
from translator.verdict import Effect, Verdict


class Recurrent(nn.Module):
    """Token indices → embedding → LSTM → the last step → dense."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.lstm = nn.LSTM(6, 5, batch_first=True)
        self.fc = nn.Linear(5, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        sequence, _ = self.lstm(self.embed(tokens))
        return self.fc(sequence[:, -1])


def recurrent_pair() -> Pair:
    tokens = keras.Input((7,), dtype="int32", name="tokens")
    x = layers.Embedding(11, 6, name="embed")(tokens)
    x = layers.LSTM(5, return_sequences=True, name="lstm")(x)
    last = keras.ops.GetItem(name="last")(x, (slice(None), -1)) if hasattr(keras.ops, "GetItem") else x[:, -1]
    model = keras.Model(tokens, layers.Dense(3, name="fc")(last))
    weights = [
        Weight(layer="embed", variable="embeddings", tensors=("embed.weight",), make=lambda w: w),
        Weight(layer="lstm", variable="cell.kernel", tensors=("lstm.weight_ih_l0",), make=lambda w: w.T),
        Weight(layer="lstm", variable="cell.recurrent_kernel", tensors=("lstm.weight_hh_l0",), make=lambda w: w.T),
        Weight(
            layer="lstm", variable="cell.bias", tensors=("lstm.bias_ih_l0", "lstm.bias_hh_l0"), make=np.add, how="sum"
        ),
        *dense("fc", "fc"),
    ]  # fmt: skip
    modules = [
        twin("embed", 0, value("tokens", PLAIN2), value("embed", PLAIN3)),
        ModuleClaim(path="lstm", call=0, inputs=(value("embed", PLAIN3),), outputs=(value("lstm", PLAIN3), None, None)),
        ModuleClaim(path="fc", call=0, inputs=(None,), outputs=(value("fc", PLAIN2),)),
    ]
    return Pair(
        module=Recurrent().eval(), model=model, example=(torch.tensor([[1, 2, 3, 0, 10, 4, 5]]),), weights=weights,
        inputs=(value("tokens", PLAIN2),), outputs=(value("fc", PLAIN2),), modules=modules,
    ).load_own()  # fmt: skip


@pytest.mark.parametrize("load", [False, True])
def test_lstm_with_its_summed_biases_is_exact_in_float64(load: bool) -> None:
    pair = recurrent_pair()
    report = pair.prove(load=load)
    assert accepted(report)
    assert report.balance.unexplained == 0
    assert [(g.reason, g.count) for g in report.balance.gaps] == [("two biases in PyTorch, their sum in Keras", -20)]
    row = next(r for r in report.layers if r.torch == "lstm")
    assert row.error_f64 is not None
    assert row.error_f64 < 1e-12
    assert (row.params_torch, row.params_keras) == (260, 240)
    assert "outputs [1, 2] have no twin" in row.note


def test_wrong_sum_of_biases_is_named() -> None:
    pair = recurrent_pair()
    pair.variable("lstm", "cell.bias").assign(pair.module.lstm.bias_ih_l0.detach().numpy())
    report = pair.prove()
    assert report.verdict is Verdict.DIFFERENT
    assert "lstm" in {layer for d in report.differences if d.changes_function for layer in d.layers}


def test_bias_bound_as_a_sum_that_it_is_not_is_found_without_random_weights() -> None:
    """The float64 runs put the claimed sum into PyTorch; that the sum is right is float32's to say."""
    pair = recurrent_pair()
    claim = next(w for w in pair.weights if w.how == "sum")
    pair.weights.remove(claim)
    pair.weights.append(replace(claim, tensors=("lstm.bias_hh_l0", "lstm.weight_hh_l0")))
    report = pair.prove(load=False)
    assert report.verdict is Verdict.DIFFERENT


class Shared(nn.Module):
    """One stage used twice, one head whose weight is the embedding's, a sum and functional code in between."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.again = self.stage
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        a, b = self.stage(x), self.again(y)
        both = nn.functional.relu6(3 * (a + b))
        return {"map": self.head(both), "mean": both.mean((2, 3))}


def shared_pair(rng: np.random.Generator, *, clip: float | None = 6.0) -> Pair:
    inner = keras.Input((None, None, 4), name="x")
    z = layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv")(inner)
    z = layers.BatchNormalization(**BN, name="bn")(z)
    stage = keras.Model(inner, layers.ReLU(name="relu")(z), name="stage")
    first, second = keras.Input((None, None, 4), name="first"), keras.Input((None, None, 4), name="second")
    a, b = stage(first), stage(second)
    both = layers.ReLU(max_value=clip, name="clip")(3.0 * layers.Add(name="add")([a, b]))
    outputs = [layers.Conv2D(2, 1, name="head")(both), layers.GlobalAveragePooling2D(name="mean")(both)]
    model = keras.Model([first, second], outputs)
    module = Shared().eval()
    scatter(module, rng)
    modules = [
        c
        for call, name in enumerate(("first", "second"))
        for c in (
            twin("stage.0", call, value(name), value("stage/conv", call=call)),
            twin("stage.1", call, value("stage/conv", call=call), value("stage/bn", call=call)),
            twin("stage.2", call, value("stage/bn", call=call), value("stage/relu", call=call)),
            twin("stage", call, value(name), value("stage", call=call)),
        )
    ]
    modules.append(twin("head", 0, value("clip"), value("head")))
    return Pair(
        module=module, model=model, example=(torch.zeros(1, 4, 6, 5), torch.zeros(1, 4, 6, 5)),
        weights=[*conv("stage/conv", "stage.0"), *norm("stage/bn", "stage.1"), *conv("head", "head", bias=True)],
        inputs=(value("first"), value("second")), outputs=(value("head"), value("mean", PLAIN2)), modules=modules,
    ).load_own()  # fmt: skip


def test_shared_stage_in_a_nested_model_is_entered_at_each_call(rng: np.random.Generator) -> None:
    report = shared_pair(rng).prove()
    assert accepted(report)
    rows = [(r.torch, r.keras) for r in report.layers]
    assert rows.count(("stage.0", "stage/conv")) == 2
    assert sum(r.params_torch for r in report.layers) == report.balance.torch_total
    assert sum(r.params_keras for r in report.layers) == report.balance.keras_total
    assert next(r for r in report.layers if r.torch == "(model)").error_f64 < 1e-12  # type: ignore[operator]


def test_dynamic_sizes_are_probed_in_earnest(rng: np.random.Generator) -> None:
    """ "same" at stride 2 is right for an odd size; where Keras leaves the size open it is wrong."""
    for shape in ((9, 9, 3), (None, None, 3)):
        image = keras.Input(shape, name="image")
        model = keras.Model(image, layers.Conv2D(2, 3, strides=2, padding="same", use_bias=False, name="conv")(image))
        pair = Pair(
            module=nn.Sequential(nn.Conv2d(3, 2, 3, stride=2, padding=1, bias=False)), model=model,
            example=(torch.zeros(1, 3, 9, 9),), weights=conv("conv", "0"), inputs=(value("image"),),
            outputs=(value("conv"),), modules=[twin("0", 0, value("image"), value("conv"))],
        ).load_own()  # fmt: skip
        report = pair.prove()
        if None in shape:
            assert report.verdict is Verdict.DIFFERENT
            assert report.first_wrong == "0"
        else:
            assert all(r.ok for r in report.layers)
            assert "right for this input size only" in report.layers[0].note


def test_functional_code_is_asked_in_a_wide_range(rng: np.random.Generator) -> None:
    """A relu6 in forward() has no module of its own, and is named by the layer that reads it, or by the model."""
    pair = shared_pair(rng, clip=None)
    for tensor in (pair.module.stage[1].weight, pair.module.stage[1].bias):
        tensor.data.mul_(0.01)
    pair.load_own()
    report = pair.prove()
    assert report.verdict is Verdict.DIFFERENT
    assert report.first_wrong == "head"
    assert "its input" in next(r.note for r in report.layers if r.torch == "head")


def test_layer_is_accepted_in_one_with_the_next_and_said_to_be(rng: np.random.Generator) -> None:
    """Keras' Conv2D with its activation inside: one claim covers both modules."""
    image = keras.Input((8, 8, 3), name="image")
    model = keras.Model(image, layers.Conv2D(4, 3, activation="relu", name="both")(image))
    pair = Pair(
        module=nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), model=model, example=(torch.zeros(1, 3, 8, 8),),
        weights=conv("both", "0", bias=True), inputs=(value("image"),), outputs=(value("both"),),
        modules=[replace(twin("1", 0, value("image"), value("both")), covers=(("0", 0),))],
    ).load_own()  # fmt: skip
    report = pair.prove()
    assert accepted(report)
    found = [d for d in report.differences if d.kind == "merged"]
    assert [(d.layers, d.effect) for d in found] == [(("0",), Effect.NOTHING)]


class Auxiliary(nn.Module):
    """A head that only trains, a buffer that inference reads, and one nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.aux = nn.Linear(4, 3), nn.Sequential(nn.Linear(4, 7), nn.BatchNorm1d(7))
        self.register_buffer("scale", torch.tensor(2.0))
        self.register_buffer("spare", torch.ones(5), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) * self.scale if not self.training else self.aux(x)


def auxiliary_pair() -> Pair:
    x = keras.Input((4,), name="x")
    y = layers.Dense(3, name="fc")(x)
    model = keras.Model(x, layers.Rescaling(2.0, name="scale")(y))
    return Pair(
        module=Auxiliary(), model=model, example=(torch.zeros(2, 4),), weights=dense("fc", "fc"),
        inputs=(value("x", PLAIN2),), outputs=(value("scale", PLAIN2),),
        modules=[twin("fc", 0, value("x", PLAIN2), value("fc", PLAIN2))],
    ).load_own()  # fmt: skip


def test_parameters_that_inference_does_not_use_are_a_named_gap() -> None:
    pair = auxiliary_pair()
    pair.module.train()
    report = pair.prove()
    assert accepted(report)
    assert [(g.reason, g.count, g.layers) for g in report.balance.gaps] == [
        ("parameters that inference does not use", -49, ("aux.0", "aux.1"))
    ]
    assert {d.kind for d in report.differences} == {"unused in inference", "buffer", "num_batches_tracked"}
    assert pair.module.training
    assert pair.module.fc.training


def test_statistic_behind_a_scale_of_zero_is_never_taken_for_an_unused_one(rng: np.random.Generator) -> None:
    """No number of the output shows it, but its module is called."""
    pair = shared_pair(rng)
    pair.module.stage[1].weight.data.zero_()
    pair.load_own()
    pair.weights = [w for w in pair.weights if w.variable != "moving_mean"]
    report = pair.prove()
    assert report.verdict is Verdict.DIFFERENT
    assert "stage.1.running_mean is nowhere in the Keras model" in str(report.differences)


def test_used_parameter_is_never_taken_for_an_unused_one() -> None:
    pair = auxiliary_pair()
    pair.weights = [w for w in pair.weights if w.variable != "bias"]
    report = pair.prove()
    assert report.verdict is Verdict.DIFFERENT
    assert "fc.bias is nowhere in the Keras model" in str(report.differences)


def test_tied_weights_count_once(rng: np.random.Generator) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(9, 4)
            self.head = nn.Linear(4, 9, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.head(self.embed(tokens))

    tokens = keras.Input((5,), dtype="int32", name="tokens")
    embed = layers.ReversibleEmbedding(9, 4, name="embed")
    model = keras.Model(tokens, embed(embed(tokens), reverse=True))
    pair = Pair(
        module=Tied(), model=model, example=(torch.tensor([[0, 8, 1, 2, 3]]),),
        weights=[Weight(layer="embed", variable="embeddings", tensors=("embed.weight",), make=lambda w: w)],
        inputs=(value("tokens", PLAIN2),), outputs=(value("embed", PLAIN3, call=1),),
        modules=[
            twin("embed", 0, value("tokens", PLAIN2), value("embed", PLAIN3)),
            twin("head", 0, value("embed", PLAIN3), value("embed", PLAIN3, call=1)),
        ],
        aliases={"head.weight": "embed.weight"},
    ).load_own()  # fmt: skip
    report = pair.prove()
    assert accepted(report)
    assert (report.balance.torch_total, report.balance.keras_total, report.balance.gaps) == (36, 36, ())


class Scaled(nn.Module):
    """A convolution of an image that isn't square, and a scale for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.scale = nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.scale * self.conv(x))


@pytest.mark.parametrize("right", [True, False])
def test_shape_that_keras_infers_wrongly_is_named(rng: np.random.Generator, right: bool) -> None:
    """Keras 3.15 turns the axes round that an EinsumDense's ellipsis stands for; its numbers are right."""
    module = Scaled()
    scatter(module, rng)
    equation = ("bhwc,c->bhwc", [5, 7, 4]) if right else ("...c,c->...c", [4])
    image = keras.Input((5, 7, 4), name="image")
    x = layers.Conv2D(4, 3, padding="same", name="conv")(image)
    x = layers.EinsumDense(equation[0], equation[1], name="scale")(x)
    model = keras.Model(image, layers.ReLU(name="relu")(x))
    assert model.output_shape == ((None, 5, 7, 4) if right else (None, 7, 5, 4))
    scale = Weight(layer="scale", variable="kernel", tensors=("scale",), make=lambda w: w.reshape(-1))
    pair = Pair(
        module=module,
        model=model,
        example=(torch.from_numpy(rng.normal(size=(2, 4, 5, 7)).astype("float32")),),
        weights=[*conv("conv", "conv", bias=True), scale],
        inputs=(value("image"),),
        outputs=(value("relu"),),
        modules=[twin("conv", 0, value("image"), value("conv"))],
    ).load_own()
    report = pair.prove()
    assert accepted(report)
    found = [(d.layers, d.torch, d.keras, d.effect) for d in report.differences if d.kind == "inferred shape"]
    assert found == ([] if right else [(("scale",), "(None, 5, 7, 4)", "(None, 7, 5, 4)", Effect.NOTHING)])
