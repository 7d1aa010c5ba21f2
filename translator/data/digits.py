"""scikit-learn's 1,797 handwritten digits, made as large as CIFAR's images: data that is always there."""

from __future__ import annotations

import numpy as np

from translator.data.dataset import Dataset, channel_statistics

_SIZE = 32
_TEST_IMAGES = 360


def load_digits_32() -> Dataset:
    """1,437 training and 360 test images (32, 32, 3), the same split each time, each class in both in proportion."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = enlarge(images.reshape(-1, 8, 8), _SIZE)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels.astype(np.int64), test_size=_TEST_IMAGES, random_state=0, stratify=labels
    )
    mean, std = channel_statistics(train_x)
    return Dataset(
        train_x=train_x,
        train_y=train_y,
        test_x=test_x,
        test_y=test_y,
        classes=tuple("0123456789"),
        mean=mean,
        std=std,
        mirrors=False,
    )


def enlarge(images: np.ndarray, size: int) -> np.ndarray:
    """(N, H, H) values 0 … 16 → (N, size, size, 3) uint8 0 … 255, bilinear, the grey value in each channel."""
    matrix = _bilinear(images.shape[1], size)
    grey = np.rint(matrix @ images @ matrix.T * (255 / 16)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def _bilinear(old: int, new: int) -> np.ndarray:
    """(new, old): row i holds the shares of the old pixels in the new pixel i, pixel centres aligned, edges held."""
    centres = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    shares: np.ndarray = np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(old)))
    return shares
