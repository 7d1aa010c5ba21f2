#!/usr/bin/env python
"""Measure that training agrees on both sides, and write the figures into docs/training.md.

    scripts/bench_training.py steps          50 steps in float64, two networks, two optimizers, both BatchNorms
    scripts/bench_training.py gradients      every gradient of thirteen torchvision networks
    scripts/bench_training.py digits         both scripts on the digits, and from one framework to the other and back
    scripts/bench_training.py curves         table and plot of the digits again, from the runs that are kept
    scripts/bench_training.py seeds          float32: right answers of either side, and of PyTorch summed otherwise
    scripts/bench_training.py interrupted    both scripts killed at twenty random moments, and resumed
    scripts/bench_training.py steps --docs   also put the table into docs/training.md

Each prints a Markdown table; it is kept in out/bench_training, too. The exit status is 1 where a figure isn't as it
should be.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts.interrupted import interrupted  # noqa: E402
from translator.config import ParityRequest, SourceRequest  # noqa: E402

OUT = ROOT / "out" / "bench_training"
DOCS = ROOT / "docs" / "training.md"
LIMIT = 1e-8
RESNETS = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d",
    "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2",
)  # fmt: skip
NETWORKS = (*RESNETS, "mobilenet_v2", "efficientnet_b0", "vit_b_16?image_size=64")
Table = tuple[list[list[str]], bool]
"""Rows of cells, the head first; and whether every figure is as it should be."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--docs", action="store_true", help="put the table into docs/training.md")
    parser.add_argument("--only", nargs="*", default=[], help="rows whose first cells contain one of these")
    options = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    rows, good = PARTS[options.part](options.only)
    part = "digits" if options.part == "curves" else options.part
    kept = OUT / f"{part}.md"
    text = markdown(merged(kept, rows) if options.only else rows)
    kept.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    if options.docs:
        into_docs(part, text)
    return 0 if good else 1


