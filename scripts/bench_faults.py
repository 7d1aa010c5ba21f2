#!/usr/bin/env python
"""Plant one fault at a time in right translations, and count how often an audit finds it and names the layer.

    scripts/bench_faults.py                              six networks, every kind of fault, one place each
    scripts/bench_faults.py --places 3 --networks cifar resnet18
    scripts/bench_faults.py --pairs 60                   the number of right pairs for false alarms
    scripts/bench_faults.py --faults bias --again        only these faults, measured anew

A fault is detected where the audit says what it does not say about the right pair; the layer is right where it is among
those named, and no more than a handful are. Output: a line of JSON for each as it comes, in the end a Markdown table.
What is in the output already is not measured again, so a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from translator import runtime  # noqa: E402

runtime.prepare(quiet=True)

import numpy as np  # noqa: E402

from scripts.faults import bookkeeping, structure, training, weights, wiring  # noqa: E402, F401
from scripts.faults.planting import CATALOGUE, Fault, Planted, Right  # noqa: E402
from scripts.faults.right_pairs import NETWORKS, MakePair, right_pairs, translated  # noqa: E402
from translator.audit.api import AuditOptions, audit  # noqa: E402
from translator.verdict import Difference, Report, Verdict  # noqa: E402
from translator.verify.proof import ProofOptions, Subject, prove  # noqa: E402

HANDFUL = 6
QUICK = ProofOptions(dtypes=("float64",), probes=False)
KNOWN = frozenset(
    {"bn-statistics", "num_batches_tracked", "flatten-order", "merged", "data-type", "unused in inference"}
)
"""What is true of right pairs, too: none of it changes what is computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One planted fault."""

    network: str
    fault: str
    group: str
    where: str
    detected: bool
    right_layer: bool
    named: tuple[str, ...]
    wanted: tuple[str, ...]
    verdict: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What was measured, a line of JSON each, by a key that says what it was. seed: of all that is random."""

    path: Path
    seed: int
    again: bool
    rows: dict[str, Any]

    @classmethod
    def of(cls, path: Path, seed: int, *, again: bool) -> Log:
        """What an earlier run left there; with `again` only to be replaced."""
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return cls(path=path, seed=seed, again=again, rows={line["key"]: line["row"] for line in lines})

    def key(self, *parts: object) -> str:
        return " / ".join(map(str, (*parts, f"seed {self.seed}")))

    def has(self, key: str) -> bool:
        return not self.again and key in self.rows

    def add(self, key: str, row: Any) -> None:
        self.rows[key] = row
        with self.path.open("a") as file:
            file.write(json.dumps({"key": key, "row": row}) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--faults", default="", help="only faults whose name contains this")
    parser.add_argument("--places", type=int, default=1, help="random places of each fault in each network")
    parser.add_argument("--pairs", type=int, default=60, help="right pairs, for false alarms")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="measure what is in the output already, too")
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "bench_faults", help="without suffix")
    options = parser.parse_args()
    log = Log.of(options.output.with_suffix(".jsonl"), options.seed, again=options.again)
    results = list(_faults(options, log))
    alarms = list(_alarms(options.pairs, log))
    text = _table(results, alarms)
    sys.stdout.write(text)
    options.output.with_suffix(".md").write_text(text)
    missed = [r for r in results if not r.detected]
    return int(bool(missed) or any(why for _, why in alarms))


def _faults(options: argparse.Namespace, log: Log) -> Iterator[Result]:
    """Each fault at each place of each network; None is kept for one that the network has no place for."""
    chosen = [f for f in CATALOGUE if options.faults in f.name]
    for network in options.networks:
        keys = {
            log.key(network, fault.name, place): (fault, place) for fault in chosen for place in range(options.places)
        }
        todo = {key: what for key, what in keys.items() if not log.has(key)}
        if todo:
            _measure(network, todo, log)
        for row in (log.rows[key] for key in keys):
            if row is not None:
                yield Result(**{**row, "named": tuple(row["named"]), "wanted": tuple(row["wanted"])})


def _measure(network: str, todo: dict[str, tuple[Fault, int]], log: Log) -> None:
    right = translated(network, log.seed)
    clean = judge(right, None)
    for key, (fault, place) in todo.items():
        kind = CATALOGUE.index(fault)
        rng = np.random.default_rng([log.seed, list(NETWORKS).index(network), kind, place])
        result = _one(right, clean, fault, rng)
        log.add(key, None if result is None else asdict(result))
        if result is not None:
            _say(result)
        gc.collect()


