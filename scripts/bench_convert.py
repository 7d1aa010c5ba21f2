#!/usr/bin/env python
"""Time conversions and what they give, side by side in one run, as a Markdown table and JSON.

    scripts/bench_convert.py                       the four networks of the table, three rounds
    scripts/bench_convert.py --models resnet50 --rounds 5 --output out/bench
    scripts/bench_convert.py --same-exporter --models alexnet vgg11 mobilenet_v2     many networks, conversion alone

For every network: our capture, plan, emit and proof, and onnx2keras after both of PyTorch's exporters, each in a
process of its own (seconds, peak of memory), rounds interleaved so that a slow moment hits all alike. Then the
latency of ResNet-50 at batch 1 and 8: ours, keras.applications', onnx2keras' and PyTorch's. Ratios are of medians.

--same-exporter compares with onnx2keras after PyTorch's new exporter, which we use, turn about and without the proof;
the exit status is 1 if we fail, or take more than 1.1 of its time, for any network. Ours has a batch of any size in it,
theirs that of the example.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("cifar", "resnet18", "resnet50", "resnet152")
TOOLS = ("ours", "onnx2keras, dynamo=False", "onnx2keras, dynamo=True")
SAME = (TOOLS[0], TOOLS[2])
LIMIT = 1.1
BATCHES = (1, 8)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="cifar, or names of torchvision's")
    parser.add_argument("--same-exporter", action="store_true", help="conversion alone, turn about")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each, the median is reported")
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "bench_convert", help="without suffix")
    parser.add_argument("--no-latency", action="store_true", help="leave the latency out")
    parser.add_argument("--worker", nargs=2, metavar=("TOOL", "MODEL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        tool, model = options.worker
        proof = not options.same_exporter
        print("RESULT " + json.dumps(latency() if tool == "latency" else convert(tool, model, proof=proof)))
        return 0
    tools, how = (SAME, ["--same-exporter"]) if options.same_exporter else (TOOLS, [])
    options.output.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    for model in options.models:
        rows: dict[str, list[dict[str, float]]] = {tool: [] for tool in tools}
        for number in range(options.rounds):
            for tool in tools:
                print(f"{model}: {tool}, round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
                rows[tool].append(_run(tool, model, *how))
        results[model] = {tool: _medians(found) for tool, found in rows.items()}
        _write(options.output, {"conversion": results, "latency": {}})
    if not options.no_latency and not options.same_exporter:
        _write(options.output, {"conversion": results, "latency": _run("latency", "resnet50")})
    print(options.output.with_suffix(".md").read_text())
    return int(options.same_exporter and too_slow(results))


def _write(output: Path, report: dict[str, Any]) -> None:
    output.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    output.with_suffix(".md").write_text(markdown(report))


def too_slow(conversion: dict[str, Any]) -> bool:
    """Whether a network isn't converted by us, or takes us more than LIMIT of the time of the tool that it is compared
    with and that converts it."""
    for tools in conversion.values():
        ours, theirs = (tools[tool].get("convert") for tool in SAME)
        if ours is None or (theirs is not None and ours > LIMIT * theirs):
            return True
    return False


def _run(tool: str, model: str, *options: str) -> dict[str, Any]:
    """One measurement in a fresh process."""
    command = [sys.executable, __file__, "--worker", tool, model, *options]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    line = next((x for x in done.stdout.splitlines() if x.startswith("RESULT ")), None)
    if line is None:
        said = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith(" ")]
        return {"failed": (said or ["no output"])[-1][:200]}
    return json.loads(line.removeprefix("RESULT "))  # type: ignore[no-any-return]


def _medians(found: list[dict[str, Any]]) -> dict[str, Any]:
    if any("failed" in row for row in found):
        return next(row for row in found if "failed" in row)
    return {key: statistics.median(row[key] for row in found) for key in found[0]}


def network(name: str) -> tuple[Any, tuple[int, ...]]:
    """The PyTorch network in eval mode and its input shape with the batch."""
    if name == "cifar":
        sys.path.insert(0, str(ROOT))
        from models.cifar_resnet import resnet

        return resnet().eval(), (2, 3, 32, 32)
    import torchvision

    return getattr(torchvision.models, name)().eval(), (2, 3, 224, 224)


def convert(tool: str, model: str, *, proof: bool) -> dict[str, float]:
    """Seconds of each stage, and the process's peak memory in MB after conversion and after all.

    Both tools first convert a tiny network: what is paid once in a process (imports, tables) isn't what is compared.
    """
    from translator import runtime

    runtime.prepare(quiet=True)
    import keras  # noqa: F401
    import torch

    run = _ours if tool == "ours" else _onnx2keras(dynamo=tool.endswith("True"))
    tiny = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU()).eval()
    run(tiny, torch.randn(2, 3, 8, 8), proof=False)
    module, shape = network(model)
    return run(module, torch.randn(*shape), proof=proof)


def _ours(module: Any, x: Any, *, proof: bool) -> dict[str, float]:
    from translator.engines import native
    from translator.verify.proof import ProofOptions, Subject, prove

    result = native.translate(module, (x,))
    seconds = dict(result.timing) | {"memory": peak_memory()}
    if proof:
        start = time.perf_counter()
        subject = Subject(keras_model=result.model, claims=result.claims, load_state=result.load_state)
        report = prove(module, (x,), subject, ProofOptions())
        seconds |= {"proof": time.perf_counter() - start, "memory with proof": peak_memory()}
        if report.exit_status:
            raise SystemExit(f"not proven: {report.first_wrong}")
    convert_only = seconds["capture"] + seconds["plan"] + seconds["emit"]
    return seconds | {"convert": convert_only}


def _onnx2keras(*, dynamo: bool) -> Callable[..., dict[str, float]]:
    def run(module: Any, x: Any, *, proof: bool) -> dict[str, float]:
        del proof
        from translator.engines import onnx2keras

        result = onnx2keras.translate(module, (x,), dynamo=dynamo)
        seconds = dict(result.timing)
        return seconds | {"memory": peak_memory(), "convert": sum(result.timing.values())}

    return run


def peak_memory() -> float:
    """The most memory that this process has had so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def latency() -> dict[str, Any]:
    """Milliseconds of one forward pass of ResNet-50 (median of interleaved rounds) by batch and by model."""
    from translator import runtime

    runtime.prepare(quiet=True)
    import keras
    import tensorflow
    import torch

    from translator.engines import native, onnx2keras

    module, shape = network("resnet50")
    x = torch.randn(*shape)
    models = {
        "ours": native.translate(module, (x,)).model,
        "ours, --fold": native.translate(module, (x,), fold=True).model,
        "ours, strides as there": native.translate(_strides_in_the_first_convolution(module), (x,)).model,
        "keras.applications": keras.applications.ResNet50(weights=None, classifier_activation=None),
        "onnx2keras": onnx2keras.translate(module, (x[:1],)).model,
    }
    table: dict[str, Any] = {}
    for batch in BATCHES:
        images = torch.randn(batch, *shape[1:])
        channels_last = tensorflow.constant(images.permute(0, 2, 3, 1).numpy())
        calls = {name: _compiled(model, channels_last, tensorflow) for name, model in models.items()}
        calls["torch, eager"] = lambda images=images: _torch_call(module, images)
        table[str(batch)] = _interleaved(calls)
    return table


