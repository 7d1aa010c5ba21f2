"""ONNX models written by hand: small, each with something that a file can have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64, FLOAT16 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.FLOAT16
Port = tuple[str, int, Sequence[int | str] | None]
node = helper.make_node


def model(
    nodes: Sequence[onnx.NodeProto], inputs: Sequence[Port], outputs: Sequence[Port], weights: Mapping[str, Any],
    opset: int = 20,
) -> onnx.ModelProto:  # fmt: skip
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(*port) for port in inputs],
        [helper.make_tensor_value_info(*port) for port in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def small(weight: str = "conv.weight", **settings: Any) -> onnx.ModelProto:
    """A convolution and an activation."""
    nodes = [node("Conv", ["x", weight, "b"], ["c"], name="first"), node("Relu", ["c"], ["y"], name="second")]
    inputs = settings.pop("inputs", [("x", FLOAT, ["batch", 3, 6, 6])])
    return model(nodes, inputs, [("y", FLOAT, None)], {weight: numbers(4, 3, 3, 3), "b": numbers(4)}, **settings)


def two_inputs_and_outputs() -> onnx.ModelProto:
    nodes = [
        node("Conv", ["x", "W", "b"], ["c"], pads=[1, 1, 1, 1]), node("Relu", ["c"], ["r"]),
        node("GlobalAveragePool", ["r"], ["g"]), node("Flatten", ["g"], ["f"]), node("Add", ["z", "f"], ["s"]),
        node("Gemm", ["s", "G", "gb"], ["q"], transB=1), node("Sigmoid", ["q"], ["p"]),
    ]  # fmt: skip
    weights = {"W": numbers(4, 3, 3, 3), "b": numbers(4), "G": numbers(5, 4), "gb": numbers(5)}
    inputs = [("x", FLOAT, ["batch", 3, 8, 8]), ("z", FLOAT, ["batch", 4])]
    return model(nodes, inputs, [("p", FLOAT, ["batch", 5]), ("r", FLOAT, ["batch", 4, 8, 8])], weights)


def shared_weight() -> onnx.ModelProto:
    nodes = [node("MatMul", ["x", "W"], ["a"]), node("Relu", ["a"], ["r"]), node("MatMul", ["r", "W"], ["y"])]
    return model(nodes, [("x", FLOAT, ["batch", 4])], [("y", FLOAT, None)], {"W": numbers(4, 4)})


def tokens() -> onnx.ModelProto:
    """Whole numbers in, looked up in a table; the mean of normalised rows out."""
    nodes = [
        node("Gather", ["E", "ids"], ["e"]), node("Add", ["e", "P"], ["s"]),
        node("LayerNormalization", ["s", "lw", "lb"], ["l"], axis=-1),
        node("ReduceMean", ["l", "ax"], ["m"], keepdims=0), node("Gemm", ["m", "G"], ["y"]),
    ]  # fmt: skip
    weights = {
        "E": numbers(50, 8), "P": numbers(1, 5, 8), "lw": numbers(8, seed=1), "lb": numbers(8), "ax": np.array([1]),
        "G": numbers(8, 3),
    }  # fmt: skip
    return model(nodes, [("ids", INT64, ["batch", 5])], [("y", FLOAT, ["batch", 3])], weights)


def sizes_in_the_graph() -> onnx.ModelProto:
    """A shape computed from the input's, and a weight repeated for each row."""
    nodes = [
        node("Shape", ["x"], ["s"], start=0, end=1), node("Concat", ["s", "six"], ["t"], axis=0),
        node("Reshape", ["x", "t"], ["r"]), node("Concat", ["s", "one"], ["u"], axis=0),
        node("Expand", ["k", "u"], ["e"]), node("Concat", ["e", "r"], ["y"], axis=1),
    ]  # fmt: skip
    weights = {"six": np.array([6]), "one": np.array([1]), "k": numbers(1, 1)}
    return model(nodes, [("x", FLOAT, ["batch", 2, 3])], [("y", FLOAT, None)], weights)


