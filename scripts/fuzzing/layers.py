"""The layers and functions that random networks are made of, each with random legal settings for a given shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A module or a function, and how to write it down."""

    text: str
    run: Callable[..., Any]


Maker = Callable[[Random, Shape], Piece | None]
MAKERS: list[tuple[int, Maker]] = []
"""(weight, maker): a maker gives a piece for a tensor of that shape, or None where it has none."""


def maker(weight: int) -> Callable[[Maker], Maker]:
    """Register a maker, picked in proportion to its weight."""

    def register(function: Maker) -> Maker:
        MAKERS.append((weight, function))
        return function

    return register


def built(cls: Callable[..., nn.Module], *args: Any, **kwargs: Any) -> Piece:
    """A module and the code that makes it."""
    words = [repr(a) for a in args] + [f"{k}={v!r}" for k, v in kwargs.items()]
    return Piece(text=f"nn.{cls.__name__}({', '.join(words)})", run=cls(*args, **kwargs))  # type: ignore[attr-defined]


def written(text: str, **values: Any) -> Piece:
    """A function of `x` from its code, which is ours."""
    scope = {"torch": torch, "F": functional, **values}
    return Piece(text=text, run=eval(f"lambda x: {text}", scope))  # noqa: S307 - the text is made in this file


@maker(10)
def activation(rng: Random, shape: Shape) -> Piece | None:
    choice = rng.choice([
        lambda: built(nn.ReLU, inplace=rng.random() < 0.3), lambda: built(nn.LeakyReLU, rng.choice([0.01, 0.2, 0.3])),
        lambda: built(nn.GELU, approximate=rng.choice(["none", "tanh"])), lambda: built(nn.SiLU),
        lambda: built(nn.ELU, rng.choice([1.0, 0.5])), lambda: built(nn.Sigmoid), lambda: built(nn.Tanh),
        lambda: built(nn.Hardswish), lambda: built(nn.Hardsigmoid), lambda: built(nn.ReLU6), lambda: built(nn.Mish),
        lambda: built(nn.Softplus, rng.choice([1, 2])), lambda: built(nn.Hardtanh, -0.5, 0.7), lambda: built(nn.SELU),
        lambda: built(nn.CELU, rng.choice([1.0, 0.4])), lambda: built(nn.LogSigmoid), lambda: built(nn.Softsign),
        lambda: built(nn.Tanhshrink), lambda: built(nn.Hardshrink, 0.3), lambda: built(nn.Softshrink, 0.3),
        lambda: built(nn.Threshold, 0.1, -0.2), lambda: built(nn.Dropout, 0.3), lambda: built(nn.Identity),
    ])  # fmt: skip
    return choice()


@maker(2)
def prelu(rng: Random, shape: Shape) -> Piece | None:
    return built(nn.PReLU, rng.choice([1, shape[1]])) if len(shape) > 1 else built(nn.PReLU)


@maker(3)
def along_an_axis(rng: Random, shape: Shape) -> Piece | None:
    if len(shape) < 2:
        return None
    dim = rng.choice([rng.randrange(1, len(shape)), -1])
    return rng.choice([
        lambda: built(nn.Softmax, dim=dim), lambda: built(nn.LogSoftmax, dim=dim), lambda: built(nn.Softmin, dim=dim),
        lambda: written(f"x.cumsum({dim})"), lambda: written(f"F.normalize(x, dim={dim})"),
        lambda: written(f"x.flip({dim})"), lambda: written(f"torch.roll(x, {rng.choice([1, -1, 2])}, {dim})"),
        lambda: written(f"x.softmax({dim}) * x"), lambda: written(f"F.glu(torch.cat((x, x * 0.5), {dim}), {dim})"),
        lambda: written(f"x - x.mean({dim}, keepdim=True)"), lambda: written(f"x / (1 + x.std({dim}, keepdim=True))")
        if shape[dim] > 1 else written("x * 2"),
        lambda: written(f"x.sort({dim})[0]"), lambda: written(f"x.logsumexp({dim}, keepdim=True) + x"),
    ])()  # fmt: skip


