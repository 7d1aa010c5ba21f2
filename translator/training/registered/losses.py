"""PyTorch's losses as Keras losses, for the settings that Keras' own losses don't have.

The reduction "mean" is PyTorch's: over every element, or over the weights of the valid targets in a weighted cross
entropy. Everything is computed in the dtype of the loss, so under `floatx` float64 nothing is rounded to float32.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

_LOG_FLOOR = -100.0
_DENOMINATOR_FLOOR = 9.999999960041972e-13  # PyTorch writes 1e-12 as a float32

register = keras.saving.register_keras_serializable(package="translator")


@register
class CrossEntropy(keras.losses.Loss):  # type: ignore[misc]
    """`torch.nn.CrossEntropyLoss` with class weights, `ignore_index` and label smoothing; `torch.nn.NLLLoss` as well.

    Shapes: y_pred (N, *S, K) with the classes on `axis`; y_true (N, *S) or (N, *S, 1) integers, or, with
    `targets="probabilities"`, the shape of y_pred.
    class_weights: K numbers, or None. ignore_index: the label that counts for nothing, or None.
    log_probabilities: y_pred are logarithms of probabilities, not logits: that is NLLLoss.
    A batch whose every label is ignored has the mean NaN, as in PyTorch.
    """

    def __init__(
        self,
        class_weights: Sequence[float] | None = None,
        ignore_index: int | None = -100,
        label_smoothing: float = 0.0,
        targets: str = "indices",
        log_probabilities: bool = False,
        axis: int = -1,
        reduction: str = "mean",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        if targets not in {"indices", "probabilities"}:
            raise ValueError(f"targets must be 'indices' or 'probabilities', got {targets!r}")
        self.class_weights = None if class_weights is None else [float(w) for w in class_weights]
        self.ignore_index, self.label_smoothing = ignore_index, float(label_smoothing)
        self.targets, self.log_probabilities, self.axis = targets, log_probabilities, axis

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of each position, scaled so that their plain mean is PyTorch's mean."""
        if self.axis not in (-1, len(y_pred.shape) - 1):
            y_pred = ops.moveaxis(y_pred, self.axis, -1)
            if self.targets == "probabilities":
                y_true = ops.moveaxis(y_true, self.axis, -1)
        logs = y_pred if self.log_probabilities else ops.log_softmax(y_pred, axis=-1)
        if self.targets == "probabilities":
            return self._of_probabilities(y_true, logs)
        if len(y_true.shape) == len(logs.shape) and y_true.shape[-1] == 1:
            y_true = ops.squeeze(y_true, axis=-1)
        return self._of_indices(ops.cast(y_true, "int32"), logs)

    def _of_probabilities(self, y_true: Any, logs: Any) -> Any:
        if self.label_smoothing:
            y_true = y_true * (1.0 - self.label_smoothing) + self.label_smoothing / logs.shape[-1]
        weighted = logs if self.class_weights is None else logs * ops.convert_to_tensor(self.class_weights, logs.dtype)
        return -ops.sum(y_true * weighted, axis=-1)

    def _of_indices(self, labels: Any, logs: Any) -> Any:
        valid = ops.ones_like(labels, dtype="bool") if self.ignore_index is None else labels != self.ignore_index
        labels = ops.where(valid, labels, ops.zeros_like(labels))
        zero = ops.zeros((), logs.dtype)
        share = ops.ones_like(logs[..., 0])
        if self.class_weights is not None:
            weights = ops.convert_to_tensor(self.class_weights, logs.dtype)
            share, every = ops.take(weights, labels, axis=0), logs * weights
        else:
            every = logs
        share = ops.where(valid, share, zero)
        chosen = ops.squeeze(ops.take_along_axis(logs, ops.expand_dims(labels, -1), axis=-1), axis=-1)
        loss = ops.where(valid, -share * chosen, zero)
        if self.label_smoothing:
            spread = ops.where(valid, -ops.sum(every, axis=-1), zero)
            loss = (1.0 - self.label_smoothing) * loss + (self.label_smoothing / logs.shape[-1]) * spread
        if self.reduction in ("mean", "sum_over_batch_size", "mean_with_sample_weight"):
            count = ops.cast(ops.prod(ops.convert_to_tensor(ops.shape(loss), "int32")), loss.dtype)
            loss = loss * (count / ops.sum(share))
        return loss

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {
            **super().get_config(),
            "class_weights": self.class_weights,
            "ignore_index": self.ignore_index,
            "label_smoothing": self.label_smoothing,
            "targets": self.targets,
            "log_probabilities": self.log_probabilities,
            "axis": self.axis,
        }


