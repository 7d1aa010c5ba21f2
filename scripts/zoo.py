#!/usr/bin/env python
"""Translate and prove any list of models, each in a process of its own; one JSON line for each, in the end a table.

    scripts/zoo.py torchvision:resnet18 timm:resnet10t            named sources, with the size of their library
    scripts/zoo.py torchvision:swin_t@2,3,64,64                   a source with the shape of its input
    scripts/zoo.py --list classification --list timm-smallest     lists (also: segmentation, video)
    scripts/zoo.py --list s3://bucket/models.txt --output s3://bucket/zoo.jsonl      any path that fsspec knows
    scripts/zoo.py --list video --backend dask --scheduler tcp://host:8786           a cluster; a local one without it
    scripts/zoo.py --list segmentation --load tensorflow jax torch --no-proof        only written, and loaded on these

What is in --output already is not done again, so a run that was stopped goes on; with --load, what was loaded there. A
worker that uses more than --memory or --seconds is ended, and that is its result. The exit status is 1 if any model is
wrong or crashed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from translator.pipeline import Conversion
    from translator.verify.artifact import ArtifactWorker

ROOT = Path(__file__).resolve().parents[1]
PROVEN, GOOD, BAD = ("equal", "explained"), ("proven", "loaded"), ("wrong", "crash")
KERAS = ("tensorflow", "jax", "torch")
LISTS = ("classification", "segmentation", "video", "timm-smallest")


def main(arguments: list[str] | None = None) -> int:
    options = parsed(arguments)
    if options.worker:
        print(json.dumps(work(options.worker, how_of(options))), flush=True)
        return 0
    specs = [*options.specs, *(s for name in options.list for s in listed(name))]
    rows = earlier(options.output)
    todo = [spec for spec in dict.fromkeys(specs) if spec not in rows or unloaded(rows[spec], options.load)]
    for row in run(todo, options):
        rows[row["spec"]] = row
        append(options.output, row)
    chosen = [rows[spec] for spec in dict.fromkeys(specs) if spec in rows] or list(rows.values())
    show(chosen)
    if options.table:
        write(options.table, markdown(chosen))
    return int(any(row["status"] in BAD for row in chosen))


def unloaded(row: dict[str, Any], backends: Sequence[str]) -> bool:
    """Whether an earlier run found a source right, but never loaded its file on all of these."""
    return row["status"] in GOOD and not set(backends) <= set(row.get("backends", ()))


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specs", nargs="*", metavar="SOURCE", help="as for `translator convert`, with @SHAPE if wanted")
    parser.add_argument("--list", action="append", default=[], help=f"{', '.join(LISTS)}, or a file of sources")
    parser.add_argument("--output", default=str(ROOT / "out" / "zoo.jsonl"), help="results, appended")
    parser.add_argument("--table", help="write the results as a Markdown table")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--memory", type=float, default=12.0, help="GB that one model may use")
    parser.add_argument("--seconds", type=float, default=1800.0, help="that one model may take")
    parser.add_argument("--backend", choices=("joblib", "dask", "ray"), default="joblib")
    parser.add_argument("--scheduler", help="address of the cluster")
    parser.add_argument("--files", action="store_true", help="write each model's file too, and judge it once more")
    parser.add_argument("--load", nargs="+", choices=KERAS, default=[], help="load each file on these Keras backends")
    parser.add_argument("--no-proof", action="store_true", help="no layer by layer: the files' outputs are judged")
    parser.add_argument("--worker", metavar="SOURCE", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """What is done with a source. files: the file is judged, too. load: on these backends. proof: layer by layer."""

    files: bool = False
    load: tuple[str, ...] = ()
    proof: bool = True

    def options(self) -> list[str]:
        """As a worker's command line."""
        load = ["--load", *self.load] if self.load else []
        return [*(["--files"] if self.files else []), *load, *([] if self.proof else ["--no-proof"])]


def how_of(options: argparse.Namespace) -> How:
    return How(files=options.files, load=tuple(options.load), proof=not options.no_proof)


def listed(name: str) -> list[str]:
    """The sources of a list by name, or of a file: one a line, `#` for comments."""
    if name not in LISTS:
        import fsspec

        with fsspec.open(name, "rt") as file:
            return [line.split("#")[0].strip() for line in file if line.split("#")[0].strip()]
    if name == "timm-smallest":
        return smallest_of_each_file()
    import torchvision

    module = torchvision.models if name == "classification" else getattr(torchvision.models, name)
    return [f"torchvision:{model}" for model in torchvision.models.list_models(module=module)]


def smallest_of_each_file() -> list[str]:
    """The model with the fewest parameters of each of timm's model files, counted without making any weights."""
    import timm
    import torch

    found = []
    for module in timm.list_modules():
        sizes = {}
        for name in timm.list_models(module=module):
            with torch.device("meta"):
                sizes[name] = sum(p.numel() for p in timm.create_model(name, pretrained=False).parameters())
        if sizes:
            found.append(f"timm:{min(sizes, key=lambda n: (sizes[n], n))}")
    return found


