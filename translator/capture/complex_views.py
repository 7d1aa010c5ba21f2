"""Functions that the exporter has for real numbers only, on complex ones: they move pairs of real numbers about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from translator.capture.nodes import one_node

_ALONG = ("select", "squeeze", "chunk", "split", "unbind", "roll", "index_select", "repeat_interleave")
"""Functions whose `dim` is one of the axes there are; by itself, `squeeze` and `roll` are left to PyTorch."""

_DIM_FIRST = frozenset({"select", "squeeze", "unbind", "index_select"})


def _pairs(value: Any) -> Any:
    """Pairs of real numbers seen as complex ones, each of a tuple."""
    return torch.view_as_complex(value) if isinstance(value, Tensor) else tuple(map(_pairs, value))


def _along(name: str) -> Callable[..., Any]:
    function, place = getattr(torch, name), 1 if name in _DIM_FIRST else 2

    def run(input: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: A002 - PyTorch's name
        given, named, key = list(args), dict(kwargs), "dims" if name == "roll" else "dim"
        default = None if name in ("squeeze", "roll", "repeat_interleave") else 0
        dim = named.pop(key) if key in named else given.pop(place - 1) if len(given) >= place else default
        if not isinstance(dim, int):
            return function(input, *args, **kwargs)
        real, dim = torch.view_as_real(input), dim % input.ndim
        if name in _DIM_FIRST:
            return _pairs(function(real, dim, *given, **named))
        return _pairs(function(real, *given, **{key: dim}, **named))

    return run


def _item(input: Tensor, key: Any) -> Any:  # noqa: A002
    keys = key if isinstance(key, tuple) else (key,)
    keys = (*keys, slice(None)) if any(k is Ellipsis for k in keys) else keys
    return _pairs(torch.view_as_real(input)[keys])


def _unsqueeze(input: Tensor, dim: int) -> Any:  # noqa: A002
    return _pairs(torch.view_as_real(input).unsqueeze(dim % (input.ndim + 1)))


def _sized(name: str, real: int) -> Callable[..., Any]:
    """`repeat` and `expand`, with a size for the axis of the pairs behind those given, one by one or as a tuple."""

    def run(input: Tensor, *sizes: Any) -> Any:  # noqa: A002
        sizes = tuple(sizes[0]) if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes
        return _pairs(getattr(torch.view_as_real(input), name)(*sizes, real))

    return run


def _exp(input: Tensor) -> Tensor:  # noqa: A002
    real, imaginary = torch.view_as_real(input).unbind(-1)
    size = real.exp()
    return torch.complex(size * imaginary.cos(), size * imaginary.sin())


def _angle(input: Tensor) -> Tensor:  # noqa: A002
    """The exporter's own is rounded: its π is a float32 number."""
    real, imaginary = torch.view_as_real(input).unbind(-1)
    return one_node("Atan2", imaginary, real)


def scaled(func: Callable[..., Any], args: tuple[Any, ...]) -> Tensor | None:
    """A tensor of real numbers times a complex one (`1j * x`), or None where it isn't that."""
    if func not in _PRODUCTS or len(args) != 2:
        return None
    x, number = args if isinstance(args[0], Tensor) else args[::-1]
    if not isinstance(x, Tensor) or x.is_complex() or not isinstance(number, complex):
        return None
    return torch.complex(x * number.real, x * number.imag)


_PRODUCTS = frozenset({torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__, torch.multiply, Tensor.multiply})

COMPLEX: dict[Callable[..., Any], Callable[..., Any]] = {
    Tensor.__getitem__: _item, torch.unsqueeze: _unsqueeze, Tensor.unsqueeze: _unsqueeze,
    Tensor.repeat: _sized("repeat", 1), Tensor.expand: _sized("expand", -1),
    torch.exp: _exp, Tensor.exp: _exp, torch.angle: _angle, Tensor.angle: _angle,
    Tensor.detach: lambda tensor: tensor,
    **{getattr(owner, name): _along(name) for name in _ALONG for owner in (torch, Tensor)},
}  # fmt: skip
"""What stands for each function of a complex tensor while PyTorch traces."""
