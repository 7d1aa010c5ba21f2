"""Modules whose own forward exports badly, with a forward that exports well and computes the same.

Recurrent layers are unrolled or repacked by the exporter: each layer becomes one node of the domain "translator".
`nn.MultiheadAttention` merges the batch with the heads: its forward is written batch-first, with the projections named.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.onnx import ops as onnx_ops

from translator.capture.marks import mark_attention, mark_dropout
from translator.capture.nodes import DOMAIN, Attributes

_PATH_DROPS = frozenset({"StochasticDepth", "DropPath"})
"""Class names of modules that drop whole samples of a branch (torchvision, timm, transformers)."""


@contextlib.contextmanager
def modules_marked(module: nn.Module) -> Iterator[None]:
    """While active, the modules inside `module` that are known here run the forwards of this file."""
    marked = [(m, forward) for m in module.modules() if (forward := _forward_of(m)) is not None]
    for m, forward in marked:
        forward.__signature__ = inspect.signature(m.forward)  # type: ignore[attr-defined]  # torch.export reads it
        object.__setattr__(m, "forward", forward)
    try:
        yield
    finally:
        for m, _ in marked:
            object.__delattr__(m, "forward")


def _forward_of(module: nn.Module) -> Callable[..., Any] | None:
    if "forward" in module.__dict__:
        return None
    if type(module).__name__ in _PATH_DROPS and _rate(module) > 0:
        kind = "batch" if getattr(module, "mode", "row") == "batch" else "path"
        return lambda *args, **kwargs: mark_dropout(kind, [*args, *kwargs.values()][0], _rate(module))
    own = type(module).forward
    if isinstance(module, nn.MultiheadAttention) and own is nn.MultiheadAttention.forward:
        return partial(_attention, module)
    recurrent = {nn.LSTM: nn.LSTM.forward, nn.GRU: nn.GRU.forward, nn.RNN: nn.RNN.forward}
    if any(isinstance(module, cls) and own is forward for cls, forward in recurrent.items()):
        return partial(_recurrent, module)
    return None


def _rate(module: nn.Module) -> float:
    rate = getattr(module, "p", getattr(module, "drop_prob", 0.0))
    return float(rate) if isinstance(rate, int | float) else 0.0


def _recurrent(module: Any, input: Any, hx: Any = None) -> Any:  # noqa: A002 - PyTorch's names
    """All layers of an LSTM, GRU or RNN, one node each: (B, T, in) → (B, T, directions · hidden), the last states."""
    if not isinstance(input, Tensor) or input.ndim not in (2, 3):
        return type(module).forward(module, input, hx)
    given = (hx if isinstance(hx, tuple) else (hx,)) if hx is not None else ()
    if input.ndim == 2:
        return _unbatched(module, input, given)
    directions = 2 if module.bidirectional else 1
    y = input if module.batch_first else input.transpose(0, 1)
    states: list[list[Tensor]] = []
    for layer in range(module.num_layers):
        if layer and module.dropout > 0:
            y = mark_dropout("element", y, module.dropout)
        own = [s[layer * directions : (layer + 1) * directions] for s in given]
        y, *last = _one_layer(module, layer, y, own)
        states.append(last)
    y = y if module.batch_first else y.transpose(0, 1)
    ends = tuple(torch.cat(parts, 0) if len(parts) > 1 else parts[0] for parts in zip(*states, strict=True))
    return y, (ends if isinstance(module, nn.LSTM) else ends[0])


def _unbatched(module: Any, x: Tensor, given: tuple[Tensor, ...]) -> Any:
    """A single sequence (T, in) as a batch of one: (T, directions · hidden), states (layers · directions, hidden)."""
    batch = 0 if module.batch_first else 1
    states = tuple(s.unsqueeze(1) for s in given)
    y, ends = _recurrent(module, x.unsqueeze(batch), states or None)
    ends = tuple(e.squeeze(1) for e in ends) if isinstance(ends, tuple) else ends.squeeze(1)
    return y.squeeze(batch), ends


def _one_layer(module: Any, layer: int, x: Tensor, states: list[Tensor]) -> Any:
    suffixes = [f"_l{layer}"] + ([f"_l{layer}_reverse"] if module.bidirectional else [])
    width = getattr(module, "proj_size", 0) or module.hidden_size
    names = ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if module.bias else ()))
    weights = [getattr(module, f"{name}{suffix}") for suffix in suffixes for name in names]
    directions, hidden = len(suffixes), module.hidden_size
    attributes: Attributes = {
        "layer": layer,
        "hidden": hidden,
        "directions": directions,
        "bias": int(module.bias),
        "single": int(module.num_layers == 1),
        "nonlinearity": getattr(module, "nonlinearity", "tanh"),
    }
    ends = 2 if isinstance(module, nn.LSTM) else 1
    states_of = [(directions, x.shape[0], size) for size in (width, hidden)[:ends]]
    shapes = [(x.shape[0], x.shape[1], directions * width), *states_of]
    kind = next(cls.__name__ for cls in (nn.LSTM, nn.GRU, nn.RNN) if isinstance(module, cls))
    kind = kind if width == hidden else f"{kind}WithProjection"  # Keras has none: refused by this name
    return onnx_ops.symbolic_multi_out(
        f"{DOMAIN}::{kind}", [x, *weights, *states], attributes, dtypes=[x.dtype] * (1 + ends), shapes=shapes, version=1
    )


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, role: str) -> Tensor:
    inputs = [x, weight] + ([bias] if bias is not None else [])
    shape = (*x.shape[:-1], weight.shape[0])
    return onnx_ops.symbolic(f"{DOMAIN}::Linear", inputs, {"role": role}, dtype=x.dtype, shape=shape, version=1)


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> Any:
    """`nn.MultiheadAttention.forward`, batch first. What it seldom does (bias_k, zero attention) stays."""
    if query.ndim not in (2, 3) or module.bias_k is not None or module.add_zero_attn:
        return type(module).forward(
            module, query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
        )
    if query.ndim == 2:
        batch = 0 if module.batch_first else 1
        query, key, value = (t.unsqueeze(batch) for t in (query, key, value))
        padding = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        y, weights = _attention(
            module, query, key, value, padding, need_weights, attn_mask, average_attn_weights, is_causal
        )
        return y.squeeze(batch), None if weights is None else weights.squeeze(0)
    if not module.batch_first:
        query, key, value = (t.transpose(0, 1) for t in (query, key, value))
    heads = module.num_heads
    biases = (None,) * 3 if module.in_proj_bias is None else module.in_proj_bias.chunk(3)
    if module._qkv_same_embed_dim:
        weights = module.in_proj_weight.chunk(3)
    else:
        weights = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
    parts = zip((query, key, value), weights, biases, ("query", "key", "value"), strict=True)
    q, k, v = (_heads(_linear(*part), heads) for part in parts)
    hint = is_causal and key_padding_mask is None and not need_weights
    mask = None if hint else _merged(query, heads, key_padding_mask, attn_mask)
    y = mark_attention(q, k, v, mask, module.dropout, hint).transpose(1, 2).flatten(2)
    y = _linear(y, module.out_proj.weight, module.out_proj.bias, "out_proj")
    y = y if module.batch_first else y.transpose(0, 1)
    if not need_weights:
        return y, None
    scores = (q * (1.0 / q.shape[-1]) ** 0.5) @ k.transpose(-2, -1)
    shares = (scores if mask is None else scores + mask).softmax(dim=-1)
    return y, shares.mean(dim=1) if average_attn_weights else shares


def _heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, E) → (B, H, T, E / H)."""
    return x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def _merged(query: Tensor, heads: int, padding: Tensor | None, mask: Tensor | None) -> Tensor | None:
    """Both masks as one that is added to the scores (B, H, T, S)."""
    if mask is not None:
        mask = _additive(mask, query)
        mask = mask[None, None] if mask.ndim == 2 else mask.reshape(-1, heads, *mask.shape[1:])
    if padding is None:
        return mask
    padding = _additive(padding, query)[:, None, None, :]
    return padding if mask is None else mask + padding


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))
