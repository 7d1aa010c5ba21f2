"""The same batches for both frameworks: decided and augmented by numpy, then laid out as each one wants them.

`epoch_batches` (translator.data.batches) decides order, flips and crops from (seed, epoch) alone, so both sides see the
same numbers bit for bit, and a run that was interrupted sees what it would have seen.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from translator.data.batches import epoch_batches
from translator.data.dataset import Dataset

if TYPE_CHECKING:
    import keras
    import torch

Labels = Literal["column", "flat", "one-hot"]
"""(N, 1) as Keras' own data sets have them, (N,) as PyTorch, or (N, classes)."""


def to_keras_arrays(
    images: np.ndarray, labels: np.ndarray, classes: int, form: Labels = "column", *, floats: str = "float32"
) -> tuple[np.ndarray, np.ndarray]:
    """(N, H, W, C) uint8 → floats in [0, 1], the same order of axes; labels in that form, int64 or one-hot floats."""
    scaled = _scaled(images, floats)
    if form == "one-hot":
        return scaled, np.eye(classes, dtype=floats)[labels]
    return scaled, labels[:, None] if form == "column" else labels


def to_torch_tensors(
    images: np.ndarray, labels: np.ndarray, *, floats: str = "float32"
) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, H, W, C) uint8 → (N, C, H, W) floats in [0, 1]; labels (N,) int64."""
    import torch

    scaled = _scaled(images, floats).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(scaled)), torch.from_numpy(labels)


def _scaled(images: np.ndarray, floats: str) -> np.ndarray:
    scaled: np.ndarray = images.astype(floats) / np.dtype(floats).type(255)
    return scaled


def torch_epoch(
    data: Dataset, *, batch_size: int, seed: int, epoch: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of one training epoch for a PyTorch loop."""
    for images, labels in epoch_batches(data, batch_size=batch_size, seed=seed, epoch=epoch):
        yield to_torch_tensors(images, labels)


def keras_epochs(
    data: Dataset,
    *,
    batch_size: int,
    seed: int,
    first_epoch: int = 0,
    labels: Labels = "column",
    floats: str = "float32",
) -> keras.utils.PyDataset:
    """All epochs for `model.fit`, on every backend: each epoch is drawn when the one before has ended.

    first_epoch: where a resumed run goes on; give `fit` the same `initial_epoch`.
    """
    import keras

    class Epochs(keras.utils.PyDataset):  # type: ignore[misc]
        """The batches of the current epoch, in their order. Give `shuffle=False` to fit: they are shuffled."""

        def __init__(self) -> None:
            super().__init__(workers=1, use_multiprocessing=False)
            self.epoch, self._begun = first_epoch, 0
            self._drawn: tuple[int, list[tuple[np.ndarray, np.ndarray]]] = (-1, [])

        def __len__(self) -> int:
            return math.ceil(len(data.train_x) / batch_size)

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            epoch, (drawn, batches) = self.epoch, self._drawn
            if drawn != epoch:  # prefetching threads ask, too: each goes by the epoch that it saw
                batches = list(epoch_batches(data, batch_size=batch_size, seed=seed, epoch=epoch))
                self._drawn = (epoch, batches)
            return to_keras_arrays(*batches[index], len(data.classes), labels, floats=floats)

        def on_epoch_begin(self) -> None:
            """Go on to the next epoch, its order, flips and crops. At its begin: fit ends one before the first."""
            self.epoch = first_epoch + self._begun
            self._begun += 1

    return Epochs()


def tensorflow_epoch(data: Dataset, *, batch_size: int, seed: int, epoch: int, labels: Labels = "column") -> Any:
    """One training epoch as a `tf.data.Dataset`, prepared ahead while the model learns. TensorFlow only."""
    return _tensorflow(data, lambda: (epoch,), batch_size, seed, labels, "float32")


def tensorflow_epochs(
    data: Dataset,
    *,
    batch_size: int,
    seed: int,
    first_epoch: int = 0,
    labels: Labels = "column",
    floats: str = "float32",
) -> Any:
    """All epochs, one after the other and without end, as a `tf.data.Dataset` for `model.fit`. TensorFlow only.

    first_epoch: where a resumed run goes on. Give `fit` the same `initial_epoch`, and `steps_per_epoch`.
    """
    return _tensorflow(data, lambda: itertools.count(first_epoch), batch_size, seed, labels, floats)


def _tensorflow(
    data: Dataset, epochs: Callable[[], Iterable[int]], batch_size: int, seed: int, labels: Labels, floats: str
) -> Any:
    import tensorflow as tf

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for epoch in epochs():
            for images, classes in epoch_batches(data, batch_size=batch_size, seed=seed, epoch=epoch):
                yield to_keras_arrays(images, classes, len(data.classes), labels, floats=floats)

    columns = {"column": (None, 1), "flat": (None,), "one-hot": (None, len(data.classes))}[labels]
    signature = (
        tf.TensorSpec((None, *data.train_x.shape[1:]), floats),
        tf.TensorSpec(columns, floats if labels == "one-hot" else tf.int64),
    )
    return tf.data.Dataset.from_generator(batches, output_signature=signature).prefetch(2)
