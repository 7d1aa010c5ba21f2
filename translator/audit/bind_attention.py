"""Multi-head attention: one packed matrix for query, key and value in PyTorch, a kernel for each in Keras."""

from __future__ import annotations

from collections.abc import Iterator

from translator.audit.bind import Bound, made
from translator.audit.network import Unit, Weight
from translator.bindings import Permute, Piece, Reshape, Step

_PARTS = ("query", "key", "value")


def attention(t: Unit, k: Unit) -> Iterator[Bound]:
    """The variables of a MultiHeadAttention layer."""
    for number, part in enumerate(_PARTS):
        kernel, bias = k.weight(f"{part}/kernel"), k.weight(f"{part}/bias")
        if kernel is None:
            return
        width, heads, size = kernel.shape
        tensor, region = _projection(t, part, number, heads * size)
        if tensor is not None and tensor.shape[-1] == width:
            steps: tuple[Step, ...] = (
                Permute(axes=(1, 0)), Reshape(before=(width, heads * size), after=kernel.shape)
            )  # fmt: skip
            whole = region and ((region[0], region[1]), (0, width))
            yield made(t, k, kernel, (Piece(tensor=tensor.name, region=whole or None),), steps)
        packed = t.weight("in_proj_bias")
        if bias is not None and packed is not None:
            first = number * heads * size
            piece = Piece(tensor=packed.name, region=((first, first + heads * size),))
            yield made(t, k, bias, (piece,), (Reshape(before=(heads * size,), after=bias.shape),))
    kernel, bias = k.weight("attention_output/kernel"), k.weight("attention_output/bias")
    out, shift = t.weight("out_proj.weight"), t.weight("out_proj.bias")
    if kernel is not None and out is not None and out.size == kernel.size:
        flat = (kernel.shape[0] * kernel.shape[1], kernel.shape[2])
        steps = (Permute(axes=(1, 0)), Reshape(before=flat, after=kernel.shape))
        yield made(t, k, kernel, (Piece(tensor=out.name),), steps)
    if bias is not None and shift is not None and bias.size == shift.size:
        yield made(t, k, bias, (Piece(tensor=shift.name),), ())


def _projection(t: Unit, part: str, number: int, rows: int) -> tuple[Weight | None, tuple[int, int] | None]:
    packed = t.weight("in_proj_weight")
    if packed is not None:
        return packed, (number * rows, (number + 1) * rows)
    return t.weight(f"{part[0]}_proj_weight"), None
