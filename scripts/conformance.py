"""The official ONNX backend tests (`onnx.backend.test`) through the native engine: each passes, or is refused by code.

    scripts/conformance.py                          every test; writes out/conformance.jsonl and the table in docs/
    scripts/conformance.py node --only softmax      a part
    scripts/conformance.py --quick                  every ninth node test: the part that the project's tests run

A test passes if the Keras model puts out the expected numbers within the test's own tolerance. Inputs stay inputs where
they can. Where an op takes a shape, an axis or a weight as an input, and Keras has that as a setting or a weight of a
layer, the test is tried again with those given as initializers, as they stand in real models; the table counts such
tests apart. What differs in float32 is computed once more in float64, as the proof does: if that is within the same
tolerance, the difference was rounding, and the table counts the test apart, too. Exit status 1 if any result is wrong
or any test crashes.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")
PASSED, FIXED, DOUBLE = "passed", "passed, settings fixed", "passed, in float64"
REFUSED, WRONG, CRASHED = "refused", "wrong", "crashed"
OUTSIDE = ("dtype", "string-type", "sequence-type", "optional-type", "training-op", "control-flow", "random", "ml-op")
"""Reasons that lie outside float, int and bool tensors and the ops of inference."""

_TRAINING = frozenset({
    "Adagrad", "Adam", "Gradient", "Momentum", "NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss",
})  # fmt: skip
_RANDOM = frozenset({
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
})  # fmt: skip
_NUMBERS = frozenset({
    "FLOAT", "DOUBLE", "FLOAT16", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "BOOL",
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One test: its model, and pairs of inputs and expected outputs."""

    name: str
    kind: str
    model: Any
    data: list[tuple[list[Any], list[Any]]]
    rtol: float
    atol: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a test. reason: a code where it was refused. message: the first line of what was said."""

    name: str
    kind: str
    op: str
    status: str
    reason: str = ""
    message: str = ""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(KINDS)}; all by default")
    parser.add_argument("--only", default="", help="tests whose name matches this pattern")
    parser.add_argument("--quick", action="store_true", help="every ninth node test, and all of the other kinds")
    parser.add_argument("--output", default=str(ROOT / "out" / "conformance.jsonl"))
    parser.add_argument("--table", default="", help="write the Markdown table here (docs/conformance.md)")
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    results = judged(list(cases(options.kinds or KINDS, options.only, quick=options.quick)), Path(options.output))
    text = table(results)
    print(text)
    print(f"{len(results)} tests in {time.perf_counter() - start:.0f} s")
    if options.table:
        Path(options.table).write_text(text, encoding="utf-8")
    return int(any(r.status in (WRONG, CRASHED) for r in results))


def judged(todo: Sequence[Case], output: Path) -> list[Result]:
    """The result of each test, shown as it comes and written at once."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    output.parent.mkdir(parents=True, exist_ok=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    results: list[Result] = []
    seen: Counter[str] = Counter()
    with output.open("w", encoding="utf-8") as file, Progress(*columns) as progress:
        task = progress.add_task("conformance", total=len(todo))
        for case in todo:
            results.append(judge(case))
            seen[results[-1].status] += 1
            file.write(json.dumps(asdict(results[-1])) + "\n")
            file.flush()
            counts = ", ".join(f"{count} {status}" for status, count in seen.most_common())
            progress.update(task, advance=1, description=counts)
            if results[-1].status in (WRONG, CRASHED):
                progress.console.print(f"{results[-1].status}: {case.name}: {results[-1].message}", markup=False)
    return results