def merged(kept: Path, rows: list[list[str]]) -> list[list[str]]:
    """The rows of an earlier run whose head is the same, with those that were measured anew in their places."""
    text = kept.read_text(encoding="utf-8") if kept.exists() else ""
    old = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    if not old or old[0] != rows[0]:
        return rows
    count = 3 if "BatchNorm" in rows[0] else 1
    found = {tuple(row[:count]): row for row in (*old[2:], *rows[1:])}
    return [rows[0], *found.values()]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table whose first row is the head."""
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|---" * len(rows[0]) + "|", *body]) + "\n"


def into_docs(part: str, text: str) -> None:
    """Put a table between its two marks."""
    begin, end = f"<!-- {part}: scripts/bench_training.py {part} --docs -->", f"<!-- end of {part} -->"
    page = DOCS.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(page):
        raise SystemExit(f"{DOCS}: has no place for {part}: {begin} … {end}")
    DOCS.write_text(pattern.sub(lambda _: f"{begin}\n\n{text}\n{end}", page), encoding="utf-8")


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1e}" if value else "0"


def steps(only: Sequence[str]) -> Table:
    """50 steps in float64, with either optimizer and either BatchNorm."""
    from translator.training.parity import run_parity

    rows = [["network", "optimizer", "BatchNorm", "verdict", "loss", "gradients", "weights", "means", "variances",
             "variances, predicted", "optimizer's state"]]  # fmt: skip
    good = True
    for spec, shape in (("models/cifar_resnet.py:resnet", ()), ("torchvision:resnet18", ((8, 3, 64, 64),))):
        for optimizer, rate in (("sgd", 0.01), ("adam", 1e-3)):
            for exact in (True, False):
                norm = "exact" if exact else "Keras' own"
                name = "CIFAR ResNet" if "models/" in spec else "resnet18, 64x64"
                if only and not any(text in f"{name} {optimizer} {norm}" for text in only):
                    continue
                source = SourceRequest(spec=spec, input_shapes=shape)
                report = run_parity(
                    ParityRequest(
                        source=source, optimizer=optimizer, learning_rate=rate, exact_batchnorm=exact, float32=False
                    )
                )
                worst = {
                    name: max((v for row in report.steps if (v := getattr(row, name)) is not None), default=None)
                    for name in ("loss_error", "gradient", "weight", "statistic", "variance", "predicted", "state")
                }
                good &= report.exit_status == 0 and len(report.steps) == 50
                figures = [number(None if exact and key == "predicted" else value) for key, value in worst.items()]
                rows.append([name, optimizer, norm, report.verdict, *figures])
                print(*rows[-1], file=sys.stderr, flush=True)
    return rows, good


def gradients(only: Sequence[str]) -> Table:
    """The gradient of every parameter, dropout switched off.

    One step shows them all; two where a head begins at zero and hides what lies behind it.
    """
    from translator.errors import TranslatorError
    from translator.training.parity import run_parity

    rows = [["network", "parameters compared", "steps", "largest error of a gradient", "at",
             "largest error of a weight"]]  # fmt: skip
    good = True
    for name in NETWORKS:
        if only and not any(text in name for text in only):
            continue
        source = SourceRequest(spec=f"torchvision:{name}", input_shapes=((4, 3, 64, 64),))
        steps = 2 if name.startswith("vit") else 1
        request = ParityRequest(source=source, steps=steps, batch=4, exact_batchnorm=True, float32=False)
        try:
            report = run_parity(request)
        except TranslatorError as error:
            rows.append([name, "–", str(steps), str(error).splitlines()[0], "–", "–"])
            good = False
        else:
            graded = [row for row in report.tensors if row.gradient is not None]
            worst = max(graded, key=lambda row: row.gradient or 0.0)
            good &= report.exit_status == 0 and (worst.gradient or 0.0) <= LIMIT
            heaviest = number(max(row.weight for row in graded))
            rows.append([name, str(len(graded)), str(steps), number(worst.gradient), worst.torch, heaviest])
        print(*rows[-1], file=sys.stderr, flush=True)
    return rows, good


def digits(_: Sequence[str]) -> Table:
    """Ten epochs in either framework in float64, and five in PyTorch, five in Keras, two in PyTorch again.

    In float32 rounding grows until two runs part, so there PyTorch runs twice: the second time with other kernels,
    which sum in another order.
    """
    folder = OUT / "digits"
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()

    def run(side: str, epochs: int, output: str, history: str, *more: object, **kernels: str) -> None:
        trained(side, epochs, folder / output, folder / f"{history}.csv", *more, **kernels)

    exact, back = ("--precision", "float64"), folder / "third.ckpt.state"
    run("PyTorch", 12, "torch.ckpt", "torch", *exact)
    run("Keras", 10, "keras.keras", "keras", *exact)
    run("PyTorch", 5, "first.ckpt", "over", *exact)
    run("Keras", 10, "second.keras", "over", "--from-torch", folder / "first.ckpt.state", "--to-torch", back, *exact)
    run("PyTorch", 12, "third.ckpt", "over", "--resume", *exact)
    run("PyTorch", 10, "torch32.ckpt", "torch32")
    run("PyTorch", 10, "again32.ckpt", "again32", **OTHER_KERNELS)
    run("Keras", 10, "keras32.keras", "keras32")
    return histories_of(folder)


def trained(side: str, epochs: int, output: Path, history: Path, *more: object, **kernels: str) -> None:
    """One run of a training script."""
    files = ["-o", output, "--history", history]
    command = [sys.executable, TRAIN[side], "--epochs", epochs, *files, *more]
    environment = {**os.environ, **kernels}
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL, env=environment)


def seeds(only: Sequence[str]) -> Table:
    """Right answers of 360 after ten epochs in float32, for several seeds. --only takes the seeds.

    Nothing is judged: what is shown is how far rounding alone drives PyTorch from itself. A seed that was measured is
    not measured again.
    """
    folder = OUT / "seeds"
    folder.mkdir(exist_ok=True)
    runs = {"PyTorch": {}, "PyTorch, one thread": {"OMP_NUM_THREADS": "1"}, "Keras": {}}
    rows = [["seed", *runs, "PyTorch from itself", "Keras from PyTorch"]]
    for seed in map(int, only or range(5)):
        right = []
        for name, kernels in runs.items():
            history = folder / f"{seed} {name}.csv"
            if not history.exists() or len(list(read(history))) < 10:
                history.unlink(missing_ok=True)
                output = folder / ("run.keras" if name == "Keras" else "run.ckpt")
                side = name.partition(",")[0]
                trained(side, 10, output, history, "--seed", seed, "--force", **kernels)
            right.append([found for _, found in read(history)][9])
        mine, again, keras = right
        rows.append([str(seed), *map(str, right), str(abs(again - mine)), str(abs(keras - mine))])
        print(*rows[-1], file=sys.stderr, flush=True)
    return rows, True


def histories_of(folder: Path) -> Table:
    """The runs beside each other, epoch by epoch, and their plot. A loss is given as its distance from PyTorch's."""
    histories = {name: list(read(folder / f"{name}.csv")) for name in RUNS}
    rows = [["epoch", "PyTorch: loss"]]
    rows[0] += [f"{RUNS[name]}: {what}" for name in RUNS for what in ("loss apart", "right of 360")[name in STARTS :]]
    good = True
    for epoch in range(1, 13):
        rows.append([str(epoch), f"{histories['torch'][epoch - 1][0]:.6f}"])
        for name, history in histories.items():
            start = start_of(name)
            if epoch > len(history):
                rows[-1] += [""] * (1 if name in STARTS else 2)
                continue
            (loss, right), (other, others) = histories[start][epoch - 1], history[epoch - 1]
            apart = abs(other - loss) / loss
            rows[-1] += [*([] if name in STARTS else [number(apart)]), str(others)]
            good &= start != "torch" or (apart <= LIMIT and abs(others - right) <= 1)
    plot(histories)
    return rows, good


