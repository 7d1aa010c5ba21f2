"""The batches of an epoch, shuffled and augmented by numpy alone: equal bit for bit whichever framework learns."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from translator.data.dataset import Dataset


def epoch_batches(
    data: Dataset, *, batch_size: int, seed: int, epoch: int, pad: int = 4
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images (N, H, W, C) uint8 and labels (N,) int64 of one training epoch; the last batch may be smaller.

    The order and the augmentation depend on `seed` and `epoch` alone, so a run that was interrupted goes on as it
    would have. Images are mirrored only where the data set says that this keeps the class.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(data.train_x))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        yield augment(data.train_x[chosen], rng, pad=pad, mirror=data.mirrors), data.train_y[chosen]


def augment(images: np.ndarray, rng: np.random.Generator, *, pad: int = 4, mirror: bool = True) -> np.ndarray:
    """Each image padded with `pad` zeros on every side, mirrored or not, and cut to its old size at a random place."""
    n, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    flips = np.asarray(rng.random(n) < 0.5)
    rows, columns = rng.integers(0, 2 * pad + 1, (2, n))
    if mirror:
        padded = np.where(flips[:, None, None, None], padded[:, :, ::-1], padded)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    return np.ascontiguousarray(windows[np.arange(n), rows, columns].transpose(0, 2, 3, 1))