def cases(kinds: Iterable[str], only: str = "", *, quick: bool = False) -> Iterator[Case]:
    """The tests of some kinds, in the order of their names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        found = {kind: sorted(load_model_tests(kind=kind), key=lambda t: t.name) for kind in kinds}
    for kind, tests in found.items():
        for test in tests[::9] if quick and kind == "node" else tests:
            if re.search(only, test.name):
                yield _case(kind, test)


def _case(kind: str, test: Any) -> Case:
    import onnx

    model, data = test.model, test.data_sets
    if model is None:
        folder = Path(test.model_dir)
        model = onnx.load(folder / "model.onnx")
        data = [_data(model, path) for path in sorted(folder.glob("test_data_set_*"))]
    data = [([_array(v) for v in inputs], [_array(v) for v in outputs]) for inputs, outputs in data]
    return Case(name=test.name, kind=kind, model=model, data=data, rtol=test.rtol, atol=test.atol)


def _array(value: Any) -> Any:
    import onnx

    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _data(model: Any, folder: Path) -> tuple[list[Any], list[Any]]:
    """Tensors of one data set; anything else stays undecoded, since its type is refused before."""
    from onnx import TensorProto, numpy_helper

    def read(prefix: str) -> list[Any]:
        found = []
        for number in range(len(list(folder.glob(f"{prefix}_*.pb")))):
            tensor = TensorProto.FromString((folder / f"{prefix}_{number}.pb").read_bytes())
            found.append(numpy_helper.to_array(tensor))
        return found

    plain = all(v.type.HasField("tensor_type") for v in (*model.graph.input, *model.graph.output))
    return (read("input"), read("output")) if plain else ([], [])


def judge(case: Case) -> Result:
    """Run one test."""
    from translator.errors import UnsupportedError

    op = case.model.graph.node[0].op_type if case.model.graph.node else ""
    reason = outside(case)
    if reason:
        return Result(name=case.name, kind=case.kind, op=op, status=REFUSED, reason=reason)
    refusal = None
    for fixed in attempts(case):
        try:
            message, double = mismatch(case, fixed)
        except UnsupportedError as error:
            refusal = error
            continue
        except Exception as error:  # noqa: BLE001 - a crash is a result here, and makes the run fail
            text = f"{type(error).__name__}: {_first(error)}"
            return Result(name=case.name, kind=case.kind, op=op, status=CRASHED, message=text)
        status = WRONG if message else DOUBLE if double else FIXED if fixed else PASSED
        return Result(name=case.name, kind=case.kind, op=op, status=status, message=message)
    assert refusal is not None
    return Result(
        name=case.name, kind=case.kind, op=op, status=REFUSED, reason=refusal.reason, message=_first(refusal)
    )  # fmt: skip


def outside(case: Case) -> str:
    """The code of a test that isn't about numbers or about inference; "" for all others."""
    from onnx import TensorProto

    graph = case.model.graph
    ops = {node.op_type for node in graph.node}
    if any(o.domain.startswith("ai.onnx.ml") for o in case.model.opset_import):
        return "ml-op"
    if any(o.domain.startswith("ai.onnx.preview.training") for o in case.model.opset_import) or ops & _TRAINING:
        return "training-op"
    if ops & _RANDOM:
        return "random"
    if any(_trains(node) for node in graph.node):
        return "training-op"
    if any(op.startswith("Optional") for op in ops):
        return "optional-type"
    for value in (*graph.output, *graph.input):
        kind = value.type.WhichOneof("value")
        if kind in ("sequence_type", "optional_type"):
            return kind.replace("_", "-")
        if kind == "tensor_type":
            name = TensorProto.DataType.Name(value.type.tensor_type.elem_type)
            if name not in _NUMBERS:
                return "string-type" if name == "STRING" else "dtype"
    return ""


def _trains(node: Any) -> bool:
    attributes = {a.name: a.i for a in node.attribute}
    if node.op_type == "BatchNormalization":
        return bool(attributes.get("training_mode", 0))
    return node.op_type == "Dropout" and len(node.input) > 2 and bool(node.input[2])


def attempts(case: Case) -> list[frozenset[str]]:
    """Which inputs to give as initializers: none; whole numbers that set something; all but the first."""
    graph = case.model.graph
    given = {t.name for t in graph.initializer}
    names = [v.name for v in graph.input if v.name not in given]
    arrays = dict(zip(names, case.data[0][0], strict=False)) if case.data else {}
    settings = frozenset(
        n for n in names[1:] if n in arrays and arrays[n].ndim <= 1 and arrays[n].dtype.kind in "iu"
    )  # fmt: skip
    rest = frozenset(names[1:])
    return list(dict.fromkeys((frozenset(), settings, rest)))


def mismatch(case: Case, fixed: frozenset[str]) -> tuple[str, bool]:
    """What differs from the expected outputs, "" if nothing does; if that took float64. Raises UnsupportedError."""
    from translator.capture.onnx_model import onnx_model
    from translator.engines.native import known_ops, translate_captured

    model = with_initializers(case, fixed)
    names = [v.name for v in model.graph.input if v.name not in {t.name for t in model.graph.initializer}]
    ready = onnx_model(model, known=known_ops(), name=re.sub(r"\W", "_", case.name))
    result = translate_captured(ready.captured(), ready.weights)
    before = [v.name for v in case.model.graph.input if v.name not in {t.name for t in case.model.graph.initializer}]
    double = False
    for inputs, outputs in case.data:
        fed = [array for name, array in zip(before, inputs, strict=False) if name in names]
        problem = differs(run(result, fed), outputs, case)
        if problem and any(array.dtype == "float32" for array in outputs):
            double = True
            problem = differs(run_in_float64(result, fed), outputs, case)
        if problem:
            return problem, double
    return "" if case.data else "no data", double


def differs(got: Sequence[Any], outputs: Sequence[Any], case: Case) -> str:
    """The first output that isn't as expected, and how; "" if all are."""
    problems = [compare(have, want, case) for have, want in zip(got, outputs, strict=True)]
    return next((f"output {number}: {problem}" for number, problem in enumerate(problems) if problem), "")


