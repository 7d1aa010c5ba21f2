"""PyTorch's losses mapped to Keras losses that compute the same value and the same gradient.

Native where Keras' own loss is the same function; else a registered class; else a refusal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from translator import runtime
from translator.training.mapped import Mapped, refusal

if TYPE_CHECKING:
    from torch import Tensor, nn

Targets = Literal["indices", "probabilities"]


def map_loss(loss: nn.Module, *, targets: Targets = "indices", class_axis: int = -1) -> Mapped:
    """The Keras loss that is `loss`, called as `keras_loss(targets, outputs)`.

    targets: what CrossEntropyLoss is given, class indices or class probabilities. class_axis: the axis of the classes
    in the Keras output: −1 for channels last, 1 where the output kept PyTorch's order.
    Raises: UnsupportedError for a loss or a setting without a twin.
    """
    runtime.prepare()
    for name, rule in _RULES.items():
        if type(loss).__name__ == name and type(loss).__module__ == "torch.nn.modules.loss":
            return rule(loss, targets, class_axis)
    raise refusal(
        f"{type(loss).__name__}: this loss has no Keras twin here",
        f"use one of {', '.join(_RULES)}, or write it as a keras.losses.Loss and pass that to parity",
    )


def _cross_entropy(loss: nn.CrossEntropyLoss, targets: Targets, axis: int) -> Mapped:
    import keras

    from translator.training import registered

    _check_reduction(loss)
    smoothing = float(loss.label_smoothing)
    plain = loss.weight is None and loss.reduction == "mean" and axis == -1
    if plain and targets == "probabilities":
        return Mapped(
            keras=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing),
            native=True,
            notes=(
                "the probabilities of each example must sum to 1: TensorFlow's fused gradient takes that for granted, "
                "PyTorch's does not",
            ),
        )
    if plain and not smoothing:
        return Mapped(
            keras=keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=int(loss.ignore_index)),
            native=True,
            notes=("a batch whose every label is ignored: PyTorch gives nan, Keras 0",),
        )
    return Mapped(
        keras=registered.CrossEntropy(
            class_weights=_numbers(loss.weight),
            ignore_index=int(loss.ignore_index),
            label_smoothing=smoothing,
            targets=targets,
            axis=axis,
            reduction=loss.reduction,
        ),
        native=False,
        why="keras.losses has no class weights in the mean, no label smoothing for integer labels, no other axis",
    )


def _nll(loss: nn.NLLLoss, targets: Targets, axis: int) -> Mapped:
    from translator.training import registered

    _check_reduction(loss)
    if targets != "indices":
        raise refusal("NLLLoss: takes class indices, not probabilities", "use CrossEntropyLoss for probabilities")
    return Mapped(
        keras=registered.CrossEntropy(
            class_weights=_numbers(loss.weight),
            ignore_index=int(loss.ignore_index),
            log_probabilities=True,
            axis=axis,
            reduction=loss.reduction,
        ),
        native=False,
        why="keras.losses has no loss of log-probabilities",
    )


def _bce(loss: nn.BCELoss, _targets: Targets, _axis: int) -> Mapped:
    from translator.training import registered

    _check_reduction(loss)
    return Mapped(
        keras=registered.BinaryCrossEntropy(weight=_numbers(loss.weight), reduction=loss.reduction),
        native=False,
        why="keras.losses.BinaryCrossentropy clips the probability at 1e-7, PyTorch cuts the logarithm at −100",
    )


def _bce_with_logits(loss: nn.BCEWithLogitsLoss, _targets: Targets, _axis: int) -> Mapped:
    import keras

    from translator.training import registered

    _check_reduction(loss)
    if loss.weight is None and loss.pos_weight is None and loss.reduction == "mean":
        return Mapped(keras=keras.losses.BinaryCrossentropy(from_logits=True), native=True)
    return Mapped(
        keras=registered.BinaryCrossEntropyWithLogits(
            weight=_numbers(loss.weight), pos_weight=_numbers(loss.pos_weight), reduction=loss.reduction
        ),
        native=False,
        why="keras.losses.BinaryCrossentropy has neither weight nor pos_weight, and sums means of the last axis",
    )


def _elementwise(native: str, exact: str) -> Callable[[Any, Targets, int], Mapped]:
    """A rule for a loss of single elements without settings: Keras' own for the mean, else the registered one."""

    def rule(loss: nn.Module, _targets: Targets, _axis: int) -> Mapped:
        import keras

        from translator.training import registered

        _check_reduction(loss)
        if loss.reduction == "mean":
            return Mapped(keras=getattr(keras.losses, native)(), native=True)
        return Mapped(
            keras=getattr(registered, exact)(reduction=str(loss.reduction)),
            native=False,
            why=f"keras.losses.{native} averages the last axis before it sums",
        )

    return rule


def _huber(loss: nn.HuberLoss, _targets: Targets, _axis: int) -> Mapped:
    import keras

    from translator.training import registered

    _check_reduction(loss)
    if loss.delta == 1.0 and loss.reduction == "mean":
        return Mapped(keras=keras.losses.Huber(), native=True)
    return Mapped(
        keras=registered.HuberError(delta=float(loss.delta), reduction=loss.reduction),
        native=False,
        why="keras.losses.Huber forgets its delta when it is saved, and averages the last axis before it sums",
    )


def _smooth_l1(loss: nn.SmoothL1Loss, targets: Targets, axis: int) -> Mapped:
    import keras

    from translator.training import registered

    _check_reduction(loss)
    if loss.beta == 0.0:
        return _elementwise("MeanAbsoluteError", "AbsoluteError")(loss, targets, axis)
    if loss.beta == 1.0 and loss.reduction == "mean":
        return Mapped(keras=keras.losses.Huber(), native=True)
    return Mapped(
        keras=registered.SmoothL1(beta=float(loss.beta), reduction=loss.reduction),
        native=False,
        why="keras.losses.Huber is beta times SmoothL1Loss, and averages the last axis before it sums",
    )


def _check_reduction(loss: Any) -> None:
    if loss.reduction not in {"mean", "sum", "none"}:
        raise refusal(f"{type(loss).__name__}: reduction={loss.reduction!r}", "use mean, sum or none")


def _numbers(tensor: Tensor | None) -> Any:
    """A weight as plain numbers: losses are saved as JSON."""
    return None if tensor is None else tensor.detach().cpu().double().tolist()


_RULES: dict[str, Callable[[Any, Targets, int], Mapped]] = {
    "CrossEntropyLoss": _cross_entropy,
    "NLLLoss": _nll,
    "BCELoss": _bce,
    "BCEWithLogitsLoss": _bce_with_logits,
    "MSELoss": _elementwise("MeanSquaredError", "SquaredError"),
    "L1Loss": _elementwise("MeanAbsoluteError", "AbsoluteError"),
    "HuberLoss": _huber,
    "SmoothL1Loss": _smooth_l1,
}

SUPPORTED = tuple(_RULES)
"""The losses of `torch.nn` that are mapped."""