def run(specs: list[str], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The result of each source as it comes, with a live display."""
    from joblib import Parallel, delayed
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    limits = {"memory": options.memory, "seconds": options.seconds, "how": how_of(options)}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    seen: Counter[str] = Counter()
    with backend(options), Progress(*columns) as progress:
        task = progress.add_task("zoo", total=len(specs))
        jobs = (delayed(watched)(spec, **limits) for spec in specs)
        for row in Parallel(n_jobs=options.workers, return_as="generator_unordered")(jobs):
            seen[row["status"]] += 1
            counts = ", ".join(f"{count} {status}" for status, count in seen.most_common())
            progress.update(task, advance=1, description=counts)
            yield row


@contextmanager
def backend(options: argparse.Namespace) -> Iterator[None]:
    """Where the workers are started: threads here (each only waits for its process), or a cluster's own workers."""
    import joblib

    if options.backend == "joblib":
        with joblib.parallel_config(backend="threading", n_jobs=options.workers):
            yield
    elif options.backend == "dask":
        from dask.distributed import Client

        own = {"n_workers": options.workers, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
        with Client(options.scheduler) if options.scheduler else Client(**own), joblib.parallel_config(backend="dask"):
            yield
    else:
        import ray
        from ray.util.joblib import register_ray

        ray.init(address=options.scheduler, num_cpus=None if options.scheduler else options.workers)
        register_ray()
        with joblib.parallel_config(backend="ray"):
            yield


def watched(spec: str, *, memory: float, seconds: float, how: How) -> dict[str, Any]:
    """One source in a process of its own, ended where it uses too much."""
    import psutil

    command = [sys.executable, str(Path(__file__).resolve()), "--worker", spec, *how.options()]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
    started, peak = time.perf_counter(), 0
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    )
    handle, reason = psutil.Process(process.pid), ""
    while reason == "":
        try:
            out, err = process.communicate(timeout=0.5)
            break
        except subprocess.TimeoutExpired:
            peak = max(peak, _memory(handle))
        if peak > memory * 1e9:
            reason = f"more than {memory:g} GB"
        elif time.perf_counter() - started > seconds:
            reason = f"more than {seconds:g} s"
    base = {"spec": spec, "seconds": round(time.perf_counter() - started, 1), "peak_mb": peak // 1_000_000}
    if reason:
        _end(handle)
        process.communicate()
        return {**base, "status": "limit", "reason": reason}
    lines = [line for line in out.splitlines() if line.startswith("{")]
    if process.returncode or not lines:
        return {**base, "status": "crash", "reason": f"exit {process.returncode}", "message": err.strip()[-2000:]}
    return {**json.loads(lines[-1]), **base}


def _memory(process: Any) -> int:
    import psutil

    try:
        return sum(p.memory_info().rss for p in (process, *process.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0


def _end(process: Any) -> None:
    """End a process with those that it started, which may be loading a file yet."""
    import psutil

    started: list[Any] = []
    with suppress(psutil.NoSuchProcess):
        started = process.children(recursive=True)
    for each in (process, *started):
        with suppress(psutil.NoSuchProcess):
            each.kill()


def work(text: str, how: How, workers: Sequence[ArtifactWorker] | None = None) -> dict[str, Any]:
    """Load, translate and prove one source in this process. workers: where its file is loaded; started if not given."""
    from translator import runtime
    from translator.errors import TranslatorError

    runtime.prepare()
    from translator.verify.artifact import ArtifactWorker

    spec, _, shape = text.partition("@")
    with ExitStack() as stack:
        if workers is None:
            workers = [stack.enter_context(ArtifactWorker(name)) for name in how.load]
        try:
            return proven(spec, [int(n) for n in shape.split(",")] if shape else None, how, workers)
        except TranslatorError as error:
            reason = getattr(error, "reason", type(error).__name__)
            status = "refused" if error.exit_status == 2 else "crash"
            return {"status": status, "reason": reason, "message": str(error)}


def proven(spec: str, shape: list[int] | None, how: How, workers: Sequence[ArtifactWorker]) -> dict[str, Any]:
    """What the proof and the loaded files say of one source."""
    import translator
    from translator.capture.source import load_source

    loaded = load_source(spec, input_shapes=[shape] if shape else None)
    conversion = translator.convert(
        loaded.module, loaded.example_inputs, example_kwargs=loaded.example_kwargs, name=loaded.name, proof=how.proof
    )
    report = conversion.report
    right = report.verdict.value in PROVEN or not how.proof
    if how.files and how.proof and right:
        with tempfile.TemporaryDirectory() as folder:
            report = conversion.save(Path(folder) / "model.keras")
            right = report.verdict.value in PROVEN
    places = on_backends(conversion, workers) if right else {}
    died = {worker.backend: worker.ended for worker in workers if worker.backend in places and worker.ended is not None}
    if died:
        reason = ", ".join(f"{name}: exit {status}" for name, status in died.items())
        return {"status": "crash", "reason": reason, "message": "; ".join(places[name] for name in died)}
    errors = [row.error_f64 for row in report.layers if row.error_f64 is not None]
    calls = conversion.plan.calls if conversion.plan else ()
    return {
        "status": ("proven" if how.proof else "loaded") if right and not any(places.values()) else "wrong",
        "verdict": report.verdict.value if how.proof else "",
        "reason": report.first_wrong,
        "message": "; ".join(
            [f"{c.name}: {c.detail}" for c in report.checks if not c.ok] + [f"{k}: {v}" for k, v in places.items() if v]
        )[:2000],
        "parameters": report.balance.torch_total,
        "unexplained": report.balance.unexplained if how.proof else None,
        "error_f64": max(errors, default=None),
        "layers": len(report.layers),
        "operations": len(calls),
        "transposes": sum(getattr(call, "op", "") == "transpose" for call in calls),
        "lost": list(report.lost),
        "stages": {stage: round(seconds, 2) for stage, seconds in report.timing.items()},
        "file": report.artifact.reloaded if report.artifact else None,
        "backends": [name for name, error in places.items() if not error],
    }


def on_backends(conversion: Conversion, workers: Sequence[ArtifactWorker]) -> dict[str, str]:
    """What is wrong with the file on each backend; "" where it loads without us and its outputs are PyTorch's."""
    from translator.verify.artifact import judge_file

    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        if workers:
            conversion.model.save(path)
        for worker in workers:
            artifact = judge_file(
                path, module=conversion.module, model=conversion.model, claims=conversion.claims,
                args=conversion.example_inputs, kwargs=conversion.example_kwargs, worker=worker,
            )  # fmt: skip
            own = artifact.lambda_layers + artifact.custom_layers
            found[worker.backend] = artifact.error or (f"{own} layers that Keras doesn't have" if own else "")
    return found


def earlier(path: str) -> dict[str, dict[str, Any]]:
    """The results that are there already, by source."""
    import fsspec

    filesystem, place = fsspec.core.url_to_fs(path)
    if not filesystem.exists(place):
        return {}
    with filesystem.open(place, "rt") as file:
        return {row["spec"]: row for row in map(json.loads, file)}


def append(path: str, row: dict[str, Any]) -> None:
    """One more line; where a file system can't append, the whole file is written anew."""
    import fsspec

    filesystem, place = fsspec.core.url_to_fs(path)
    filesystem.makedirs(filesystem._parent(place), exist_ok=True)
    line = json.dumps(row) + "\n"
    try:
        with filesystem.open(place, "at") as file:
            file.write(line)
    except (NotImplementedError, ValueError):
        before = filesystem.cat_file(place).decode() if filesystem.exists(place) else ""
        with filesystem.open(place, "wt") as file:
            file.write(before + line)


def write(path: str, text: str) -> None:
    import fsspec

    with fsspec.open(path, "wt") as file:
        file.write(text)


def show(rows: Iterable[dict[str, Any]]) -> None:
    """A table of what didn't pass, and the counts."""
    from rich.console import Console
    from rich.table import Table

    rows = list(rows)
    table = Table("model", "status", "reason", title="not proven", title_justify="left")
    for row in rows:
        if row["status"] not in GOOD:
            table.add_row(row["spec"], row["status"], f"{row.get('reason', '')}: {first_line(row.get('message', ''))}")
    console = Console()
    if table.row_count:
        console.print(table)
    counts = Counter(row["status"] for row in rows)
    console.print(f"{len(rows)} models: " + ", ".join(f"{count} {status}" for status, count in counts.most_common()))


def markdown(rows: Iterable[dict[str, Any]]) -> str:
    """The results as a table for the documents, sorted by source."""
    lines = [
        "| model | parameters | result | largest error | transposes | seconds | reason |",
        "|---|--:|---|--:|--:|--:|---|",
    ]
    number: Callable[[Any], str] = lambda n: f"{n:,}" if n is not None else ""
    for row in sorted(rows, key=lambda r: r["spec"]):
        error = f"{row['error_f64']:.0e}" if row.get("error_f64") is not None else ""
        reason = "" if row["status"] in GOOD else f"{row.get('reason', '')}: {first_line(row.get('message', ''))}"
        cells = (
            f"`{row['spec']}`", number(row.get("parameters")), row.get("verdict") or row["status"], error,
            number(row.get("transposes")), f"{row['seconds']:.0f}", re.sub(r"\s*\|\s*", " ", reason),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def first_line(text: str) -> str:
    return text.strip().splitlines()[0][:160] if text.strip() else ""


if __name__ == "__main__":
    sys.exit(main())
