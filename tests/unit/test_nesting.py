"""Very deep plans become models inside models, and stay one function."""

from __future__ import annotations

import keras
import numpy as np

from translator.emit import nesting
from translator.emit.keras_model import emit
from translator.emit.nesting import Block, depth, nest
from translator.plan.calls import LayerCall, LayerSpec, Plan, Ref, ValueInfo
from translator.types import Layout, Origin

INFO = ValueInfo(shape=(None, 3), dtype="float32", layout=Layout.identity(2))


def chain(length: int, blocks: int) -> Plan:
    """`length` additions of the input to the running value, in `blocks` modules."""
    calls, layers, value = [], [], "x"
    for i in range(length):
        block = f"block{i * blocks // length}" if blocks else ""
        scopes = (("", 0, "Net"), (block, 0, "Block")) if blocks else (("", 0, "Net"),)
        origin = Origin(module=block, scopes=scopes)
        layers.append(LayerSpec(name=f"add{i}", cls="Add", origin=origin))
        calls.append(LayerCall(layer=f"add{i}", args=([Ref(value), Ref("x")],), outputs=(f"add{i}",), origin=origin))
        value = f"add{i}"
    return Plan(
        name="net", inputs=(("x", "x"),), outputs=(("y", value),), layers=tuple(layers), calls=tuple(calls),
        values={"x": INFO, value: INFO}, output_layouts=(Layout.identity(2),),
    )  # fmt: skip


def test_a_shallow_plan_stays_flat() -> None:
    plan = chain(50, 5)
    assert depth(plan.calls) == 50
    assert nest(plan) == plan.calls


def test_a_deep_plan_is_cut_along_its_modules() -> None:
    items = nest(chain(nesting.LIMIT + 100, 7))
    assert [item.name for item in items if isinstance(item, Block)] == [f"block{i}" for i in range(7)]
    assert all(set(item.inputs) - {"x"} or item.name == "block0" for item in items if isinstance(item, Block))


def test_without_modules_it_is_cut_into_runs() -> None:
    items = nest(chain(nesting.LIMIT + 100, 0))
    assert all(isinstance(item, Block) for item in items)
    assert items[0].name == "part_0"


def test_the_nested_model_computes_the_same_and_tells_its_paths() -> None:
    length = nesting.LIMIT + 1
    emitted = emit(chain(length, 3), {})
    assert emitted.paths["add0"] == "block0/add0"
    assert {type(layer).__name__ for layer in emitted.model.layers} == {"InputLayer", "Functional"}
    x = np.array([[1.0, 2.0, -1.0]], np.float32)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(emitted.model(x)), x * (length + 1))
