"""Right pairs of attention and of functional code are accepted, and judged in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import torch
from keras import layers
from torch import nn

from tests.unit.verify_pairs import (
    NHWC,
    PLAIN2,
    PLAIN3,
    Pair,
    Weight,
    accepted,
    twin,
    value,
)
from translator.claims import Claims
from translator.types import Layout
from translator.verdict import Verdict


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        return x + self.attention(y, y, y, need_weights=False)[0]


def test_attention_with_a_packed_projection_is_accepted() -> None:
    x = keras.Input((5, 8), name="x")
    y = layers.LayerNormalization(epsilon=1e-5, name="norm")(x)
    z = layers.MultiHeadAttention(2, 4, name="attention")(y, y, y)
    model = keras.Model(x, layers.Add(name="add")([x, z]))

    def part(n: int) -> Callable[[np.ndarray], np.ndarray]:
        def cut(w: np.ndarray) -> np.ndarray:
            w = w[8 * n : 8 * n + 8]
            return w.T.reshape(8, 2, 4) if w.ndim == 2 else w.reshape(2, 4)

        return cut

    weights = [
        Weight(layer="norm", variable="gamma", tensors=("norm.weight",), make=lambda w: w),
        Weight(layer="norm", variable="beta", tensors=("norm.bias",), make=lambda w: w),
    ]
    for n, name in enumerate(("query", "key", "value")):
        for variable, tensor, count in (("kernel", "in_proj_weight", 64), ("bias", "in_proj_bias", 8)):
            weights.append(
                Weight(
                    layer=f"attention/{name}",
                    variable=variable,
                    tensors=(f"attention.{tensor}",),
                    make=part(n),
                    counts=(count,),
                )
            )
    out = "attention/attention_output"
    weights.append(
        Weight(
            layer=out, variable="kernel", tensors=("attention.out_proj.weight",), make=lambda w: w.T.reshape(2, 4, 8)
        )
    )
    weights.append(Weight(layer=out, variable="bias", tensors=("attention.out_proj.bias",), make=lambda w: w))
    pair = AttentionPair(
        module=Attention(), model=model, example=(torch.zeros(1, 5, 8),), weights=weights,
        inputs=(value("x", PLAIN3),), outputs=(value("add", PLAIN3),),
        modules=[
            twin("norm", 0, value("x", PLAIN3), value("norm", PLAIN3)),
            twin("attention", 0, (value("norm", PLAIN3),) * 3, value("attention", PLAIN3)),
        ],
    ).load_own()  # fmt: skip
    report = pair.prove()
    assert accepted(report)
    assert report.balance.torch_total == report.balance.keras_total
    row = next(r for r in report.layers if r.torch == "attention")
    assert (row.params_torch, row.ok) == (288, True)
    pair.variable("attention/query", "kernel").assign(part(1)(pair.module.attention.in_proj_weight.detach().numpy()))
    wrong = pair.prove()
    assert wrong.first_wrong == "attention"


@dataclass(kw_only=True)
class AttentionPair(Pair):
    """Its layers lie inside a layer."""

    def layer(self, path: str) -> keras.layers.Layer:
        first, _, inner = path.partition("/")
        layer = self.model.get_layer(first)
        return (
            getattr(
                layer,
                {"query": "_query_dense", "key": "_key_dense", "value": "_value_dense"}.get(inner, "_output_dense"),
            )
            if inner
            else layer
        )


def test_model_that_is_one_function_needs_no_module() -> None:
    class Function(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.tanh(x) * 2, x.argmax(1)

    x = keras.Input((6,), name="x")
    model = keras.Model(x, [keras.ops.tanh(x) * 2.0, keras.ops.argmax(x, axis=1)])
    names = [t._keras_history.operation.name for t in model.outputs]
    claims = Claims(
        inputs=(value("x", PLAIN2),), outputs=(value(names[0], PLAIN2), value(names[1], Layout.identity(1)))
    )
    pair = Pair(
        module=Function(), model=model, example=(torch.zeros(1, 6),), weights=[], inputs=claims.inputs,
        outputs=claims.outputs, modules=[],
    )  # fmt: skip
    report = pair.prove()
    assert report.verdict is Verdict.EQUAL, report.checks
    assert [r.torch for r in report.layers] == ["(model)"]


def test_bilinear_resizing_is_judged_in_float64(rng: np.random.Generator) -> None:
    """TensorFlow resizes in float32 only; the judge does it in float64, and the float32 run tests TensorFlow's own."""
    image = keras.Input((7, 6, 3), name="image")
    resized = keras.ops.image.resize(image, (10, 11), interpolation="bilinear")
    model = keras.Model(image, resized)
    name = resized._keras_history.operation.name
    pair = Pair(
        module=nn.Sequential(nn.Upsample(size=(10, 11), mode="bilinear")), model=model,
        example=(torch.zeros(1, 3, 7, 6),), weights=[], inputs=(value("image"),), outputs=(value(name),),
        modules=[twin("0", 0, value("image"), value(name, NHWC))],
    )  # fmt: skip
    report = pair.prove()
    assert accepted(report)
    assert report.layers[0].error_f64 < 1e-12  # type: ignore[operator]
    assert 0 < report.layers[0].error_f32 < 1e-6  # type: ignore[operator]


def test_casts_to_float32_inside_a_model_are_full_precision_in_both_runs() -> None:
    class Upcast(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x.to(torch.float32) * 3).float().softmax(-1, dtype=torch.float32)

    x = keras.Input((6,), name="x")
    model = keras.Model(x, keras.ops.softmax(keras.ops.cast(x, "float32") * 3.0))
    name = model.outputs[0]._keras_history.operation.name
    pair = Pair(
        module=Upcast(), model=model, example=(torch.zeros(1, 6),), weights=[], inputs=(value("x", PLAIN2),),
        outputs=(value(name, PLAIN2),), modules=[],
    )  # fmt: skip
    assert pair.prove().verdict is Verdict.EQUAL


def test_module_without_a_twin_that_the_result_does_not_need_is_only_noted() -> None:
    class Dead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.dead = nn.Tanh(), nn.Sigmoid()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.dead(x)
            return self.used(x)

    x = keras.Input((6,), name="x")
    model = keras.Model(x, layers.Activation("tanh", name="tanh")(x))
    pair = Pair(
        module=Dead(), model=model, example=(torch.zeros(1, 6),), weights=[], inputs=(value("x", PLAIN2),),
        outputs=(value("tanh", PLAIN2),), modules=[twin("used", 0, value("x", PLAIN2), value("tanh", PLAIN2))],
    )  # fmt: skip
    report = pair.prove()
    assert report.verdict is Verdict.EQUAL
    assert any("dead" in note for note in report.notes)
