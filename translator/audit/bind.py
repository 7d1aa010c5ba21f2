"""Which PyTorch tensor becomes which Keras variable of a pair of units, and through which steps: both ways."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from translator.audit.network import Unit, Weight
from translator.bindings import Permute, Piece, Reshape, Step, WeightBinding, to_keras
from translator.types import Layout
from translator.verify.facts import Conv, Dense, Embedding, Norm, Recurrent

How = Literal["same", "sum", "constant", "computed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """One Keras variable and what it holds.

    binding: None where it holds nothing of PyTorch's (then `neutral` is what makes it do nothing) or is computed.
    compute: its value from PyTorch's tensors, where that is no binding; inverse: tensors from its value.
    torch_layer, keras_layer: for people.
    """

    keras: Weight
    torch_layer: str
    keras_layer: str
    how: How
    binding: WeightBinding | None = None
    compute: Callable[[Mapping[str, np.ndarray]], np.ndarray] | None = field(default=None, compare=False, repr=False)
    inverse: Callable[[np.ndarray], Mapping[str, np.ndarray]] | None = field(default=None, compare=False, repr=False)
    reads: tuple[str, ...] = ()
    neutral: float = 0.0

    @property
    def tensors(self) -> tuple[str, ...]:
        """State-dict names of what it is made of."""
        return self.binding.tensors if self.binding is not None else self.reads

    def value(self, state: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """What the variable should be, None for one that PyTorch says nothing about."""
        if self.binding is not None:
            return to_keras(self.binding, state)
        return self.compute(state) if self.compute is not None else None


Shapes = Iterator[Bound]


def bind(t: Unit, k: Unit, read: Layout | None) -> list[Bound]:
    """The variables of Keras' unit in terms of PyTorch's. read: how the units' first input lies in Keras.

    A variable that no tensor fits is left out; a tensor that nothing needs appears in none.
    """
    match t.facts, k.facts:
        case (Conv() | Dense(), Conv() | Dense()):
            found = list(_linear(t, k, read))
        case (Norm(), Norm()):
            found = list(_norm(t, k, read))
        case (Embedding(), Embedding()):
            found = [_same(t, k, "weight", k.weights[0])] if k.weights else []
        case (Recurrent(), Recurrent()):
            from translator.audit.bind_recurrent import recurrent

            found = list(recurrent(t, k))
        case _:
            found = list(_in_order(t, k, read))
    claimed = {id(b.keras.handle) for b in found}
    rest = [_only_keras(t, k, w) for w in k.weights if id(w.handle) not in claimed and _neutral(w) is not None]
    return [*found, *rest]


def made(t: Unit, k: Unit, weight: Weight, pieces: tuple[Piece, ...], steps: tuple[Step, ...], **more: Any) -> Bound:
    """A variable that some tensors become through steps."""
    binding = WeightBinding(
        variable=weight.slot, shape=weight.shape, pieces=pieces, steps=steps, trainable=weight.trainable, **more
    )  # fmt: skip
    how: How = "sum" if more.get("join") == "sum" else "same"
    return Bound(keras=weight, torch_layer=t.path, keras_layer=k.path, how=how, binding=binding)


def _same(t: Unit, k: Unit, slot: str, weight: Weight) -> Bound:
    """The tensor in a slot as it is, or reshaped where only ones were added."""
    tensor = t.weight(slot)
    if tensor is None:
        return _only_keras(t, k, weight)
    steps: tuple[Step, ...] = ()
    if tensor.shape != weight.shape:
        steps = (Reshape(before=tensor.shape, after=weight.shape),)
    return made(t, k, weight, tensor.parts, steps)


def _only_keras(t: Unit, k: Unit, weight: Weight) -> Bound:
    neutral = _neutral(weight)
    return Bound(
        keras=weight, torch_layer=t.path, keras_layer=k.path, how="constant", neutral=neutral or 0.0
    )  # fmt: skip


_NEUTRAL = {"bias": 0.0, "beta": 0.0, "gamma": 1.0, "scale": 1.0, "moving_mean": 0.0, "moving_variance": 1.0}


def _neutral(weight: Weight) -> float | None:
    """The number that lets a variable do nothing; None for one that always does something (a kernel)."""
    return _NEUTRAL.get(weight.end)


def _by_end(unit: Unit, *ends: str) -> Weight | None:
    return next((w for w in unit.weights if w.end in ends), None)


def _linear(t: Unit, k: Unit, read: Layout | None) -> Iterator[Bound]:
    from translator.audit.folds import folded_bindings, folded_norm

    tensor = t.weight("weight")
    kernel = _by_end(k, "kernel", "depthwise_kernel", "pointwise_kernel")
    norm, shift = folded_norm(t), _by_end(k, "bias")
    if norm is not None and kernel is not None and shift is not None:
        yield from folded_bindings(t, k, norm, kernel, shift, read)
        return
    if tensor is not None and kernel is not None and not tensor.derived and tensor.size == kernel.size:
        steps = kernel_steps(t, k, tensor, kernel, read)
        if steps is not None and tensor.turned:
            yield made(t, k, kernel, tensor.parts, (Permute(axes=(1, 0)), *steps), axis=1)
        elif steps is not None:
            yield made(t, k, kernel, tensor.parts, steps)
    bias, theirs = t.weight("bias"), _by_end(k, "bias")
    if bias is not None and theirs is not None and bias.size == theirs.size:
        yield _same(t, k, "bias", theirs)


def kernel_steps(t: Unit, k: Unit, tensor: Weight, kernel: Weight, read: Layout | None) -> tuple[Step, ...] | None:
    """The steps from PyTorch's weight to Keras' kernel, None where they don't fit."""
    shape, wanted = tensor.shape, kernel.shape
    if isinstance(k.facts, Dense):
        flat = (shape[0], math.prod(shape[1:]))
        steps = [Reshape(before=shape, after=flat)] if shape != flat else []
        return (*steps, *_dense_steps(k, flat, wanted, read))
    if not isinstance(k.facts, Conv):
        return None
    rank = len(wanted) - 2
    space = tuple(range(2, 2 + rank))
    if isinstance(t.facts, Dense):
        # A Dense on a flattened image as a convolution over all of it, or a 1x1 convolution.
        channels, window = wanted[-2], wanted[:-2]
        view = (shape[0], channels, *window)
        if math.prod(view) != tensor.size:
            return None
        return (*_reshape(shape, view), Permute(axes=(*space, 1, 0)))
    if len(shape) != len(wanted):
        return None
    if k.facts.transposed:
        return (Permute(axes=(*space, 1, 0)),) if _permuted(shape, (*space, 1, 0)) == wanted else None
    if _is_depthwise(k):
        channels, multiplier = wanted[-2], wanted[-1]
        view = (channels, multiplier, *shape[2:])
        if math.prod(view) != tensor.size:
            return None
        return (*_reshape(shape, view), Permute(axes=(*space, 0, 1)))
    return (Permute(axes=(*space, 1, 0)),) if _permuted(shape, (*space, 1, 0)) == wanted else None


