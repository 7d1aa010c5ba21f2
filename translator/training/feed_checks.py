"""What a user's own pipeline feeds their Keras model: is it PyTorch's batch, and if not, what was done to it?"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from translator.training.pairing import Pairing
from translator.training.torch_side import Batch
from translator.training.user_recipe import Prepare, name_of
from translator.user_code import users_code
from translator.verdict import Difference, Effect


def fed_wrongly(pairing: Pairing, prepare: Prepare, batch: Batch, loss: Any) -> Iterator[Difference]:
    """What is wrong with the batches that the user's pipeline makes."""
    given = next(a for a in batch.args if isinstance(a, torch.Tensor))
    images, labels = (np.asarray(part) for part in fed(prepare, batch))
    want, right = pairing.keras_inputs(batch, torch.float32), batch.target.numpy()
    if images.shape != want.shape or not np.array_equal(images, want):
        order = _order(images, want)
        if order is not None:
            yield _another_order(order)
            right = right[order]
        else:
            yield _images(images, want, given.numpy())
    wrong_form = list(labels_wrong(labels, right, loss))
    yield from wrong_form or _labels_of_others(labels, right)


def fed(prepare: Prepare, batch: Batch) -> tuple[Any, Any]:
    """What the user's pipeline makes of a batch. Raises InputError where it raises."""
    given = next(a for a in batch.args if isinstance(a, torch.Tensor))
    with users_code("the pipeline of the Keras side raised:"):
        images, labels = prepare(given.numpy().copy(), batch.target.numpy().copy())
    return images, labels


def labels_fed(pairing: Pairing, prepare: Prepare, batch: Batch) -> np.ndarray:
    """The labels that the user's pipeline makes, each beside PyTorch's example where the order alone is another."""
    images, labels = (np.asarray(part) for part in fed(prepare, batch))
    order = _order(images, pairing.keras_inputs(batch, torch.float32))
    return labels if order is None else labels[np.argsort(order)]


def _order(got: np.ndarray, want: np.ndarray) -> np.ndarray | None:
    """Which example of the right batch each one is, where they are the same examples in another order."""
    if got.shape != want.shape:
        return None
    found = [[k for k, other in enumerate(want) if np.array_equal(one, other)] for one in got]
    order = [places[0] for places in found if len(places) == 1]
    return np.asarray(order) if sorted(order) == list(range(len(want))) else None


def _another_order(order: np.ndarray) -> Difference:
    return Difference(
        kind="batch-order",
        layers=("input",),
        torch="the examples in the order of the data",
        keras=f"the same examples in another order: {', '.join(map(str, order[:8]))} …",
        effect=Effect.NOTHING,
        fix="fit(shuffle=False), and one source of order for both sides: translator.training.loaders",
        detail="within a batch the order is rounding alone; batches of other examples would train otherwise",
        allowed=True,
    )


def _images(got: np.ndarray, want: np.ndarray, raw: np.ndarray) -> Difference:
    kind = "batch-layout"
    changed = _augmented(got, want)
    if got.shape == raw.shape and np.array_equal(got, raw):
        fix = "transpose the batch: np.transpose(images, (0, 2, 3, 1))"
        words = ("N, C, H, W", "N, C, H, W where the model reads N, H, W, C")
    elif changed:
        kind, fix = "batch-augmented", "the same augmentation on both sides: translator.training.loaders draws it once"
        words = ("the images as they are", changed)
    elif got.size == want.size and np.array_equal(np.sort(got.ravel()), np.sort(want.ravel())):
        fix = "transpose, don't reshape: np.transpose(images, (0, 2, 3, 1))"
        words = ("N, C, H, W", "the same numbers in another order")
    else:
        kind, fix = "batch-values", "scale and normalise the images as on the PyTorch side"
        words = (values_of(want), f"{values_of(got)}, shape {got.shape}")
    return Difference(
        kind=kind, layers=("input",), torch=words[0], keras=words[1], effect=Effect.TRAINING, fix=fix
    )  # fmt: skip


