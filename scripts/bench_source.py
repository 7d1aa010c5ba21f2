#!/usr/bin/env python
"""Write networks as Keras source in every style that they can have, prove each file, and run it on every backend.

    scripts/bench_source.py                                     the networks of docs/source.md
    scripts/bench_source.py torchvision:swin_t timm:resmlp_12_224@1,3,224,224       others, with a shape if wanted
    scripts/bench_source.py --only-write --folder out/written   only write them, and keep the files

Each network has a process of its own; a line of JSON for each file goes to --output, a Markdown table to the console
and beside it. What is in --output already is not done again. The exit status is 1 if a file isn't what it should be.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from translator.capture.source import LoadedSource
    from translator.engines.result import EngineResult

ROOT = Path(__file__).resolve().parents[1]
STYLES = ("functional", "subclass", "sequential")
BACKENDS = ("tensorflow", "jax", "torch")
GOOD = ("proven", "judged", "written")
JUDGED = 1e-4
"""Relative distance from PyTorch's output, in float32, from which on a file that isn't proven is called wrong."""
WITH_KERAS = {"keras", "numpy", *sys.stdlib_module_names}
NETWORKS = (
    "models/cifar_resnet.py:resnet",
    *(
        f"torchvision:{name}"
        for name in (
            "resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "vgg16", "alexnet", "densenet121",
            "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny", "vit_b_16", "googlenet",
            "inception_v3", "regnet_y_400mf", "shufflenet_v2_x0_5",
        )
    ),
    "timm:resnet50d",
    "timm:seresnet50",
)  # fmt: skip
LIMITS = {"models/cifar_resnet.py:resnet": 80, "torchvision:resnet50": 120, "torchvision:vit_b_16": 160}
"""Lines without the header, in the functional and the subclass style; any other file has 500."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specs", nargs="*", metavar="SOURCE", help="as for `translator source`, with @SHAPE if wanted")
    parser.add_argument("--styles", nargs="+", choices=STYLES, default=list(STYLES))
    parser.add_argument("--backends", nargs="*", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--judged", nargs="*", choices=STYLES, default=[], help="no proof, layer by layer, of these")
    parser.add_argument("--only-write", action="store_true", help="no proof, no backends")
    parser.add_argument("--folder", type=Path, help="keep the files here")
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "bench_source.jsonl", help="results, appended")
    parser.add_argument("--seconds", type=float, default=1800.0, help="that one network may take")
    parser.add_argument("--worker", metavar="SOURCE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        for row in work(options.worker, options):
            print("RESULT " + json.dumps(row), flush=True)
        return 0
    specs = list(dict.fromkeys(options.specs)) or list(NETWORKS)
    rows = earlier(options.output)
    done = {row["spec"] for row in rows}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for spec in specs:
        if spec in done:
            continue
        for row in watched(spec, options.seconds):
            rows.append(row)
            print(line_of(row), file=sys.stderr, flush=True)
            with options.output.open("a") as file:
                file.write(json.dumps(row) + "\n")
    chosen = [row for spec in specs for row in rows if row["spec"] == spec]
    table = markdown(chosen)
    options.output.with_suffix(".md").write_text(table)
    print(table)
    return int(any(faults(row) for row in chosen))


def earlier(path: Path) -> list[dict[str, Any]]:
    """The results that are there already."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def watched(spec: str, seconds: float) -> Iterator[dict[str, Any]]:
    """The rows of one network, made by a process of its own with this one's arguments."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(Path(__file__).resolve()), *_passed_on(sys.argv[1:]), "--worker", spec]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        yield {"spec": spec, "style": "", "status": "limit", "message": f"more than {seconds:g} s"}
        return
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            yield json.loads(line.removeprefix("RESULT "))
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        yield {"spec": spec, "style": "", "status": "crash", "message": f"exit {done.returncode}: {last[:300]}"}


def _passed_on(arguments: Sequence[str]) -> list[str]:
    """The options without the sources in front of them."""
    first = next((k for k, text in enumerate(arguments) if text.startswith("-")), len(arguments))
    return list(arguments[first:])


def work(text: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The rows of one network: one for each style."""
    from translator import runtime
    from translator.capture.source import load_source
    from translator.engines.native import translate
    from translator.errors import TranslatorError

    runtime.prepare()
    spec, _, shape = text.partition("@")
    try:
        loaded = load_source(spec, input_shapes=[[int(n) for n in shape.split(",")]] if shape else None)
        result = translate(loaded.module, loaded.example_inputs, example_kwargs=loaded.example_kwargs, name=loaded.name)
    except TranslatorError as error:
        yield {"spec": text, "style": "", "status": "refused", "message": str(error)}
        return
    with tempfile.TemporaryDirectory(prefix="written-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"\W+", "_", loaded.name)
        for style in options.styles:
            output = folder / f"{name}_{style}.py"
            started = time.perf_counter()
            try:
                row = one(output, style, loaded, result, options)
            except TranslatorError as error:
                status = "refused" if error.exit_status == 2 else "crash"
                row = {"status": status, "message": str(error)}
            yield {"spec": text, "style": style, **row, "seconds": round(time.perf_counter() - started, 1)}


def one(
    output: Path, style: Any, loaded: LoadedSource, result: EngineResult, options: argparse.Namespace
) -> dict[str, Any]:
    """One file: its form, and unless only writing is asked for, its proof and what the backends say."""
    from translator.emit.source.write_plan import checked_source
    from translator.source_writer import judge_on, write_and_prove

    assert result.plan is not None  # the native engine makes one
    if options.only_write:
        output.write_text(checked_source(result.plan, style=style, spec=loaded.spec, where=output))
        return {"status": "written", **form(output)}
    if style in options.judged:
        output.write_text(checked_source(result.plan, style=style, spec=loaded.spec, where=output))
        found = {b: judge_on(b, result, loaded, output) for b in ("tensorflow", *options.backends)}
        distance = max((a.max_rel for a in found.values() if a.max_rel is not None), default=float("inf"))
        good = distance < JUDGED and not any(a.error for a in found.values())
        backends = {b: a.error for b, a in found.items()}
        return {"status": "judged" if good else "wrong", "distance": distance, "backends": backends, **form(output)}
    report = write_and_prove(result, loaded, output, style=style)
    artifact = report.artifact
    errors = [row.error_f64 for row in report.layers if row.error_f64 is not None]
    others = {b: judge_on(b, result, loaded, output).error for b in options.backends if b != "tensorflow"}
    backends = {"tensorflow": artifact.error if artifact else "not judged", **others}
    return {
        "status": "proven" if report.exit_status == 0 else "wrong",
        "verdict": report.verdict.value,
        "message": "; ".join(f"{c.name}: {c.detail}" for c in report.checks if not c.ok)[:1000],
        "parameters": report.balance.torch_total,
        "keras": report.balance.keras_total,
        "unexplained": report.balance.unexplained,
        "error_f64": max(errors, default=None),
        "backends": backends,
        **form(output),
    }


def form(output: Path) -> dict[str, Any]:
    """How long the file is without its header, what ruff says of it, and what it imports that Keras doesn't bring."""
    import ruff

    source = output.read_text()
    said = []
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [ruff.find_ruff_bin(), *command, "--isolated", str(output)], capture_output=True, text=True, check=False
        )
        said += [done.stdout[:500]] if done.returncode else []
    imported = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""])
    }
    body = source.split('"""', 2)[2].strip().splitlines()
    return {"lines": len(body), "ruff": said, "needs": sorted(imported - WITH_KERAS)}