def _strides_in_the_first_convolution(module: Any) -> Any:
    """The same network multiplying as often as keras.applications' (3.9 instead of 4.1 billion times an image)."""
    import copy

    moved = copy.deepcopy(module)
    for name in ("layer2", "layer3", "layer4"):
        block = getattr(moved, name)[0]
        block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    return moved


def _compiled(model: Any, x: Any, tensorflow: Any) -> Callable[[], Any]:
    function = tensorflow.function(lambda value: model(value, training=False))
    try:
        function(x)
    except (ValueError, tensorflow.errors.OpError) as error:
        reason = str(error).splitlines()[0][:120]
        return lambda: reason
    return lambda: function(x).numpy()


def _torch_call(module: Any, x: Any) -> Any:
    import torch

    with torch.inference_mode():
        return module(x)


def _interleaved(calls: dict[str, Callable[[], Any]], rounds: int = 60) -> dict[str, float | str]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    failed = {name: found for name, call in calls.items() if isinstance(found := call(), str)}
    order = [name for name in calls if name not in failed]
    shuffle = random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(order)  # who comes after PyTorch finds its threads still spinning
        for name in order:
            start = time.perf_counter()
            calls[name]()
            times[name].append(time.perf_counter() - start)
    return {name: failed.get(name) or statistics.median(times[name]) * 1000 for name in calls}


def markdown(report: dict[str, Any]) -> str:
    """Both tables, times in seconds and milliseconds, with the ratios that the claims are made of."""
    lines = [
        "| network | tool | export | plan | build | **convert** | ratio | proof | peak MB | with proof |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for model, tools in report["conversion"].items():
        ours = tools["ours"].get("convert")
        for tool, row in tools.items():
            if "failed" in row:
                lines.append(f"| {model} | {tool} | failed: {row['failed']} |||||||")
                continue
            ratio = f"{ours / row['convert']:.2f}" if ours and tool != "ours" else ""
            cells = [_number(row.get(key)) for key in ("capture", "plan", "emit", "convert")]
            memory = [_number(row.get(key), 0) for key in ("memory", "memory with proof")]
            proof = _number(row.get("proof"))
            lines.append(f"| {model} | {tool} | {' | '.join(cells)} | {ratio} | {proof} | {' | '.join(memory)} |")
    lines += ["", "Seconds, medians. ratio: our conversion's time over that tool's.", ""]
    if report["latency"]:
        batches = list(report["latency"])
        lines += ["| ResNet-50 | " + " | ".join(f"batch {b}, ms | / keras.applications" for b in batches) + " |"]
        lines += ["|---|" + "---:|" * 2 * len(batches)]
        for name in report["latency"][batches[0]]:
            row = [report["latency"][b][name] for b in batches]
            there = [report["latency"][b]["keras.applications"] for b in batches]
            cells = [
                f"{ms:.1f} | {ms / other:.3f}" if not isinstance(ms, str) else f"{ms} | "
                for ms, other in zip(row, there, strict=True)
            ]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


if __name__ == "__main__":
    sys.exit(main())