def _augmented(got: np.ndarray, want: np.ndarray) -> str:
    """How many images are mirrored or moved, where each is its original mirrored, moved, or as it was; else nothing."""
    if got.shape != want.shape or got.ndim != 4:
        return ""
    done = [_change(one, other) for one, other in zip(got, want, strict=True)]
    if any(change is None for change in done):
        return ""
    mirrored, moved = sum(change[0] for change in done if change), sum(change[1] for change in done if change)
    return f"of {len(done)} images {mirrored} are mirrored and {moved} moved"


def _change(got: np.ndarray, want: np.ndarray) -> tuple[bool, bool] | None:
    """Whether an image (H, W, C) was mirrored, and whether moved over a margin of zeros; None: neither made it."""
    reach = min(_FARTHEST, *(size - 1 for size in want.shape[:2]))
    padded = np.pad(want, ((reach, reach), (reach, reach), (0, 0)))
    height, width = want.shape[:2]
    moves = sorted(
        itertools.product(range(2 * reach + 1), repeat=2), key=lambda m: abs(m[0] - reach) + abs(m[1] - reach)
    )
    for down, right in moves:
        part = padded[down : down + height, right : right + width]
        for mirrored in (False, True):
            if np.array_equal(got, part[:, ::-1] if mirrored else part):
                return mirrored, (down, right) != (reach, reach)
    return None


_FARTHEST = 8
"""How many pixels an image may have been moved by: twice the usual padding."""


def labels_wrong(labels: np.ndarray, want: np.ndarray, loss: Any) -> Iterator[Difference]:
    """One-hot labels for a sparse loss, or integers for a categorical one."""
    name, integer = name_of(loss), want.dtype.kind in "iu"
    if not integer:
        return
    one_hot = _one_hot(labels, want)
    if "Sparse" in name and one_hot:
        fix = "labels.argmax(axis=-1), or keras.losses.CategoricalCrossentropy(from_logits=True)"
        yield _label_difference(f"one-hot labels {labels.shape} in {name}", fix)
    elif name == "CategoricalCrossentropy" and not one_hot:
        fix = "keras.losses.SparseCategoricalCrossentropy(from_logits=True), or keras.utils.to_categorical(labels)"
        yield _label_difference(f"integer labels {labels.shape} in {name}", fix)


def _labels_of_others(labels: np.ndarray, want: np.ndarray) -> Iterator[Difference]:
    """Labels in a right form whose values aren't those of the examples that they stand beside."""
    integer = want.dtype.kind in "iu"
    got = labels.argmax(axis=-1) if integer and _one_hot(labels, want) else labels
    if got.size == want.size:
        wrong = int(np.sum(np.asarray(got, np.float64).ravel() != np.asarray(want, np.float64).ravel()))
        if wrong and (integer or want.ndim <= _VECTORS):  # maps of numbers lie otherwise in Keras
            words = f"{wrong} of {want.size} differ"
            yield Difference(
                kind="labels", layers=("loss",), torch="each example's own label", keras=words,
                effect=Effect.TRAINING, fix="shuffle images and labels together, and change neither alone",
            )  # fmt: skip


_VECTORS = 2
"""Axes of targets that lie alike on both sides: one number or one row for each example."""


def _one_hot(labels: np.ndarray, want: np.ndarray) -> bool:
    flat = labels.reshape(len(labels), -1)
    return flat.shape[1] > want[0].size and bool(np.all(np.isin(flat, (0, 1)))) and bool(np.all(flat.sum(1) == 1))


def _label_difference(words: str, fix: str) -> Difference:
    return Difference(
        kind="labels", layers=("loss",), torch="integer labels (N,)", keras=words, effect=Effect.TRAINING, fix=fix
    )


def values_of(array: Any) -> str:
    """The span of an array's values, in words."""
    array = np.asarray(array)
    return f"values {array.min():.3g} … {array.max():.3g}"
