"""The judge's parts, one by one: comparing, laying out, reading graphs, replaying, widening, booking."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, namedtuple
from dataclasses import dataclass

import keras
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from keras import layers
from torch import nn

from tests.unit.verify_pairs import residual_pair, value
from translator.claims import Claims, KerasValue, ParameterClaim
from translator.errors import InternalError, UnsupportedError
from translator.types import Layout
from translator.verify import ledger as books
from translator.verify.claim_index import index_claims
from translator.verify.compare import compare, lay_out
from translator.verify.inputs import first_row, proof_inputs, wide_inputs
from translator.verify.keras_graph import graph_of
from translator.verify.keras_layers import find_variable, layers_by_path
from translator.verify.keras_replay import Replay, replay, segment, to_keras, to_numpy
from translator.verify.precision import keras_float64, torch_float64
from translator.verify.torch_record import ModuleEvent, map_tensors, run, tensors_in
from translator.verify.weights import constant_names, randomised

F64 = np.float64


# ---------------------------------------------------------------- comparing


@pytest.mark.parametrize(
    ("got", "want", "words"),
    [
        (np.zeros(3), np.zeros((1, 3)), "shape"),
        (np.zeros((1, 3)), np.ones((3, 1)), "shape"),
        (np.zeros(3, np.float32), np.zeros(3), "computed in float32"),
        (np.zeros(3, np.int32), np.zeros(3), "dtype"),
        (np.zeros(3, bool), np.zeros(3, np.int64), "dtype"),
        (np.zeros(0), np.zeros(0), "empty"),
        (np.array([1.0, np.nan]), np.array([1.0, 2.0]), "NaN or infinity at 1"),
        (np.array([1.0, 2.0]), np.array([1.0, np.nan]), "NaN or infinity at 1"),
        (np.array([1.0, np.inf]), np.array([1.0, -np.inf]), "NaN or infinity at 1"),
        (np.array([np.nan, np.inf]), np.array([np.inf, np.nan]), "NaN or infinity at 2"),
        (np.array([1, 2], np.int32), np.array([1, 3]), "1 of 2 whole numbers"),
        (np.array([True]), np.array([False]), "1 of 1 whole numbers"),
    ],
)
def test_what_can_not_be_compared_is_never_within_a_limit(got: np.ndarray, want: np.ndarray, words: str) -> None:
    outcome = compare(got, want)
    assert words in outcome.problem
    assert not outcome.within(math.inf)


def test_nan_and_infinity_in_the_same_places_are_equal() -> None:
    array = np.array([1.0, np.nan, np.inf, -np.inf, 2.0])
    assert compare(array, array.copy()).within(0)
    everywhere = compare(np.full(3, np.nan), np.full(3, np.nan))
    assert everywhere.within(0)
    assert not everywhere.informative


def test_error_is_relative_to_the_largest_value_wanted() -> None:
    outcome = compare(np.array([100.0, 1.5]), np.array([100.0, 1.0]))
    assert (outcome.error, outcome.max_abs) == (0.005, 0.5)
    assert compare(np.array([0.1]), np.array([0.0])).error == math.inf
    assert compare(np.array([0.1]), np.array([0.0]), scale=10.0).error == 0.01


def test_integers_of_any_width_are_compared_exactly() -> None:
    big = 2**53 + 1
    assert compare(np.array([big, 3]), np.array([big, 3])).within(0)
    assert compare(np.array([7], np.int32), np.array([7])).within(0)
    assert not compare(np.array([big]), np.array([big - 1])).within(1)


@pytest.mark.parametrize(
    ("array", "informative"), [([1.0, 1.0], False), ([0.0, 0.0], False), ([1.0], True), ([1.0, 2.0], True)]
)
def test_constant_reference_is_not_informative(array: list[float], informative: bool) -> None:
    assert compare(np.array(array), np.array(array)).informative is informative


@given(st.permutations(range(4)), st.lists(st.integers(1, 4), min_size=4, max_size=4))
def test_layout_without_a_view_is_the_permutation(axes: list[int], shape: list[int]) -> None:
    tensor = torch.arange(math.prod(shape)).reshape(shape)
    laid_out = lay_out(tensor, Layout(axes=tuple(axes)), ())
    assert np.array_equal(laid_out, tensor.numpy().transpose(axes))
    assert laid_out.shape == Layout(axes=tuple(axes)).keras_shape(shape)


def test_layout_with_a_view_flattens_in_the_other_order() -> None:
    image = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    layout = Layout(axes=(0, 2, 3, 1), view=(None, 3, 4, 5))
    assert np.array_equal(
        lay_out(image.flatten(1), layout, (None, 60)), image.numpy().transpose(0, 2, 3, 1).reshape(2, 60)
    )
    pooled = lay_out(torch.ones(2, 3, 1, 1), Layout(axes=(0, 1), view=(None, 3)), (None, 3))
    assert pooled.shape == (2, 3)
    open_rows = Layout(axes=(0, 2, 3, 1), view=(None, 3, None, 5))
    assert np.array_equal(
        lay_out(image.flatten(1), open_rows, (None, 60)), lay_out(image.flatten(1), layout, (None, 60))
    )
    with pytest.raises(ValueError, match="can't be seen as"):
        lay_out(image.flatten(1), Layout(axes=(0, 2, 3, 1), view=(None, 3, None, None)), (None, 60))
    with pytest.raises(ValueError, match="can't be seen as"):
        lay_out(image.flatten(1), Layout(axes=(0, 1, 2), view=(None, 7, 5)), (None, 60))


# ---------------------------------------------------------------- Keras graphs


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


# ---------------------------------------------------------------- float64


def test_both_sides_are_back_in_float32_after_an_error(rng: np.random.Generator) -> None:
    pair = residual_pair(rng)
    graph = graph_of(pair.model)
    before = {k: v.clone() for k, v in pair.module.state_dict().items()}
    identity = {id(p) for p in pair.module.parameters()}
    seen = []

    def fail() -> None:
        with keras_float64(graph.operations), torch_float64(pair.module):
            seen.extend([pair.module.fc.weight.dtype, pair.layer("fc").compute_dtype])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert seen == [torch.float64, "float64"]
    assert {layer.compute_dtype for layer in pair.model.layers} == {"float32"}
    assert keras.config.floatx() == "float32"
    assert {id(p) for p in pair.module.parameters()} == identity
    assert all(torch.equal(v, before[k]) and v.dtype == before[k].dtype for k, v in pair.module.state_dict().items())


LAYERS = {
    "Conv2D": (lambda: layers.Conv2D(8, 3, groups=2), 4), "DepthwiseConv2D": (lambda: layers.DepthwiseConv2D(3), 4),
    "Conv2DTranspose": (lambda: layers.Conv2DTranspose(4, 3, strides=2), 4), "Conv1D": (lambda: layers.Conv1D(4, 3), 3),
    "LSTM": (lambda: layers.LSTM(3), 3), "GRU": (lambda: layers.GRU(3, return_sequences=True), 3),
    "Bidirectional": (lambda: layers.Bidirectional(layers.LSTM(3)), 3),
    "BatchNormalization": (layers.BatchNormalization, 4), "LayerNormalization": (layers.LayerNormalization, 4),
    "GroupNormalization": (lambda: layers.GroupNormalization(2), 4), "PReLU": (layers.PReLU, 4),
    "EinsumDense": (lambda: layers.EinsumDense("bwc,c->bwc", (5, 8)), 3), "Dropout": (lambda: layers.Dropout(0.5), 3),
    "UpSampling2D": (lambda: layers.UpSampling2D(2, interpolation="bilinear"), 4),
    "Resizing": (lambda: layers.Resizing(4, 9), 4), "GELU": (lambda: layers.Activation("gelu"), 3),
    "LeakyReLU": (lambda: layers.LeakyReLU(0.1), 3), "Embedding": (lambda: layers.Embedding(9, 4), 0),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layer_computes_in_float64_and_agrees_with_float32(name: str, rng: np.random.Generator) -> None:
    make, rank = LAYERS[name]
    layer = make()
    numbers = rng.standard_normal((2, 5, 5, 8)[4 - rank :]).astype("float32") if rank else rng.integers(0, 9, (2, 3))
    x = to_keras(numbers, "float32" if rank else "int32")
    layer(x)
    for variable in layer.weights:
        variable.assign(to_numpy(variable.value) + rng.uniform(0.1, 0.3, variable.shape).astype("float32"))
    want = to_numpy(layer(x))
    with keras_float64([layer]):
        got = to_numpy(layer(to_keras(numbers, "float64" if rank else "int32")))
    assert got.dtype == F64
    assert np.allclose(got, want, rtol=1e-5, atol=1e-6)
    if name not in ("Dropout", "Embedding"):
        assert not np.array_equal(got.astype("float32"), got)
    assert to_numpy(layer(x)).dtype == np.float32


# ---------------------------------------------------------------- PyTorch's record


class Listening:
    def __init__(self) -> None:
        self.seen: list[tuple[str, int, bool, list[float]]] = []

    def enter(self, event: ModuleEvent) -> bool:
        return True

    def leave(self, event: ModuleEvent, outputs: list[torch.Tensor]) -> dict[int, torch.Tensor]:
        self.seen.append((event.path, event.call, event.leaf, [float(t.flatten()[0]) for t in event.inputs]))
        return {0: outputs[0] + 100} if event.path == "first" else {}


def test_calls_are_seen_in_order_with_their_inputs_as_they_were() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.relu = nn.Identity(), nn.ReLU(inplace=True)
            self.second = self.first

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.relu(self.first(x) - 200))

    heard = Listening()
    module = Twice().train()
    (result,) = run(module, (torch.ones(2),), {}, heard)
    assert heard.seen == [
        ("first", 0, True, [1.0]), ("relu", 0, True, [-99.0]), ("first", 1, True, [0.0]), ("", 0, False, [1.0]),
    ]  # fmt: skip
    assert result.tolist() == [100.0, 100.0]
    assert module.training
    assert not module.relu._forward_hooks


Point = namedtuple("Point", "x y")


@dataclass
class Boxed:
    inner: torch.Tensor
    name: str = "n"


def test_tensors_are_found_and_changed_in_any_structure() -> None:
    one = torch.ones(1)
    structure = {"a": [one, (one, None)], "p": Point(one, 3), "o": OrderedDict(k=one), "b": Boxed(one)}
    assert len(tensors_in(structure)) == 5
    changed = map_tensors(lambda t: t * 2, structure)
    assert [float(t) for t in tensors_in(changed)] == [2.0] * 5
    assert isinstance(changed["p"], Point)
    assert isinstance(changed["o"], OrderedDict)
    assert changed["b"] == Boxed(changed["b"].inner, "n")


# ---------------------------------------------------------------- inputs and weights


def index_of(shape: tuple[int | None, ...], layout: Layout, dtype: str = "float32"):  # type: ignore[no-untyped-def]
    x = keras.Input(batch_shape=shape, dtype=dtype, name="x")
    model = keras.Model(x, layers.Identity(name="y")(x))
    return index_claims(Claims(inputs=(value("x", layout),), outputs=(value("y", layout),)), graph_of(model))


def test_example_keeps_its_rows_and_gets_more_like_them(rng: np.random.Generator) -> None:
    index = index_of((None, 4, 4, 3), Layout.channels_last(4))
    example = torch.rand(1, 3, 4, 4) + 5
    (made,), _ = proof_inputs((example,), {}, index, rng, 3)
    assert made.shape == (3, 3, 4, 4)
    assert torch.equal(made[:1], example)
    assert 4 < float(made[1:].mean()) < 7
    (zeros,), _ = proof_inputs((torch.zeros(1, 3, 4, 4),), {}, index, rng, 2)
    assert float(zeros.std()) > 0.5
    (one,), _ = first_row((made,), {}, index)
    assert torch.equal(one, made[:1])
    (broad,), _ = wide_inputs((example,), {}, index, rng, 1)
    assert broad.shape == (1, 3, 4, 4)
    assert float(broad.min()) < 0 < float(broad.max())


def test_integers_stay_in_the_range_of_the_example(rng: np.random.Generator) -> None:
    index = index_of((None, 6), Layout.identity(2), "int32")
    (made,), _ = proof_inputs((torch.tensor([[3, 4, 5, 6, 7, 7]]),), {}, index, rng, 4)
    assert made.shape == (4, 6)
    assert (int(made.min()), int(made.max())) == (3, 7)
    (ones,), _ = proof_inputs((torch.ones(1, 6, dtype=torch.long),), {}, index, rng, 2)
    assert ones.tolist() == [[1] * 6] * 2


def test_fixed_batch_is_kept(rng: np.random.Generator) -> None:
    index = index_of((1, 6), Layout.identity(2))
    (made,), _ = proof_inputs((torch.zeros(1, 6),), {}, index, rng, 4)
    assert made.shape == (1, 6)


def test_constant_tensors_become_random_on_both_sides_and_come_back(rng: np.random.Generator) -> None:
    pair = residual_pair(rng, fresh=True)
    names = constant_names(pair.module, pair.claims)
    assert names == [f"{n}.{t}" for n in ("bn", "block.bn1", "block.bn2") for t in ("weight", "bias")] + [
        f"{n}.{t}" for n in ("bn", "block.bn1", "block.bn2") for t in ("running_mean", "running_var")
    ]
    before = [to_numpy(v.value) for v in pair.model.weights]
    with randomised(pair.module, pair.model, pair.load, names, pair.claims, 0):
        var = pair.module.bn.running_var
        assert float(var.min()) > 0
        assert float(var.std()) > 0
        assert np.array_equal(to_numpy(pair.variable("bn", "moving_variance").value), var.numpy())
    assert pair.module.bn.running_var.tolist() == [1.0] * 6
    assert all(np.array_equal(a, to_numpy(v.value)) for a, v in zip(before, pair.model.weights, strict=True))


# ---------------------------------------------------------------- the ledger


def test_one_tensor_cut_into_two_variables_is_booked_in_parts(rng: np.random.Generator) -> None:
    module = nn.Linear(3, 4, bias=False)
    x = keras.Input((3,), name="x")
    parts = [layers.Dense(2, use_bias=False, name=n)(x) for n in ("a", "b")]
    model = keras.Model(x, parts)
    weight = module.weight.detach().numpy()
    for name, rows in (("a", weight[:2]), ("b", weight[2:])):
        model.get_layer(name).kernel.assign(rows.T)

    def book(**counts: int) -> books.Ledger:
        claims = tuple(
            ParameterClaim(layer=n, variable="kernel", tensors=("weight",), counts=(c,)) for n, c in counts.items()
        )
        return books.keep_books(module, model, Claims(inputs=(), outputs=(), parameters=claims))

    right = book(a=6, b=6)
    assert (right.wrong, books.balance(right).unexplained) == ({}, 0)
    assert "only in part" in str(book(a=6).wrong)
    assert "more than once" in str(book(a=12, b=12).wrong)
    model.get_layer("b").kernel.assign(weight[:2].T)
    assert "does not hold the numbers of weight" in str(book(a=6, b=6).wrong)


def test_variable_that_no_tensor_explains_leaves_the_balance_open() -> None:
    x = keras.Input((3,), name="x")
    model = keras.Model(x, layers.Dense(2, name="fc")(x))
    module = nn.Linear(3, 2, bias=False)
    model.get_layer("fc").kernel.assign(module.weight.detach().numpy().T)
    kernel = ParameterClaim(layer="fc", variable="kernel", tensors=("weight",))
    open_books = books.keep_books(module, model, Claims(inputs=(), outputs=(), parameters=(kernel,)))
    assert books.balance(open_books).unexplained == 2
    assert "belongs to no PyTorch tensor" in open_books.wrong["fc"]
    bias = ParameterClaim(layer="fc", variable="bias", tensors=(), how="constant")
    closed = books.keep_books(module, model, Claims(inputs=(), outputs=(), parameters=(kernel, bias)))
    assert books.balance(closed).unexplained == 0
    assert [(g.reason, g.count) for g in books.balance(closed).gaps] == [("biases that only Keras has", 2)]
    assert closed.wrong == {}


def test_random_generators_are_no_weights() -> None:
    x = keras.Input((3,), name="x")
    model = keras.Model(x, layers.Dropout(0.5)(x))
    ledger = books.keep_books(nn.Dropout(0.5), model, Claims(inputs=(), outputs=()))
    assert (books.balance(ledger).keras_total, ledger.wrong) == (0, {})