@maker(5)
def arithmetic(rng: Random, shape: Shape) -> Piece | None:
    return written(rng.choice([
        "x + 1.5", "x * 0.25", "0.5 - x", "-x", "x.abs()", "x ** 2", "x.clamp(-1, 0.5)", "(x.abs() + 0.1).sqrt()",
        "torch.sin(x)", "x.exp().clamp(max=5)", "torch.where(x > 0, x, x * 0.1)", "torch.maximum(x, -x)", "x / 3",
        "(x.abs() + 1).log()", "x.round()", "x.floor() * 0.5 + x", "x * torch.sigmoid(x)", "torch.erf(x)",
        "x.sign() * x", "1 / (x * x + 1)", "(x.abs() + 1).rsqrt()", "x.masked_fill(x < -1, 0.3)", "x.tanh().atan()",
        "x.double().float()", "torch.addcmul(x, x, x, value=0.1)", "x.relu_().add_(1)", "x.clone().mul_(2)",
        "torch.fmod(x, 0.7)", "torch.atan2(x, x * x + 1)", "x.nan_to_num(0.1)",
    ]))  # fmt: skip


@maker(4)
def reduction(rng: Random, shape: Shape) -> Piece | None:
    if len(shape) < 3:
        return None
    dims = sorted(rng.sample(range(1, len(shape)), rng.randint(1, len(shape) - 2)))
    keep, op = rng.random() < 0.5, rng.choice(["mean", "sum", "amax", "amin"])
    return written(f"x.{op}({dims}, keepdim={keep})")


@maker(2)
def by_rank(rng: Random, shape: Shape) -> Piece | None:
    if len(shape) < 3:
        return None
    dim, keep = rng.randrange(1, len(shape)), rng.random() < 0.5
    return written(rng.choice([
        f"x.median({dim}, keepdim={keep}).values", f"F.normalize(x, p={rng.choice([1.5, 2.0, 3.0])}, dim={dim})",
        f"x.cumprod({dim})", f"torch.cdist(x, x.tanh() + 1, p={rng.choice([1.0, 2.0])})",
    ]))  # fmt: skip


@maker(7)
def view(rng: Random, shape: Shape) -> Piece | None:
    if len(shape) < 2:
        return None
    rank = len(shape)
    order = [0, *rng.sample(range(1, rank), rank - 1)]
    start = rng.randrange(1, rank)
    axis = rng.randrange(1, rank)
    size = shape[axis]
    factors = [d for d in range(1, size + 1) if size % d == 0]
    d = rng.choice(factors)
    split = f"x.unflatten({axis}, ({d}, {size // d}))"
    options = [
        f"x.permute{tuple(order)}", f"x.permute{tuple(order)}.contiguous()", f"x.flatten({start})", "x.flatten(1)",
        f"x.transpose({rng.randrange(1, rank)}, {rng.randrange(1, rank)})",
        f"x.reshape(x.shape[0], *{list(shape[1:])[::-1]})",
        "x.view(x.size(0), -1)", f"x.repeat(1{', 2' * (rank - 1)})",
    ]  # fmt: skip
    if rank < 5:
        options += [split, f"{split}.transpose({axis}, {axis + 1}).flatten({axis}, {axis + 1})", f"x.unsqueeze({axis})"]
    if size == 1 and rank > 2:
        options += [f"x.squeeze({axis})", f"x.expand(-1{', 3' if axis == 1 else ', -1'}{', -1' * (rank - 2)})"]
    return written(rng.choice(options))