TRAIN = {"PyTorch": ROOT / "scripts" / "train_cifar.py", "Keras": ROOT / "scripts" / "train_cifar_keras.py"}

STARTS = ("torch", "torch32")
"""What the others are held against."""

RUNS = {
    "torch": "PyTorch",
    "keras": "Keras",
    "over": "over and back",
    "torch32": "PyTorch, float32",
    "again32": "PyTorch, float32, other kernels",
    "keras32": "Keras, float32",
}
OTHER_KERNELS = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}
"""PyTorch without AVX: the same sums in another order."""


def read(history: Path) -> Iterator[tuple[float, int]]:
    """Loss and right answers after each epoch."""
    with history.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield float(row["loss"]), int(row["right"])


def plot(histories: dict[str, list[tuple[float, int]]]) -> None:
    """The loss curves on one plot, and beside them how far apart they are: docs/training_digits.svg."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, apart = figure.subplots(1, 2)
    for (name, history), line in zip(histories.items(), LINES, strict=True):
        curve = [loss for loss, _ in history]
        epochs = range(1, len(curve) + 1)
        (drawn,) = losses.plot(epochs, curve, line, label=RUNS[name], lw=2)
        if name not in STARTS:
            start = [loss for loss, _ in histories[start_of(name)]]
            distance = [abs(b - a) / a or float("nan") for a, b in zip(start, curve, strict=False)]
            apart.plot(epochs, distance, line, color=drawn.get_color(), lw=2)
    losses.set(xlabel="epoch", ylabel="mean training loss", yscale="log", title="Digits: one start, six runs")
    apart.set(xlabel="epoch", yscale="log", title="Relative distance from PyTorch's loss")
    losses.legend(frameon=False)
    for axes in (losses, apart):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(ROOT / "docs" / "training_digits.svg", metadata={"Date": None})


def start_of(name: str) -> str:
    """The run that this one is held against."""
    return "torch32" if name.endswith("32") else "torch"


LINES = ("-", "--", ":", "-", "-.", "--")


def killed(only: Sequence[str]) -> Table:
    """Both scripts killed at twenty random moments each."""
    head = ["script", "kills", "before any checkpoint", "resumed from a whole one", "epochs", "end, against one go"]
    rows = [head]
    good = True
    for script in ("train_cifar.py", "train_cifar_keras.py"):
        if only and not any(text in script for text in only):
            continue
        found = interrupted(script, OUT / "interrupted")
        rows.append([script, str(found.kills), str(found.before), str(found.resumed), str(found.epochs), found.end])
        good &= found.good
    return rows, good


PARTS: dict[str, Callable[[Sequence[str]], Table]] = {
    "steps": steps,
    "gradients": gradients,
    "digits": digits,
    "seeds": seeds,
    "curves": lambda _: histories_of(OUT / "digits"),
    "interrupted": killed,
}


if __name__ == "__main__":
    sys.exit(main())