def no_double_kernels() -> onnx.ModelProto:
    """Ops that ONNX Runtime computes in float32 alone."""
    names = "abcdefghijk"
    nodes = [
        node("Elu", ["x"], ["a"], alpha=0.7), node("HardSigmoid", ["x"], ["b"]), node("Softplus", ["x"], ["c"]),
        node("PRelu", ["x", "s"], ["d"]), node("Selu", ["x"], ["e"]), node("HardSwish", ["x"], ["f"]),
        node("LRN", ["x"], ["g"], size=3), node("InstanceNormalization", ["x", "v", "w"], ["h"]),
        node("AveragePool", ["x"], ["i"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("ConvTranspose", ["x", "T"], ["j"], pads=[1, 1, 1, 1]), node("Selu", ["x"], ["k"], alpha=1.6732636),
        node("Sum", list(names), ["y"]),
    ]  # fmt: skip
    weights = {"s": numbers(4, 1, 1), "v": numbers(4), "w": numbers(4, seed=1), "T": numbers(4, 4, 3, 3)}
    return model(nodes, [("x", FLOAT, ["batch", 4, 5, 5])], [("y", FLOAT, None)], weights)


def old() -> onnx.ModelProto:
    """Opset 9: an Upsample, and a BatchNorm with names as PyTorch has them."""
    nodes = [
        node("Conv", ["x", "conv.weight"], ["a"]),
        node("BatchNormalization", ["a", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"], ["n"]),
        node("Upsample", ["n", "scales"], ["u"], mode="nearest"), node("Dropout", ["u"], ["d"]),
        node("Relu", ["d"], ["y"]),
    ]  # fmt: skip
    weights = {
        "conv.weight": numbers(4, 3, 3, 3), "bn.weight": numbers(4), "bn.bias": numbers(4, seed=1),
        "bn.running_mean": numbers(4, seed=2), "bn.running_var": np.abs(numbers(4, seed=3)) + 0.5,
        "scales": np.array([1, 1, 2, 2], np.float32),
    }  # fmt: skip
    return model(nodes, [("x", FLOAT, ["batch", 3, 6, 6])], [("y", FLOAT, None)], weights, opset=9)


def half() -> onnx.ModelProto:
    nodes = [node("MatMul", ["x", "W"], ["a"]), node("Relu", ["a"], ["y"])]
    weights = {"W": numbers(4, 3).astype(np.float16)}
    return model(nodes, [("x", FLOAT16, ["batch", 4])], [("y", FLOAT16, None)], weights)


def float64_inside() -> onnx.ModelProto:
    """A scalar input, and float64 between two casts."""
    nodes = [
        node("Cast", ["x"], ["d"], to=TensorProto.DOUBLE), node("Mul", ["d", "W"], ["m"]),
        node("Cast", ["m"], ["f"], to=FLOAT), node("CastLike", ["k", "f"], ["l"]), node("Neg", ["l"], ["n"]),
        node("Add", ["f", "n"], ["a"]), node("Mul", ["a", "s"], ["y"]),
    ]  # fmt: skip
    weights = {"W": numbers(4).astype(np.float64), "k": np.array([2, 3, 4, 5])}
    return model(nodes, [("x", FLOAT, ["batch", 4]), ("s", FLOAT, [])], [("y", FLOAT, None)], weights)


def lstm() -> onnx.ModelProto:
    """One direction, of which ONNX Runtime finds out while it runs that it has no float64 for it."""
    nodes = [node("LSTM", ["x", "W", "R"], ["", "h"], hidden_size=4), node("Squeeze", ["h", "zero"], ["y"])]
    weights = {"W": numbers(1, 16, 3), "R": numbers(1, 16, 4), "zero": np.array([0])}
    return model(nodes, [("x", FLOAT, [5, 2, 3])], [("y", FLOAT, None)], weights)


def odd_names() -> onnx.ModelProto:
    """Names that a module path can't hold, or that are another's beginning."""
    nodes = [
        node("MatMul", ["x", "a..b"], ["p"], name="///"), node("Add", ["p", ".c"], ["q"], name="1 2 é"),
        node("MatMul", ["q", "layers.steps"], ["r"]), node("Mul", ["r", "layers"], ["y"]),
    ]  # fmt: skip
    weights = {"a..b": numbers(4, 5), ".c": numbers(5), "layers.steps": numbers(5, 3), "layers": numbers(3)}
    return model(nodes, [("x", FLOAT, ["batch", 4])], [("y", FLOAT, None)], weights)


def several_outputs_of_a_node() -> onnx.ModelProto:
    nodes = [
        node("Split", ["x"], ["a", "b", "c"], axis=1, num_outputs=3), node("Mul", ["c", "a"], ["m"]),
        node("TopK", ["m", "k"], ["v", "i"]), node("Cast", ["i"], ["f"], to=FLOAT), node("Mul", ["f", "W"], ["y"]),
    ]  # fmt: skip
    weights = {"k": np.array([2]), "W": numbers(2)}
    return model(nodes, [("x", FLOAT, ["batch", 9])], [("y", FLOAT, None)], weights)


def branch(*, known: bool) -> onnx.ModelProto:
    """An If, whose condition is a constant or depends on the input."""
    unknown = [FLOAT, None]
    then = helper.make_graph([node("Mul", ["x", "W"], ["t"])], "t", [], [helper.make_tensor_value_info("t", *unknown)])
    other = helper.make_graph([node("Neg", ["x"], ["e"])], "e", [], [helper.make_tensor_value_info("e", *unknown)])
    before = [] if known else [node("ReduceSum", ["x"], ["s"], keepdims=0), node("Greater", ["s", "zero"], ["c"])]
    choice = node("If", ["c"], ["y"], name="choice", then_branch=then, else_branch=other)
    weights: dict[str, Any] = {"W": numbers(4), **({"c": np.ones((), bool)} if known else {"zero": np.float32(0)})}
    return model([*before, choice], [("x", FLOAT, ["batch", 4])], [("y", FLOAT, ["batch", 4])], weights)


def one_op(op: str, inputs: Sequence[Port], **attributes: Any) -> onnx.ModelProto:
    """One node that reads the inputs."""
    names = [name for name, _, _ in inputs]
    domain, kind = attributes.pop("domain", ""), attributes.pop("kind", FLOAT)
    made = model([node(op, names, ["y"], name="it", domain=domain, **attributes)], inputs, [("y", kind, None)], {})
    if domain:
        made.opset_import.append(helper.make_opsetid(domain, 1))
    return made


def saved(proto: onnx.ModelProto, folder: Path, name: str = "net.onnx") -> str:
    """The path of the model's file."""
    onnx.save(proto, folder / name)
    return str(folder / name)