class _Elementwise(keras.losses.Loss, ABC):  # type: ignore[misc]
    """A loss of each element, reduced over all of them: "mean", "sum" or "none", each as in PyTorch.

    Keras' own losses average over the last axis first, so their "sum" and "none" are other numbers.
    """

    def __init__(self, reduction: str = "mean", name: str | None = None, dtype: Any = None) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        if tuple(y_true.shape)[1:] != tuple(y_pred.shape)[1:]:
            raise ValueError(f"{type(self).__name__}: targets {y_true.shape} and predictions {y_pred.shape} differ")
        return self.element(y_true, y_pred)

    @abstractmethod
    def element(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of each element, of the shape of both."""


@register
class SquaredError(_Elementwise):
    """`torch.nn.MSELoss`; Keras' MeanSquaredError is the same for the reduction "mean" only."""

    def element(self, y_true: Any, y_pred: Any) -> Any:
        """(y_pred − y_true)² of each element."""
        return ops.square(y_pred - y_true)


@register
class AbsoluteError(_Elementwise):
    """`torch.nn.L1Loss`; Keras' MeanAbsoluteError is the same for the reduction "mean" only."""

    def element(self, y_true: Any, y_pred: Any) -> Any:
        """|y_pred − y_true| of each element; its gradient at 0 is 0."""
        return ops.abs(y_pred - y_true)


@register
class HuberError(_Elementwise):
    """`torch.nn.HuberLoss`; Keras' Huber is the same for the reduction "mean", until it is saved: it forgets delta."""

    def __init__(self, delta: float = 1.0, reduction: str = "mean", name: str | None = None, dtype: Any = None) -> None:
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        self.delta = float(delta)

    def element(self, y_true: Any, y_pred: Any) -> Any:
        """½d² up to delta, delta·(|d| − ½delta) beyond."""
        size = ops.abs(y_pred - y_true)
        return ops.where(size < self.delta, 0.5 * size * size, self.delta * (size - 0.5 * self.delta))

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {**super().get_config(), "delta": self.delta}


@register
class SmoothL1(_Elementwise):
    """`torch.nn.SmoothL1Loss`, which Keras lacks: Huber divided by beta."""

    def __init__(self, beta: float = 1.0, reduction: str = "mean", name: str | None = None, dtype: Any = None) -> None:
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        self.beta = float(beta)

    def element(self, y_true: Any, y_pred: Any) -> Any:
        """½d²/beta up to beta, |d| − ½beta beyond; beta 0 is the absolute error."""
        size = ops.abs(y_pred - y_true)
        if not self.beta:
            return size
        return ops.where(size < self.beta, 0.5 * size * size / self.beta, size - 0.5 * self.beta)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {**super().get_config(), "beta": self.beta}


@register
class BinaryCrossEntropy(_Elementwise):
    """`torch.nn.BCELoss`: probabilities; each logarithm is cut off at −100, where Keras clips the probability at 1e-7.

    weight: numbers that multiply the elements, by the rules of broadcasting; nested lists, or None.
    """

    def __init__(self, weight: Any = None, reduction: str = "mean", name: str | None = None, dtype: Any = None) -> None:
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        self.weight = weight

    def element(self, y_true: Any, y_pred: Any) -> Any:
        """The value with cut-off logarithms, and PyTorch's gradient (p − t) / max(p(1 − p), 1e-12).

        That gradient isn't the derivative of the cut-off value; so the value is held and a term is added that is
        zero and has the gradient.
        """
        floor = ops.convert_to_tensor(_LOG_FLOOR, y_pred.dtype)
        p = ops.stop_gradient(y_pred)
        value = -(y_true * ops.maximum(ops.log(p), floor) + (1.0 - y_true) * ops.maximum(ops.log1p(-p), floor))
        slope = (p - y_true) / ops.maximum(p * (1.0 - p), _DENOMINATOR_FLOOR)
        loss = value + ops.stop_gradient(slope) * (y_pred - p)
        return loss if self.weight is None else loss * ops.convert_to_tensor(self.weight, loss.dtype)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {**super().get_config(), "weight": self.weight}


@register
class BinaryCrossEntropyWithLogits(_Elementwise):
    """`torch.nn.BCEWithLogitsLoss` with `weight` and `pos_weight`, which Keras lacks. Both broadcast."""

    def __init__(
        self,
        weight: Any = None,
        pos_weight: Any = None,
        reduction: str = "mean",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        self.weight, self.pos_weight = weight, pos_weight

    def element(self, y_true: Any, y_pred: Any) -> Any:
        """(1 − t)·x + (1 + (w − 1)·t)·softplus(−x), w the weight of positives."""
        share = 1.0
        if self.pos_weight is not None:
            share = 1.0 + (ops.convert_to_tensor(self.pos_weight, y_pred.dtype) - 1.0) * y_true
        loss = (1.0 - y_true) * y_pred + share * ops.softplus(-y_pred)
        return loss if self.weight is None else loss * ops.convert_to_tensor(self.weight, loss.dtype)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {**super().get_config(), "weight": self.weight, "pos_weight": self.pos_weight}
