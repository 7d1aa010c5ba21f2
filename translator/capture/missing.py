"""Functions that PyTorch's exporter has no translation for: written with others, or marked where Keras has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.onnx import ops as onnx_ops

from translator.capture.bags import embedding_bag
from translator.capture.class_losses import CLASS_LOSSES
from translator.capture.nodes import one_node
from translator.capture.pool_places import POOL_PLACES
from translator.capture.windows import WINDOWS


def _cumprod(input: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:  # noqa: A002
    x = input if dtype is None else input.to(dtype)
    y: Tensor = onnx_ops.symbolic(
        "CumProd", [x, torch.tensor(dim % x.ndim)], {}, dtype=x.dtype, shape=x.shape, version=23
    )
    return y


def _erfinv(input: Tensor) -> Tensor:  # noqa: A002
    return one_node("ErfInv", input)


def _inverse(A: Tensor) -> Tensor:  # noqa: N803 - PyTorch's name
    return one_node("Inverse", A)


def _cholesky(input: Tensor, *, upper: bool = False) -> Tensor:  # noqa: A002
    lower = one_node("Cholesky", input)
    return lower.mT if upper else lower


def _solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:  # noqa: N803 - PyTorch's names
    if not left or A.ndim != B.ndim or A.shape[:-2] != B.shape[:-2]:
        x: Tensor = torch.linalg.solve(A, B, left=left)
        return x
    return one_node("Solve", A, B, shape=B.shape)


def _atan2(input: Tensor, other: Tensor) -> Tensor:  # noqa: A002
    """The exporter's own is rounded: its π is a float32 number."""
    return one_node("Atan2", input, other, shape=torch.broadcast_shapes(input.shape, other.shape))  # type: ignore[no-untyped-call]


def _nan_to_num(
    input: Tensor,  # noqa: A002
    nan: float | None = 0.0,
    posinf: float | None = None,
    neginf: float | None = None,
) -> Tensor:
    """Without a number for infinity it is the largest that the dtype has, which the exporter takes for float32's."""
    if not input.is_floating_point():
        return input
    given = {"nan": 0.0 if nan is None else nan, "posinf": posinf, "neginf": neginf}
    return one_node("NanToNum", input, **{n: repr(float(v)) for n, v in given.items() if v is not None})


def _cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str | None = None) -> Tensor:
    """From the differences, which loses no digits; PyTorch takes products of matrices from 25 rows on."""
    distance: Tensor = torch.linalg.vector_norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), ord=p, dim=-1)
    return distance


def _median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:  # noqa: A002
    if dim is None:
        return torch.median(input)
    return torch.return_types.median(_ranked(input, (_size(input, dim) + 1) // 2, dim, keepdim))


def _kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:  # noqa: A002
    return torch.return_types.kthvalue(_ranked(input, k, dim, keepdim))


def _size(x: Tensor, dim: int) -> int:
    return x.shape[dim] if x.ndim else 1


def _ranked(x: Tensor, k: int, dim: int, keepdim: bool) -> tuple[Tensor, Tensor]:
    """The k-th smallest number along an axis, and its place: of equal ones the first, where PyTorch gives any."""
    values, places = torch.sort(x, dim=dim)
    if keepdim:
        return values.narrow(dim, k - 1, 1), places.narrow(dim, k - 1, 1)
    return values.select(dim, k - 1), places.select(dim, k - 1)


def _searchsorted(
    sorted_sequence: Tensor,
    input: Any,  # noqa: A002
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """How many numbers of the sequence lie before each of the input's."""
    if sorter is not None or not isinstance(input, Tensor):
        return torch.searchsorted(
            sorted_sequence, input, out_int32=out_int32, right=right, side=side, sorter=sorter
        )  # fmt: skip
    table = sorted_sequence if sorted_sequence.ndim == 1 else sorted_sequence.unsqueeze(-2)
    before = table <= input.unsqueeze(-1) if right or side == "right" else table < input.unsqueeze(-1)
    return before.to(torch.int32 if out_int32 else torch.int64).sum(-1)


def _masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:  # noqa: A002
    """The source's numbers in order wherever the mask is true."""
    shape = torch.broadcast_shapes(input.shape, mask.shape)  # type: ignore[no-untyped-call]
    flat = mask.expand(shape).reshape(-1)
    place = (flat.to(torch.int64).cumsum(0) - 1).clamp(min=0)
    return torch.where(mask, source.reshape(-1)[place].reshape(shape), input)


def _isin(elements: Tensor, test_elements: Any, *, assume_unique: bool = False, invert: bool = False) -> Tensor:
    if not all(isinstance(v, Tensor) for v in (elements, test_elements)):
        inside: Tensor = torch.isin(elements, test_elements, assume_unique=assume_unique, invert=invert)
        return inside
    found: Tensor = (elements.unsqueeze(-1) == test_elements.reshape(-1)).any(-1)
    return ~found if invert else found


def _column_stack(tensors: Any) -> Tensor:
    return torch.cat([t.reshape(-1, 1) if t.ndim < 2 else t for t in tensors], 1)


def _einsum(equation: Any, *operands: Any) -> Tensor:
    """Of complex numbers as of their parts: the exporter knows only real ones."""
    given = operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
    if len(given) != 2 or not all(isinstance(t, Tensor) for t in given) or not any(t.is_complex() for t in given):
        result: Tensor = torch.einsum(equation, *operands)
        return result
    (a, b), (c, d) = (torch.view_as_real(t + 0j).unbind(-1) for t in given)
    real = torch.einsum(equation, a, c) - torch.einsum(equation, b, d)
    return torch.complex(real, torch.einsum(equation, a, d) + torch.einsum(equation, b, c))


MISSING: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.cumprod: _cumprod, Tensor.cumprod: _cumprod,
    torch.erfinv: _erfinv, Tensor.erfinv: _erfinv, torch.special.erfinv: _erfinv,
    torch.inverse: _inverse, Tensor.inverse: _inverse, torch.linalg.inv: _inverse,
    torch.linalg.cholesky: _cholesky, torch.linalg.solve: _solve,
    torch.atan2: _atan2, Tensor.atan2: _atan2, torch.arctan2: _atan2, Tensor.arctan2: _atan2,
    torch.nan_to_num: _nan_to_num, Tensor.nan_to_num: _nan_to_num,
    torch.cdist: _cdist,
    torch.median: _median, Tensor.median: _median,
    torch.kthvalue: _kthvalue, Tensor.kthvalue: _kthvalue,
    torch.searchsorted: _searchsorted,
    torch.masked_scatter: _masked_scatter, Tensor.masked_scatter: _masked_scatter,
    torch.isin: _isin, torch.column_stack: _column_stack, torch.einsum: _einsum,
    functional.embedding_bag: embedding_bag, **CLASS_LOSSES, **POOL_PLACES, **WINDOWS,
}  # fmt: skip
"""What stands for each function while PyTorch traces; where it doesn't know the arguments, the function itself."""