def faults(row: dict[str, Any]) -> list[str]:
    """What isn't as it should be."""
    if row["status"] == "refused":
        return [] if row["style"] == "sequential" else ["refused"]
    if row["status"] not in GOOD:
        return [row["status"]]
    limit = LIMITS.get(row["spec"].partition("@")[0], 500) if row["style"] != "sequential" else 500
    found = [f"{row['lines']} lines, not {limit}"] if row["lines"] > limit else []
    found += ["ruff"] if row["ruff"] else []
    found += [f"needs {', '.join(row['needs'])}"] if row["needs"] else []
    return [*found, *(f"{name}: {error}" for name, error in row.get("backends", {}).items() if error)]


def line_of(row: dict[str, Any]) -> str:
    """One row for a person who waits."""
    rest = f"{row['lines']} lines" if "lines" in row else row.get("message", "").strip().split("\n")[0][:160]
    return f"{row['spec']} {row['style']}: {row['status']}, {rest}; {'; '.join(faults(row)) or 'nothing wrong'}"


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table: a line for each network."""
    lines = [
        "| network | functional | subclass | sequential | parameters | result | largest error, float64 | backends |",
        "|---|--:|--:|--:|--:|---|--:|---|",
    ]
    for spec in dict.fromkeys(row["spec"] for row in rows):
        mine = {row["style"]: row for row in rows if row["spec"] == spec}
        good = [row for row in mine.values() if row["status"] in GOOD]
        wrong = [
            f"{row['style']} {row['status']}" for row in mine.values() if row["status"] not in GOOD and faults(row)
        ]
        errors = [row["error_f64"] for row in good if row.get("error_f64") is not None]
        runs = [b for b in BACKENDS if good and all(row.get("backends", {}).get(b) == "" for row in good)]
        cells = [
            f"`{spec}`",
            *(str(mine[style].get("lines", "–")) if style in mine else "" for style in STYLES),
            f"{good[0]['parameters']:,}" if good and "parameters" in good[0] else "",
            "; ".join(wrong)
            or "/".join(dict.fromkeys(row["verdict"] for row in good if "verdict" in row))
            or "written",
            f"{max(errors):.0e}" if errors else "",
            ", ".join(runs),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