def _is_depthwise(k: Unit) -> bool:
    return any("depthwise" in w.slot for w in k.weights) or any(
        c.__name__ == "BaseDepthwiseConv" for c in type(k.operations[-1]).__mro__
    )


def _dense_steps(k: Unit, flat: tuple[int, int], wanted: tuple[int, ...], read: Layout | None) -> list[Step]:
    units, features = flat
    equation = getattr(k.operations[-1], "equation", None)
    if equation is not None:
        return _einsum_steps(str(equation), flat, wanted)
    steps: list[Step] = []
    image = _image(read, (features,))
    if image is not None and read is not None:
        order = [a - 1 for a in read.axes[1:]]
        steps += _reshape(flat, (units, *image))
        steps.append(Permute(axes=(*(a + 1 for a in order), 0)))
        laid = tuple(image[a] for a in order)
        return [*steps, *_reshape((*laid, units), wanted)]
    return [Permute(axes=(1, 0)), *_reshape((features, units), wanted)]


def _einsum_steps(equation: str, flat: tuple[int, int], wanted: tuple[int, ...]) -> list[Step]:
    """An EinsumDense names the axes of its kernel; PyTorch's matrix is (made, summed)."""
    left, output = equation.replace("...", "").replace(" ", "").split("->")
    given, kernel = left.split(",")
    sizes = dict(zip(kernel, wanted, strict=True))
    summed = [c for c in given if c in sizes and c not in output]
    out = [c for c in output if c in sizes]
    order = [*out, *summed]
    view = tuple(sizes[c] for c in order)
    return [*_reshape(flat, view), Permute(axes=tuple(order.index(c) for c in kernel))]


