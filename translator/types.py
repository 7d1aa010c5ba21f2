"""Plain data that every stage speaks: where a thing came from, and how a tensor lies in memory.

Nothing here imports a framework.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Dim = int | None
"""A dimension: a number, or None where it is dynamic (the batch; H and W on request)."""

Shape = tuple[Dim, ...]

PutOut = Mapping[tuple[str, int], tuple[Shape, ...]]
"""The shapes of the tensors that module calls put out, by path and call; what isn't known isn't in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a node came from in the user's PyTorch model.

    module: dotted path of the innermost module, "" for the root. call: how many calls of that module came before
    (0 for the first). cls: its class, e.g. "torch.nn.modules.conv.Conv2d". source: "resnet.py, line 41, in forward".
    scopes: every enclosing module call from the root inward, as (path, call index, class).
    """

    module: str = ""
    call: int = 0
    cls: str = ""
    source: str = ""
    node: str = ""
    scopes: tuple[tuple[str, int, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a PyTorch tensor lies on the Keras side: `torch.reshape(view).permute(axes).reshape(keras_shape)`.

    axes: the permutation, `keras.shape[i] == torch.shape[axes[i]]`, e.g. (0, 2, 3, 1) for NCHW → NHWC.
    view: the finer shape that `axes` permutes, where the tensor was flattened in the other order
    (torch (N, 3136) seen as (None, 64, 7, 7)); None where the tensor is permuted as it is.
    """

    axes: tuple[int, ...]
    view: Shape | None = None

    @staticmethod
    def identity(rank: int) -> Layout:
        """The same order of axes on both sides."""
        return Layout(axes=tuple(range(rank)))

    @staticmethod
    def channels_last(rank: int) -> Layout:
        """(N, C, *S) → (N, *S, C); ranks below 3 stay as they are."""
        return Layout(axes=(0, *range(2, rank), 1)) if rank > 2 else Layout.identity(rank)

    @staticmethod
    def kernel(rank: int) -> Layout:
        """(O, I, *k) → (*k, I, O): a convolution's kernel."""
        return Layout(axes=(*range(2, rank), 1, 0))

    @staticmethod
    def transposed_kernel(rank: int) -> Layout:
        """(I, O, *k) → (*k, I, O): a transposed convolution's kernel, as a plain convolution has it."""
        return Layout(axes=(*range(2, rank), 0, 1))

    @property
    def is_identity(self) -> bool:
        """Whether the axes stand in the same order on both sides."""
        return self.axes == tuple(range(len(self.axes)))

    def keras_shape(self, torch_shape: Sequence[Dim]) -> Shape:
        """Shape on the Keras side of a tensor whose PyTorch shape is `torch_shape`."""
        if self.view is None:
            return tuple(torch_shape[a] for a in self.axes)
        return tuple(torch_shape)

    def axis(self, torch_axis: int) -> int:
        """The Keras axis that holds PyTorch's `torch_axis` (negative counts from the end)."""
        rank = len(self.axes)
        return self.axes.index(torch_axis % rank)


def elements(shape: Sequence[Dim]) -> int:
    """Number of elements of a shape whose dynamic dimensions count as one."""
    return math.prod(1 if d is None else d for d in shape)
