"""Parameters of no layer: a scale, a shift, a token in front, a matrix; and kernels that are computed from them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from scripts.fuzzing.layers import Piece, Shape, maker, written
from scripts.fuzzing.spatial import convolution, spatial_rank, transposed


class Free(nn.Module):
    """A function of x and parameters p and q of one shape."""

    def __init__(self, text: str, shape: Shape) -> None:
        super().__init__()
        self.text = text
        self.p, self.q = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.ones(shape))
        self._run = eval(f"lambda x, p, q: {text}", {"torch": torch, "F": functional})  # noqa: S307 - made in this file

    def forward(self, x: Tensor) -> Any:
        return self._run(x, self.p, self.q)


def free(text: str, shape: Shape) -> Piece:
    """A piece with parameters, written as the function and their shape."""
    return Piece(text=f"{text}   with p, q of shape {shape}", run=Free(text, shape))


@maker(6)
def broadcast(rng: Random, shape: Shape) -> Piece | None:
    """A parameter of any shape that broadcasts: one number, one axis, several, all; with axes of 1 in front or not."""
    if len(shape) < 2:
        return None
    own = tuple(d if rng.random() < 0.5 else 1 for d in shape[1:])
    start = rng.randrange(len(own) + 1)
    own = own[start:] if rng.random() < 0.6 else (1, *own)
    return free(rng.choice([
        "x * p", "p * x", "x + p", "p - x", "x * p + q", "x / (p.abs() + 1)", "torch.maximum(x, p)", "x + p * x.tanh()",
        "torch.where(x > p, x, q)", "x * p.sigmoid()", "(x - p) * torch.exp(-q)", "torch.lerp(x, p * x, 0.3)",
        "x * (p * q + 1)", "x + (p - q).tanh()", "torch.addcmul(x, p, q)",
    ]), own)  # fmt: skip


@maker(2)
def token(rng: Random, shape: Shape) -> Piece | None:
    """Parameters put beside x, the same for every sample."""
    if len(shape) < 3:
        return None
    axis = rng.randrange(1, len(shape))
    own = (1, *(rng.choice([1, 2]) if a == axis else d for a, d in enumerate(shape) if a))
    spread = f"p.expand(x.shape[0]{', -1' * (len(shape) - 1)})"
    return free(rng.choice([f"torch.cat(({spread}, x), {axis})", f"torch.cat((x, {spread}), {axis})"]), own)


@maker(2)
def matrix(rng: Random, shape: Shape) -> Piece | None:
    """Products with a parameter, on either side."""
    if len(shape) < 3:
        return None
    width = rng.choice([1, 2, 5])
    return rng.choice([
        lambda: free("x @ p", (shape[-1], width)), lambda: free("p @ x", (width, shape[-2])),
        lambda: free("torch.einsum('...i,ji->...j', x, p)", (width, shape[-1])),
        lambda: free("F.linear(x, p * q)", (width, shape[-1])), lambda: free("x @ p.softmax(0)", (shape[-1], width)),
    ])()  # fmt: skip


class Computed(nn.Module):
    """A convolution by a kernel that is computed from its parameters and a gain (O, 1, …)."""

    def __init__(self, conv: Any, kernel: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.kernel = conv, kernel
        self.gain = nn.Parameter(torch.ones(len(conv.weight), *(1 for _ in conv.weight.shape[1:])))

    def forward(self, x: Tensor) -> Any:
        conv, kernel = self.conv, self.kernel(self.conv.weight, self.gain)
        if not conv.transposed:
            return conv._conv_forward(x, kernel, conv.bias)
        function = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)[x.ndim - 3]
        return function(  # type: ignore[operator]
            x, kernel, conv.bias, conv.stride, conv.padding, conv.output_padding, conv.groups, conv.dilation
        )


_KERNELS = (
    "F.batch_norm(w.view(1, len(w), -1), None, None, training=True).view_as(w)",
    "F.batch_norm(w.view(1, len(w), -1), None, None, (g * 0.5).view(-1), training=True, eps=0.01).view_as(w)",
    "w * g", "w.tanh() + g", "(w - w.mean(DIMS, keepdim=True)) / (w.std(DIMS, keepdim=True, correction=0) + 0.1)",
    "g * w / (w.flatten(1).norm(dim=1) + 0.1).view_as(g)", "w - w.mean(0, keepdim=True)", "w.flip(-1)",
    "w.abs() / (1 + w.abs().amax(DIMS, keepdim=True))", "w * torch.sigmoid(g) - 0.1 * w",
)  # fmt: skip


@maker(3)
def computed_kernel(rng: Random, shape: Shape) -> Piece | None:
    """A convolution as the others, by a computed kernel."""
    made = (convolution if rng.random() < 0.7 else transposed)(rng, shape)
    if made is None:
        return None
    text = rng.choice(_KERNELS).replace("DIMS", str(tuple(range(1, len(shape)))))
    kernel = eval(f"lambda w, g: {text}", {"torch": torch, "F": functional})  # noqa: S307 - made in this file
    return Piece(text=f"{made.text} by the kernel {text}", run=Computed(made.run, kernel))


@maker(2)
def constants(rng: Random, shape: Shape) -> Piece | None:
    """Layers' functions on numbers that the forward makes: statistics, a filter."""
    rank = spatial_rank(shape)
    if not rank:
        return None
    channels, line = shape[1], f"torch.arange({shape[1]}.) / 7"
    window = ", 1" * (rank - 1)
    return written(rng.choice([
        f"F.batch_norm(x, {line}, {line} + 0.5)", f"F.batch_norm(x, {line}, {line} + 0.5, {line} - 1, {line})",
        f"F.batch_norm(x, torch.zeros({channels}), torch.ones({channels}))",
        f"F.conv{rank}d(x, torch.arange({2 * channels}.).view({channels}, 1, 2{window}) / 7, groups={channels})",
        f"F.conv{rank}d(x, torch.full((2, {channels}, 1{window}), 0.3), torch.arange(2.) / 7)",
        f"F.conv_transpose{rank}d(x, torch.arange({2 * channels}.).view({channels}, 1, 2{window}) / 7, stride=2)",
    ]))  # fmt: skip


@maker(2)
def constant_matrices(rng: Random, shape: Shape) -> Piece | None:
    """Products with numbers that the forward makes."""
    if len(shape) < 2:
        return None
    size, width = shape[-1], rng.choice([1, 2, 5])
    table = f"(torch.arange({size * width}.) / 7 - 1)"
    return written(rng.choice([
        f"F.linear(x, {table}.view({width}, {size}))", f"x @ {table}.view({size}, {width})",
        f"F.linear(x, {table}.view({width}, {size}), torch.arange({width}.) / 7)",
        f"torch.einsum('...i,ji->...j', x, {table}.view({width}, {size}))",
    ]))  # fmt: skip