def _reshape(before: tuple[int, ...], after: tuple[int, ...]) -> list[Step]:
    return [] if before == after else [Reshape(before=before, after=after)]


def _permuted(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[a] for a in axes)


_NORM_SLOTS = (
    ("weight", ("gamma", "scale")), ("bias", ("beta",)), ("running_mean", ("moving_mean",)),
    ("running_var", ("moving_variance",)),
)  # fmt: skip


def _norm(t: Unit, k: Unit, read: Layout | None) -> Iterator[Bound]:
    for slot, names in _NORM_SLOTS:
        tensor, variable = t.weight(slot), _by_end(k, *names)
        if tensor is None or variable is None or tensor.size != variable.size:
            continue
        axes, image = _axes_of_part(tensor, variable, read), _image(read, tensor.shape)
        if image is not None and variable.shape == tensor.shape and read is not None:
            order = tuple(a - 1 for a in read.axes[1:])
            laid = _permuted(image, order)
            steps = (Reshape(before=tensor.shape, after=image), Permute(axes=order))
            yield made(t, k, variable, tensor.parts, (*steps, Reshape(before=laid, after=tensor.shape)))
        elif axes is None:
            yield _same(t, k, slot, variable)
        else:
            yield made(t, k, variable, tensor.parts, (Permute(axes=axes),))


def _image(read: Layout | None, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The image that flat features were before both sides flattened them, where the sides did so in another order."""
    if read is None or read.view is None or read.is_identity or read.axes[0] != 0 or len(shape) != 1:
        return None
    sizes = tuple(n for n in read.view[1:] if n is not None)
    return sizes if len(sizes) == len(read.view) - 1 and math.prod(sizes) == shape[0] else None


def _axes_of_part(tensor: Weight, variable: Weight, read: Layout | None) -> tuple[int, ...] | None:
    """A tensor over the last axes of its input, such as LayerNorm's over (C, H, W), lies as the input does."""
    rank = len(tensor.shape)
    if read is None or read.view is not None or rank < 2 or rank >= len(read.axes):
        return None
    first = len(read.axes) - rank
    axes = tuple(a - first for a in read.axes if a >= first)
    return axes if _permuted(tensor.shape, axes) == variable.shape else None


def _in_order(t: Unit, k: Unit, read: Layout | None) -> Iterator[Bound]:
    """Units without slots that have a meaning: each tensor goes to the first variable of its size."""
    waiting = list(k.weights)
    for tensor in t.weights:
        fitting = [w for w in waiting if w.size == tensor.size and w.trainable == tensor.trainable]
        variable = next(iter(fitting), next((w for w in waiting if w.size == tensor.size), None))
        if variable is None or tensor.derived:
            continue
        waiting.remove(variable)
        axes = _axes_of_whole(tensor, variable, read)
        steps = (Permute(axes=axes),) if axes else tuple(_reshape(tensor.shape, variable.shape))
        yield made(t, k, variable, tensor.parts, steps)


def _axes_of_whole(tensor: Weight, variable: Weight, read: Layout | None) -> tuple[int, ...] | None:
    """A tensor that is added to or multiplied with an image lies as the image does."""
    if read is None or read.view is not None or len(tensor.shape) != len(read.axes) or read.is_identity:
        return None
    return read.axes if _permuted(tensor.shape, read.axes) == variable.shape else None
