"""CIFAR-10 from the pickled batches that its authors publish, read without running anything that a file brings."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np

from translator.data.dataset import Dataset, channel_statistics
from translator.errors import InputError

TRAIN_FILES = tuple(f"data_batch_{n}" for n in range(1, 6))
TEST_FILE = "test_batch"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_HARMLESS = frozenset(
    {
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.numeric", "_frombuffer"),
        ("_codecs", "encode"),
    }
)

_BROKEN = (
    pickle.UnpicklingError, struct.error, EOFError, ValueError, TypeError, AttributeError, ImportError, LookupError,
    ArithmeticError, MemoryError, RecursionError,
)  # fmt: skip
"""What unpickling raises on bytes that aren't what they should be."""


def load_cifar10(folder: str | Path) -> Dataset:
    """The data set in `folder` (or in its `cifar-10-batches-py`): data_batch_1 … data_batch_5 and test_batch.

    Raises InputError where a file is missing, truncated, of another format, or needs code to load.
    """
    home = Path(folder)
    if (home / "cifar-10-batches-py").is_dir():
        home = home / "cifar-10-batches-py"
    missing = [name for name in (*TRAIN_FILES, TEST_FILE) if not (home / name).is_file()]
    if missing:
        raise InputError(
            f"{home}: no CIFAR-10 here, missing {', '.join(missing)}",
            fix="unpack the archive cifar-10-python.tar.gz and give the folder that it makes",
        )
    parts = [_read_batch(home / name) for name in TRAIN_FILES]
    train_x = np.concatenate([images for images, _ in parts])
    test_x, test_y = _read_batch(home / TEST_FILE)
    mean, std = channel_statistics(train_x)
    return Dataset(
        train_x=train_x,
        train_y=np.concatenate([labels for _, labels in parts]),
        test_x=test_x,
        test_y=test_y,
        classes=CLASSES,
        mean=mean,
        std=std,
    )


class _TensorsOnly(pickle.Unpickler):
    """Builds numbers, strings, lists, dicts and numpy arrays; any other class or function is refused, never called."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) not in _HARMLESS:
            raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}, and only arrays are let in")
        return super().find_class(module_name, global_name)


def _read_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 32, 32, 3) uint8 and labels (N,) int64 of one file."""
    try:
        with path.open("rb") as file:
            batch = _TensorsOnly(file, encoding="bytes").load()
    except _BROKEN as error:
        raise InputError(f"{path}: not a whole CIFAR-10 batch: {error}", fix="unpack the archive again") from error
    if not isinstance(batch, dict):
        raise InputError(f"{path}: not a CIFAR-10 batch: a {type(batch).__name__} instead of a dictionary")
    data, labels = (batch.get(key, batch.get(key.decode())) for key in (b"data", b"labels"))
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise InputError(f"{path}: not a CIFAR-10 batch: want data of shape (N, 3072), uint8")
    if not isinstance(labels, list) or len(labels) != len(data) or not all(_is_label(label) for label in labels):
        raise InputError(f"{path}: not a CIFAR-10 batch: want {len(data)} labels from 0 to {len(CLASSES) - 1}")
    images = np.ascontiguousarray(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return images, np.array(labels, dtype=np.int64)


def _is_label(label: object) -> bool:
    return type(label) is int and 0 <= label < len(CLASSES)
