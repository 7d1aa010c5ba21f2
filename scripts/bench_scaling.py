#!/usr/bin/env python
"""How time and memory grow with the network: per node of the graph, and per byte of weights.

    scripts/bench_scaling.py                              the pairs and the large network of docs/benchmarks.md
    scripts/bench_scaling.py --pairs torchvision:resnet18,torchvision:resnet152 --large torchvision:vit_l_16
    scripts/bench_scaling.py --rounds 1 --large           time only

Time: the larger network's conversion and proof over the smaller one's, divided by the same quotient of their nodes;
1 is linear, more than 1.3 fails. Memory: the peak of conversion and proof beyond what a process needs for a tiny
network, in multiples of the weights; more than 4 fails. Each measurement has a process of its own, rounds interleaved,
medians. The exit status is 1 if a limit is passed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAIRS = (
    "torchvision:resnet50,torchvision:resnet152",
    "models/cifar_resnet.py:resnet110,models/cifar_resnet.py:resnet1202",
)
LARGE = "torchvision:vit_h_14"
TIME_LIMIT, MEMORY_LIMIT = 1.3, 4.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="*", default=list(PAIRS), metavar="SMALL,LARGE")
    parser.add_argument("--large", nargs="?", default=LARGE, const="", metavar="SOURCE", help="for memory; empty: none")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "bench_scaling.json")
    parser.add_argument("--worker", metavar="NETWORK", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print("RESULT " + json.dumps(measured(options.worker)))
        return 0
    found = {pair: compared(pair, options.rounds) for pair in options.pairs}
    if options.large:
        found[options.large] = in_a_process(options.large)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(found, indent=1) + "\n")
    return shown(found)


def compared(pair: str, rounds: int) -> dict[str, float]:
    """Times and nodes of both networks of a pair, medians, and how much more a node costs in the larger one."""
    names = pair.split(",")
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names:
            print(f"{name}, round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            rows[name].append(in_a_process(name))
    small, large = ({key: statistics.median(r[key] for r in rows[n]) for key in rows[n][0]} for n in names)
    nodes = large["nodes"] / small["nodes"]
    result = {"nodes": nodes}
    for stage in ("convert", "prove"):
        result |= {f"{stage} small": small[stage], f"{stage} large": large[stage]}
        result[f"{stage} per node"] = large[stage] / small[stage] / nodes
    return result


def in_a_process(name: str) -> dict[str, float]:
    """One measurement."""
    command = [sys.executable, __file__, "--worker", name]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=ROOT)
    line = next((x for x in done.stdout.splitlines() if x.startswith("RESULT ")), None)
    if line is None:
        raise SystemExit(f"{name}: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
    return json.loads(line.removeprefix("RESULT "))  # type: ignore[no-any-return]


def measured(name: str) -> dict[str, float]:
    """Nodes, seconds and memory of one network, converted and proven in this process after a tiny one."""
    from translator import runtime

    runtime.prepare(quiet=True)
    import torch

    from scripts.bench_convert import peak_memory
    from translator.capture.source import load_source
    from translator.engines import native
    from translator.verify.proof import ProofOptions, Subject, prove

    tiny = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU()).eval()
    native.translate(tiny, (torch.randn(2, 3, 8, 8),))
    base = peak_memory()
    loaded = load_source(name)
    module, example = loaded.module, loaded.example_inputs
    weights = sum(p.numel() * p.element_size() for p in module.parameters()) / 1e6
    start = time.perf_counter()
    result = native.translate(module, example)
    converted = time.perf_counter()
    subject = Subject(keras_model=result.model, claims=result.claims, load_state=result.load_state)
    report = prove(module, example, subject, ProofOptions())
    if report.exit_status:
        raise SystemExit(f"not proven: {report.first_wrong}")
    nodes = len(result.plan.calls) if result.plan else 0
    return {
        "nodes": nodes, "convert": converted - start, "prove": time.perf_counter() - converted,
        "weights": weights, "base": base, "peak": peak_memory(), "times weights": (peak_memory() - base) / weights,
    }  # fmt: skip


def shown(found: dict[str, dict[str, float]]) -> int:
    """The Markdown table, and the exit status."""
    bad = 0
    print("| pair | nodes | convert, s | per node | proof, s | per node |\n|---|---:|---:|---:|---:|---:|")
    for name, row in found.items():
        if "convert per node" in row:
            cells = (f"{row[f'{s} small']:.2f} → {row[f'{s} large']:.2f} | {row[f'{s} per node']:.2f}" for s in _STAGES)
            print(f"| {name.replace(',', ' → ')} | ×{row['nodes']:.2f} | {' | '.join(cells)} |")
            bad += sum(row[f"{stage} per node"] > TIME_LIMIT for stage in _STAGES)
    for name, row in found.items():
        if "times weights" in row:
            print(
                f"\n{name}: {row['weights']:,.0f} MB of weights; {row['base']:,.0f} MB for a tiny network, peak "
                f"{row['peak']:,.0f} MB with the proof: {row['times weights']:.2f} times the weights more."
            )
            bad += row["times weights"] > MEMORY_LIMIT
    return int(bad > 0)


_STAGES = ("convert", "prove")

if __name__ == "__main__":
    raise SystemExit(main())