def _one(right: Right, clean: Report, fault: Fault, rng: np.random.Generator) -> Result | None:
    started = time.perf_counter()
    planted = fault.plant(right, rng)
    if planted is None:
        return None
    report = judge(right, planted)
    fresh = new_differences(clean, report)
    named = tuple(dict.fromkeys(layer for d in fresh for layer in d.layers))
    wanted = frozenset(layer or "(model)" for layer in planted.layers)
    worse = report.verdict is Verdict.DIFFERENT
    return Result(
        network=right.name,
        fault=fault.name,
        group=fault.group,
        where=planted.where,
        detected=bool(fresh) if fault.training else worse,
        right_layer=bool(wanted.intersection(named)) and len(named) <= HANDFUL,
        named=named,
        wanted=tuple(sorted(wanted)),
        verdict=report.verdict.value,
        seconds=time.perf_counter() - started,
    )


def judge(right: Right, planted: Planted | None) -> Report:
    """The audit of a pair; wrong books go to the judge alone, who gets the claims."""
    if planted is not None and planted.claims is not None:
        subject = Subject(keras_model=planted.model, claims=planted.claims)
        return prove(right.module, right.inputs, subject, QUICK)
    model = right.model if planted is None else planted.model
    return audit(right.module, model, right.inputs, options=AuditOptions(weights="compare", proof=QUICK))


def new_differences(clean: Report, report: Report) -> list[Difference]:
    """What is said of a pair and not of the right one, by kind and layer."""
    known = {(d.kind, layer) for d in clean.differences for layer in d.layers}
    fresh = []
    for difference in report.differences:
        layers = tuple(layer for layer in difference.layers if (difference.kind, layer) not in known)
        if layers or not difference.layers:
            fresh.append(_only(difference, layers))
    return fresh


def _only(difference: Difference, layers: tuple[str, ...]) -> Difference:
    from dataclasses import replace

    return replace(difference, layers=layers)


def _alarms(count: int, log: Log) -> Iterator[tuple[str, str]]:
    """Right pairs: name, and why the audit objects ("" where it does not)."""
    for number, (name, pair) in enumerate(right_pairs(log.seed)):
        if number >= count:
            return
        key = log.key("right pair", name)
        if not log.has(key):
            log.add(key, _alarm(pair))
            sys.stderr.write(f"right pair {number + 1:>3} {name:<40} {log.rows[key] or 'no alarm'}\n")
            gc.collect()
        yield name, log.rows[key]


def _alarm(pair: MakePair) -> str:
    module, model, inputs = pair()
    report = audit(module, model, inputs, options=AuditOptions(weights="compare", proof=QUICK))
    odd = [d.kind for d in report.differences if d.kind not in KNOWN]
    return "" if report.verdict is not Verdict.DIFFERENT and not odd else f"{report.verdict}: {', '.join(odd)}"


def _say(result: Result) -> None:
    mark = "found" if result.detected else "MISSED"
    layer = "right layer" if result.right_layer else f"OTHER LAYER {result.named[:4]} want {result.wanted}"
    sys.stderr.write(f"{result.network:<10} {result.fault:<52} {mark:<7} {layer:<12} {result.seconds:5.1f} s\n")


def _table(results: list[Result], alarms: list[tuple[str, str]]) -> str:
    lines = ["| group | kinds | planted | detected | right layer |", "|---|---|---|---|---|"]
    for group in (*dict.fromkeys(r.group for r in results), "all"):
        own = [r for r in results if group in ("all", r.group)]
        kinds = len({r.fault for r in own})
        found, layer = sum(r.detected for r in own), sum(r.right_layer for r in own)
        rate = f"{found} ({found / len(own):.1%})" if own else "–"
        share = f"{layer} ({layer / len(own):.1%})" if own else "–"
        lines.append(f"| {group} | {kinds} | {len(own)} | {rate} | {share} |")
    wrong = [name for name, why in alarms if why]
    lines.append("")
    lines.append(f"False alarms: {len(wrong)} of {len(alarms)} right pairs{': ' + ', '.join(wrong) if wrong else ''}.")
    missed = [f"{r.network}: {r.fault} at {r.where}" for r in results if not r.detected]
    lines += ["", "Missed: " + ("; ".join(missed) or "none") + "."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
