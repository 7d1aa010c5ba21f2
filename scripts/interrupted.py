"""Kill a training script at random moments, resume it each time, and compare the end with an uninterrupted run."""

from __future__ import annotations

import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
KILLS = 20
TINY = ("--blocks", "1,1,1", "--batch-size", "16")
MORE_EPOCHS = 3
SPAN = 6.0
"""Seconds of training within which a kill falls, after the time that a start takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted:
    """What twenty kills did. before: kills before there was any checkpoint. resumed: resumed from a whole one.

    end: how the weights differ from those of a run of as many epochs in one go.
    """

    kills: int
    before: int
    resumed: int
    epochs: int
    end: str
    good: bool


def interrupted(script: str, folder: Path) -> Interrupted:
    """Kill the script twenty times at random moments, then let it end, and run it once in one go."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    data, choose = small_cifar(folder / "data"), random.Random(script)
    suffix = ".keras" if "keras" in script else ".ckpt"
    output = folder / f"killed{suffix}"
    command = [sys.executable, str(ROOT / "scripts" / script), "--data", str(data), *TINY]
    start = time.perf_counter()
    finish([*command, "--epochs", "1", "-o", str(folder / f"warm{suffix}")])
    starting = time.perf_counter() - start
    before = resumed = epoch = 0
    for kill in range(KILLS):
        endless = [*command, "--epochs", "100000", "-o", str(output), "--resume"]
        run = subprocess.Popen(endless, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(choose.uniform(0.5 * starting, starting + SPAN))
        run.send_signal(signal.SIGKILL)
        if run.wait() != -signal.SIGKILL:
            raise SystemExit(f"{script}: did not start or resume, before kill {kill + 1}: exit status {run.returncode}")
        found = epoch_of(output)
        before, resumed = before + (found == 0), resumed + (found > 0 and found >= epoch)
        print(f"{script}: kill {kill + 1}, epoch {found}", file=sys.stderr, flush=True)
        epoch = found
    epoch += MORE_EPOCHS
    finish([*command, "--epochs", str(epoch), "-o", str(output), "--resume"])
    whole = folder / f"whole{suffix}"
    finish([*command, "--epochs", str(epoch), "-o", str(whole)])
    farthest = max(float(np.abs(a - b).max(initial=0)) for a, b in zip(weights(output), weights(whole), strict=True))
    return Interrupted(
        kills=KILLS,
        before=before,
        resumed=resumed,
        epochs=epoch,
        end="bit for bit" if farthest == 0 else f"weights differ by up to {farthest:.1e}",
        good=before + resumed == KILLS and epoch_of(output) == epoch and farthest < 1e-3,
    )


def finish(command: list[str]) -> None:
    """Run the script to its end."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def small_cifar(folder: Path) -> Path:
    """Eighty training images in CIFAR-10's format: epochs are so short that kills fall on saves, too."""
    from translator.data.cifar import TEST_FILE, TRAIN_FILES

    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in (*TRAIN_FILES, TEST_FILE):
        images, labels = rng.integers(0, 256, (16, 3072), dtype=np.uint8), rng.integers(0, 10, 16).tolist()
        (folder / name).write_bytes(pickle.dumps({b"data": images, b"labels": labels}, protocol=2))
    return folder


def epoch_of(output: Path) -> int:
    """How many epochs the checkpoint holds, loaded whole; 0 where there is none yet. A broken one raises."""
    if output.suffix == ".keras":
        if not output.exists():
            return 0
        return int(_keras_model(output).optimizer.iterations) // 5
    import torch

    state = output.with_name(output.name + ".state")
    if output.exists():
        torch.load(output, weights_only=True)
    return int(torch.load(state, weights_only=True)["epoch"]) if state.exists() else 0


def weights(output: Path) -> list[np.ndarray]:
    """All weights in a checkpoint."""
    if output.suffix == ".keras":
        return list(_keras_model(output).get_weights())
    import torch

    return [tensor.numpy() for tensor in torch.load(output, weights_only=True).values()]


def _keras_model(path: Path) -> Any:
    from translator import runtime

    runtime.prepare(quiet=True)
    import keras

    import translator.training.registered  # noqa: F401  the file names its classes

    return keras.models.load_model(path)