def with_initializers(case: Case, fixed: frozenset[str]) -> Any:
    """The model with some inputs given as initializers."""
    import onnx

    if not fixed:
        return case.model
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    given = {t.name for t in model.graph.initializer}
    names = [v.name for v in model.graph.input if v.name not in given]
    for name, array in zip(names, case.data[0][0], strict=False):
        if name in fixed:
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    kept = [v for v in model.graph.input if v.name not in fixed]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return model


def run(result: Any, inputs: list[Any]) -> list[Any]:
    """Feed the Keras model, each input laid out as claimed; its outputs in ONNX' order."""
    import numpy as np

    fed = [np.transpose(a, c.layout.axes) for a, c in zip(inputs, result.claims.inputs, strict=True)]
    outputs = result.model(fed[0] if len(fed) == 1 else fed, training=False)
    several = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
    return in_onnx_order(result, several)


def run_in_float64(result: Any, inputs: list[Any]) -> list[Any]:
    """The same in float64, on the float32 weights and inputs."""
    import numpy as np

    from translator.verify.keras_record import graph_of_any
    from translator.verify.keras_replay import replay, segment, to_keras
    from translator.verify.precision import keras_float64

    graph = graph_of_any(result.model)
    fed = [np.transpose(a, c.layout.axes) for a, c in zip(inputs, result.claims.inputs, strict=True)]
    with keras_float64(graph.operations):
        given = [to_keras(a, "float64" if a.dtype.kind == "f" else a.dtype.name) for a in fed]
        values = replay(graph, segment(graph, graph.inputs, graph.outputs), dict(zip(graph.inputs, given, strict=True)))
    return in_onnx_order(result, [values[number] for number in graph.outputs])


def in_onnx_order(result: Any, outputs: list[Any]) -> list[Any]:
    """The Keras model's outputs as arrays whose axes stand as ONNX has them."""
    import numpy as np

    arrays = [np.asarray(v) for v in outputs]
    return [np.transpose(a, np.argsort(c.layout.axes)) for a, c in zip(arrays, result.claims.outputs, strict=True)]


def compare(have: Any, want: Any, case: Case) -> str:
    """Shape, kind of number, then the test's own tolerance. Float widths are the model's own."""
    import numpy as np

    want = np.asarray(want)
    if have.shape != want.shape:
        return f"shape {have.shape}, not {want.shape}"
    if have.dtype.kind != want.dtype.kind:
        return f"dtype {have.dtype}, not {want.dtype}"
    if want.dtype.kind != "f":
        return "" if np.array_equal(have, want) else f"{int((have != want).sum())} of {want.size} differ"
    # What doesn't fit a narrower float is an infinity there, as it is in the test.
    with np.errstate(over="ignore"):
        have = have.astype(want.dtype)
    atol = max(case.atol, 1e-3 if want.dtype.itemsize == 2 else 0.0)
    close = np.isclose(have, want, rtol=case.rtol, atol=atol, equal_nan=True)
    if close.all():
        return ""
    return f"{int((~close).sum())} of {want.size} differ, by up to {np.nanmax(np.abs(have - want)):.2e}"


def table(results: list[Result]) -> str:
    """The results as Markdown."""
    lines = [
        "# ONNX conformance",
        "",
        "Generated by `scripts/conformance.py --table docs/conformance.md`: the tests of `onnx.backend.test`, each",
        "through the native engine, judged by its own tolerance. *Settings fixed*: shapes, axes or weights that the",
        "test gives as inputs were given as initializers, as real models have them. *In float64*: float32 rounds more",
        "than the test's tolerance allows, and float64, in which the proof computes, is within it. *Within*: float,",
        f"int and bool tensors and ops of inference: without refusals for {', '.join(f'`{c}`' for c in OUTSIDE)}.",
        "",
        "| kind | tests | passed | settings fixed | in float64 | refused | wrong | crashed | within | of these pass |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for kind in dict.fromkeys(r.kind for r in results):
        own = [r for r in results if r.kind == kind]
        count = Counter(r.status for r in own)
        within = [r for r in own if r.reason not in OUTSIDE]
        passed = sum(r.status in (PASSED, FIXED, DOUBLE) for r in within)
        share = f"{100 * passed / len(within):.1f} %" if within else ""
        numbers = [count[s] for s in (PASSED, FIXED, DOUBLE, REFUSED, WRONG, CRASHED)]
        lines.append(f"| {kind} | {len(own)} | {' | '.join(map(str, numbers))} | {len(within)} | {share} |")
    lines += ["", "## Refusals", "", "| reason | tests | ops |", "|---|--:|---|"]
    refused = [r for r in results if r.status == REFUSED]
    for reason, count in Counter(r.reason for r in refused).most_common():
        ops = sorted({r.op for r in refused if r.reason == reason})
        lines.append(f"| `{reason}` | {count} | {', '.join(ops)} |")
    return "\n".join(lines) + "\n"


def _first(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:200]


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from translator import runtime

    runtime.prepare()
    sys.exit(main())
