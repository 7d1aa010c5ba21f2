"""A small CIFAR-10 in the real format, and networks that learn it in seconds."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from translator.data.cifar import TEST_FILE, TRAIN_FILES

TINY = ("--blocks", "1,1,1", "--batch-size", "16")


def small_cifar(folder: Path) -> Path:
    """The folder with 80 images to train on and 16 to test with."""
    rng = np.random.default_rng(0)
    for name in (*TRAIN_FILES, TEST_FILE):
        data, labels = rng.integers(0, 256, (16, 3072), dtype=np.uint8), [int(n) for n in rng.integers(0, 10, 16)]
        (folder / name).write_bytes(pickle.dumps({b"data": data, b"labels": labels}, protocol=2))
    return folder
