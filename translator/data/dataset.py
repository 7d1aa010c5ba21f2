"""A labelled set of images, split once and for all, in the order of axes that both frameworks can be given from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """Images and their classes.

    train_x, test_x: (N, H, W, C) uint8. train_y, test_y: (N,) int64, an index into `classes`.
    mean, std: (C,) float64 of the training images scaled to [0, 1]. mirrors: a mirrored image has the same class.
    """

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    classes: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray
    mirrors: bool = True


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (C,) of (N, H, W, C) uint8 images scaled to [0, 1].

    Counted, not summed: exact in float64, and without a float copy of all images.
    """
    levels = np.arange(256) / 255.0
    shares = np.stack([np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[-1])])
    shares = shares / shares.sum(axis=1, keepdims=True)
    mean = shares @ levels
    return mean, np.sqrt((shares * (levels - mean[:, None]) ** 2).sum(axis=1))