@maker(5)
def selection(rng: Random, shape: Shape) -> Piece | None:
    if len(shape) < 2:
        return None
    axis = rng.randrange(1, len(shape))
    size, lead = shape[axis], ":, " * axis
    index = [rng.randrange(size) for _ in range(rng.randint(1, 4))]
    stop = rng.randint(1, size)
    return written(rng.choice([
        f"x[{lead}:{stop}]", f"x[{lead}::2]", f"x[{lead}-1:]", f"x[{lead}{index}]", f"x.narrow({axis}, 0, {stop})",
        f"torch.cat(x.chunk(2, {axis})[::-1], {axis})", f"torch.cat((x, x.flip({axis})), {axis})",
        f"torch.stack((x, x * 2), {axis}).sum({axis})", f"torch.cat(x.split({stop}, {axis})[::-1], {axis})",
        f"x.index_select({axis}, torch.tensor({index}))", f"x[{lead}{index[0]}]" if len(shape) > 2 else "x + 0.5",
        f"x.unbind({axis})[{index[0]}]" if len(shape) > 2 else "x - 0.5", f"x.gather({axis}, x.argsort({axis}))",
        f"x.topk({stop}, {axis})[0]",
    ]))  # fmt: skip


@maker(3)
def padding(rng: Random, shape: Shape) -> Piece | None:
    rank = len(shape)
    if rank < 2:
        return None
    count = min(rank - 1, rng.randint(1, 3))
    pads = [rng.randint(-1 if shape[-1 - i // 2] > 2 else 0, 2) for i in range(2 * count)]
    mode = rng.choice(["constant", "constant", "reflect", "replicate", "circular"])
    if mode == "constant":
        return written(f"F.pad(x, {pads}, value={rng.choice([0.0, 0.0, 1.5])})")
    if rank not in (3, 4, 5):
        return None
    pads = [rng.randint(0, min(2, shape[-1 - i // 2] - 1)) for i in range(2 * (rank - 2))]
    return written(f"F.pad(x, {pads}, mode={mode!r})")


@maker(3)
def products(rng: Random, shape: Shape) -> Piece | None:
    if len(shape) < 3:
        return None
    return written(rng.choice([
        "x @ x.transpose(-1, -2)", "x.transpose(-1, -2) @ x", "torch.einsum('n...i,n...j->n...ij', x, x).mean(-1)",
        "(x @ x.transpose(-1, -2)).softmax(-1) @ x",
        "F.scaled_dot_product_attention(x, x, x)", "F.scaled_dot_product_attention(x, x * 0.5, x, is_causal=True)",
    ]))  # fmt: skip


@maker(4)
def linear(rng: Random, shape: Shape) -> Piece | None:
    if len(shape) < 2:
        return None
    return built(nn.Linear, shape[-1], rng.choice([1, 3, 4, 6]), bias=rng.random() < 0.7)


@maker(3)
def norm(rng: Random, shape: Shape) -> Piece | None:
    if len(shape) < 2:
        return None
    last = list(shape[-rng.randint(1, len(shape) - 1) :])
    return rng.choice([
        lambda: built(nn.LayerNorm, last, eps=rng.choice([1e-5, 1e-2]), elementwise_affine=rng.random() < 0.8),
        lambda: built(nn.RMSNorm, last, eps=rng.choice([1e-5, 1e-2])),
    ])()  # fmt: skip


@maker(2)
def recurrent(rng: Random, shape: Shape) -> Piece | None:
    if len(shape) != 3:
        return None
    cls = rng.choice([nn.LSTM, nn.GRU, nn.RNN])
    layer = built(
        cls, shape[2], rng.choice([1, 3]), num_layers=rng.choice([1, 2]), bias=rng.random() < 0.8, batch_first=True,
        bidirectional=rng.random() < 0.4,
    )  # fmt: skip
    return Piece(text=layer.text, run=First(layer.run))


@maker(2)
def attention(rng: Random, shape: Shape) -> Piece | None:
    if len(shape) != 3:
        return None
    heads = rng.choice([h for h in (1, 2, 3) if shape[2] % h == 0])
    layer = built(nn.MultiheadAttention, shape[2], heads, batch_first=True, bias=rng.random() < 0.7)
    return Piece(text=layer.text, run=SelfAttention(layer.run))


class First(nn.Module):
    """The first of a module's outputs."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Any:
        return self.inner(x)[0]


class SelfAttention(nn.Module):
    """Attention of a sequence to itself."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Any:
        return self.inner(x, x, x, need_weights=False)[0]
