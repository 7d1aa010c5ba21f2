"""Keras models as graphs of named calls, nested ones too."""

from __future__ import annotations

from collections import Counter

import keras
import numpy as np
import pytest
from keras import layers

from translator.claims import KerasValue
from translator.errors import InternalError, UnsupportedError
from translator.verify.keras_graph import graph_of
from translator.verify.keras_layers import find_variable, layers_by_path
from translator.verify.keras_replay import Replay, replay, segment, to_keras, to_numpy

F64 = np.float64


def nested_model() -> keras.Model:
    inner = keras.Input((4,), name="inner_in")
    act = layers.ReLU(name="act")
    stage = keras.Model(inner, act(layers.Dense(4, name="fc")(act(inner))), name="stage")
    x = keras.Input((4,), name="x")
    row = keras.Sequential([layers.Input((4,)), layers.Dense(4, name="only")], name="row")
    a, b = stage(x), stage(row(x))
    return keras.Model(x, layers.Add(name="add")([a, b]))


def test_every_call_of_a_nested_model_has_its_own_name() -> None:
    graph = graph_of(nested_model())
    calls = [(s.path, s.call) for s in graph.steps]
    assert sorted(calls) == sorted(
        [("stage/act", c) for c in range(4)] + [("stage/fc", 0), ("stage/fc", 1), ("row/only", 0), ("add", 0)]
    )
    assert graph.names[KerasValue(operation="stage", call=1)] == graph.names[KerasValue(operation="stage/act", call=3)]
    assert graph.names[KerasValue(operation="stage/inner_in")] == graph.inputs[0]
    assert graph.names[KerasValue(operation="row")] == graph.names[KerasValue(operation="stage/inner_in", call=1)]


def test_a_nested_model_of_two_inputs_is_entered() -> None:
    a, b = keras.Input((4,)), keras.Input((4,))
    inner = keras.Model([a, b], layers.Dense(3, name="dense")(a + b), name="inner")
    x = keras.Input((4,), name="x")
    graph = graph_of(keras.Model(x, inner([x, x * 2])))
    assert KerasValue(operation="inner/dense") in graph.names


def test_replay_of_a_nested_model_gives_what_the_model_gives(rng: np.random.Generator) -> None:
    model = nested_model()
    graph = graph_of(model)
    x = to_keras(rng.standard_normal((3, 4)), "float32")
    run_ = Replay(graph, {graph.inputs[0]: x}, Counter(graph.outputs))
    assert np.allclose(to_numpy(run_.take(graph.outputs[0])), to_numpy(model(x)), atol=1e-6)


def test_values_are_freed_when_nothing_can_ask_for_them(rng: np.random.Generator) -> None:
    x = y = keras.Input((4,), name="x")
    for _ in range(30):
        y = layers.ReLU()(y)
    graph = graph_of(keras.Model(x, y))
    run_ = Replay(graph, {graph.inputs[0]: to_keras(np.ones((1, 4)), "float32")}, Counter(graph.outputs))
    alive = 0
    for step in graph.steps:
        run_._compute(step.outputs[0]) if step.outputs[0] in graph.outputs else None
        alive = max(alive, len(run_.values))
    run_.take(graph.outputs[0])
    assert run_.values == {}
    with pytest.raises(InternalError, match="freed"):
        run_.take(graph.outputs[0])


def test_model_of_thousands_of_steps_needs_no_recursion() -> None:
    x = y = keras.Input((2,), name="x")
    blocks = []
    for b in range(30):
        z = w = keras.Input((2,), name=f"in{b}")
        for _ in range(80):
            w = layers.ReLU()(w)
        blocks.append(keras.Model(z, w, name=f"block{b}"))
        y = blocks[-1](y)
    graph = graph_of(keras.Model(x, y))
    assert len(graph.steps) == 2400
    run_ = Replay(graph, {graph.inputs[0]: to_keras(np.ones((1, 2)), "float32")}, Counter(graph.outputs))
    assert to_numpy(run_.take(graph.outputs[0])).tolist() == [[1.0, 1.0]]


def test_segment_holds_what_lies_between_and_names_what_comes_from_elsewhere() -> None:
    x = keras.Input((4,), name="x")
    a = layers.Dense(4, name="a")(x)
    b = layers.Dense(4, name="b")(a)
    side = layers.Dense(4, name="side")(x)
    c = layers.Add(name="c")([b, side])
    graph = graph_of(keras.Model(x, c))
    number = {name: graph.names[KerasValue(operation=name)] for name in ("x", "a", "b", "side", "c")}
    part = segment(graph, [number["a"]], [number["c"]])
    assert [graph.steps[i].path for i in part.steps] == ["b", "c"]
    assert part.outside == (number["side"],)
    assert part.computed == {number["c"]}
    apart = segment(graph, [number["b"]], [number["side"]])
    assert (apart.steps, apart.outside, apart.computed) == ((), (number["side"],), frozenset())
    fed = {number["a"]: to_keras(np.ones((1, 4)), "float32"), number["side"]: to_keras(np.zeros((1, 4)), "float32")}
    got = to_numpy(replay(graph, part, fed)[number["c"]])
    assert np.allclose(got, to_numpy(graph.steps[part.steps[0]].operation(fed[number["a"]])))


def test_subclassed_model_is_refused_here() -> None:
    class Own(keras.Model):
        def call(self, x):  # type: ignore[no-untyped-def]
            return x

    with pytest.raises(UnsupportedError, match="not a Functional"):
        graph_of(Own())


def test_variables_are_found_inside_layers_inside_layers() -> None:
    x = keras.Input((3, 4), name="x")
    y = layers.Bidirectional(layers.LSTM(2, name="inner"), name="both")(x)
    model = keras.Model(x, layers.Dense(2, name="fc")(y))
    paths = layers_by_path(model)
    both = paths["both"]
    for name in ("forward_layer.cell.kernel", "forward_inner/lstm_cell/kernel"):
        assert find_variable(both, name) is both.forward_layer.cell.kernel
    assert find_variable(both, "kernel") is None
    assert find_variable(paths["fc"], "kernel") is paths["fc"].kernel
    assert find_variable(paths["fc"], "gamma") is None
