"""Two descriptions of one layer, compared setting by setting: what differs, what that changes, and what mends it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from translator.verdict import Effect
from translator.verify.activation_numbers import same_function
from translator.verify.facts import (
    Activation,
    Attention,
    Conv,
    Dense,
    Dropout,
    Embedding,
    Facts,
    Norm,
    Padding,
    Pads,
    Pool,
    Presence,
    Recurrent,
    Resize,
    Windows,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A setting that differs, before it is tied to a layer."""

    kind: str
    torch: str
    keras: str
    effect: Effect
    fix: str = ""
    detail: str = ""


Findings = Iterator[Finding]


def compare(want: Facts, got: Facts, *, layer: str, nonnegative: bool = False) -> Findings:
    """Findings between what PyTorch computes and what Keras computes.

    layer: name of the Keras class, for the fixes. nonnegative: the layer's input is never below zero (it comes from a
    ReLU), so that padding a maximum with 0 or with minus infinity is the same.
    """
    if isinstance(want, Dense | Conv) and isinstance(got, Dense | Conv) and type(want) is not type(got):
        yield from _dense_as_conv(want, got, layer)
        return
    if type(want) is not type(got):
        yield Finding(kind="kind", torch=kind_text(want), keras=kind_text(got), effect=Effect.INFERENCE)
        return
    yield from _COMPARE.get(type(want), _nothing)(want, got, layer, nonnegative)


def kind_text(facts: Facts) -> str:
    """A short name of what a layer is."""
    match facts:
        case Conv(transposed=transposed, channels=channels, groups=groups):
            name = "transposed convolution" if transposed else "convolution"
            return f"depthwise {name}" if groups == channels > 1 else name
        case Norm(kind=kind):
            return f"{kind} normalisation"
        case Pool(kind=kind):
            return f"{kind} pooling"
        case Activation():
            return facts.text()
        case _:
            return type(facts).__name__.lower()


def presence_finding(
    kind: str, want: Presence, got: Presence, *, words: tuple[str, str], fix: tuple[str, str]
) -> Findings:
    """A weight on one side only: it changes training; inference only where it is in use.

    words: what to call it where it is there (PyTorch, Keras). fix: to take it away from Keras, to add it.
    """
    if (want is Presence.NONE) == (got is Presence.NONE):
        return
    in_use = Presence.IN_USE in (want, got)
    yield Finding(
        kind=kind,
        torch="none" if want is Presence.NONE else words[0],
        keras="none" if got is Presence.NONE else words[1],
        effect=Effect.INFERENCE if in_use else Effect.TRAINING,
        fix=fix[0] if want is Presence.NONE else fix[1],
        detail="" if in_use else "no change while it has no effect: zeros, or ones for a scale",
    )


def pads_text(pads: Pads | None) -> str:
    """`(1,1),(1,1)`."""
    return "not known" if pads is None else ",".join(f"({a},{b})" for a, b in pads)


def _nothing(*_: object) -> Findings:
    yield from ()


def _same_number(a: float, b: float) -> bool:
    return a == b or math.isclose(a, b, rel_tol=1e-9)


def _setting(kind: str, want: object, got: object, effect: Effect, fix: str = "", detail: str = "") -> Findings:
    same = _same_number(want, got) if isinstance(want, float) and isinstance(got, float) else want == got
    if not same:
        yield Finding(kind=kind, torch=_text(want), keras=_text(got), effect=effect, fix=fix, detail=detail)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "×".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _bias(want: Conv | Dense | Attention, got: Conv | Dense | Attention) -> Findings:
    kind = {Conv: "conv-bias", Dense: "dense-bias"}.get(type(want), "attention-bias")
    words, fix = ("a bias", "a bias"), ("use_bias=False", "use_bias=True")
    yield from presence_finding(kind, want.bias, got.bias, words=words, fix=fix)


def _conv(want: Conv, got: Conv, layer: str, _: bool) -> Findings:
    if want.transposed != got.transposed:
        yield Finding(kind="kind", torch=kind_text(want), keras=kind_text(got), effect=Effect.INFERENCE)
        return
    a, b = want.windows, got.windows
    yield from _setting("filters", want.filters, got.filters, Effect.INFERENCE, f"{layer}({want.filters}, …)")
    yield from _setting("groups", want.groups, got.groups, Effect.INFERENCE, f"{layer}(groups={want.groups})")
    yield from _setting("kernel-size", a.kernel, b.kernel, Effect.INFERENCE, f"{layer}(kernel_size={a.kernel})")
    yield from _setting("stride", a.stride, b.stride, Effect.INFERENCE, f"{layer}(strides={_short(a.stride)})")
    yield from _setting("dilation", a.dilation, b.dilation, Effect.INFERENCE, f"{layer}(dilation_rate={a.dilation})")
    if not want.transposed and a.kernel == b.kernel and a.stride == b.stride and a.dilation == b.dilation:
        yield from _padding(a, b, layer)
    yield from _bias(want, got)


def _dense_as_conv(want: Dense | Conv, got: Dense | Conv, layer: str) -> Findings:
    conv, dense = (want, got) if isinstance(want, Conv) else (got, want)
    if isinstance(conv, Conv) and isinstance(dense, Dense):
        units = conv.filters == dense.units and conv.channels == dense.channels
        if set(conv.windows.kernel) == {1} and units and conv.groups == 1 and not conv.transposed:
            yield from _bias(want, got)
            return
    yield Finding(kind="kind", torch=kind_text(want), keras=kind_text(got), effect=Effect.INFERENCE)


def _short(values: tuple[int, ...]) -> str:
    return str(values[0]) if len(set(values)) == 1 else str(values)


def _padding(want: Windows, got: Windows, layer: str) -> Findings:
    """Given: equal kernels and strides. Result: findings where the windows lie elsewhere, or read another border."""
    if want.padding is None or (got.padding == want.padding and not want.ceil):
        return
    if got.padding is not None and _same_windows(want, got):
        if not want.ceil:
            detail = "at this size the padding that differs is never read"
            yield _padding_finding(want, got, layer, Effect.NOTHING, detail)
        return
    yield _padding_finding(want, got, layer, Effect.INFERENCE, "")


def _same_windows(want: Windows, got: Windows) -> bool:
    counts = want.counts()
    starts = [a[0] == b[0] for a, b in zip(want.padding or (), got.padding or (), strict=False)]
    return counts is not None and counts == got.counts() and bool(starts) and all(starts)


def _padding_finding(want: Windows, got: Windows, layer: str, effect: Effect, detail: str) -> Finding:
    keras = pads_text(got.padding)
    if got.same:
        keras = f"same={keras}" if len(set(got.padding or ())) != 1 else f"same={pads_text((got.padding or ())[:1])}"
    pads = _needed(want)
    rank = len(pads)
    amount = str(pads[0][0]) if len({n for pair in pads for n in pair}) == 1 else str(pads)
    if any(n for pair in pads for n in pair):
        front = f"ZeroPadding{rank}D({amount})" if want.fill == 0.0 else f"ops.pad(x, …, constant_values={want.fill})"
        fix = f'{front} in front, then {layer}(padding="valid")'
    else:
        fix = f'{layer}(padding="valid")'
    torch = pads_text(want.padding) + (" and ceil_mode" if want.ceil else "")
    return Finding(kind="padding", torch=torch, keras=keras, effect=effect, fix=fix, detail=detail)


def _needed(windows: Windows) -> Pads:
    """The padding that gives Keras, which knows no ceil_mode, the same windows."""
    pads, counts = windows.padding or (), windows.counts()
    if not windows.ceil or counts is None or windows.sizes is None:
        return pads
    rows = zip(pads, counts, windows.sizes, windows.stride, windows.extent, strict=True)
    return tuple((before, (count - 1) * s + extent - n - before) for (before, _), count, n, s, extent in rows)


def _dense(want: Dense, got: Dense, layer: str, _: bool) -> Findings:
    yield from _setting("units", want.units, got.units, Effect.INFERENCE, f"{layer}({want.units})")
    yield from _setting("input-width", want.channels, got.channels, Effect.INFERENCE)
    yield from _bias(want, got)


def _norm(want: Norm, got: Norm, layer: str, _: bool) -> Findings:
    yield from _setting("normalisation", want.kind, got.kind, Effect.INFERENCE)
    if want.kind != got.kind:
        return
    trained = want.trains_as or want.kind, got.trains_as or got.kind
    yield from _setting("normalisation", *trained, Effect.TRAINING, detail="in training")
    fix = f"{layer}(epsilon={want.epsilon!r})"
    yield from _setting("epsilon", want.epsilon, got.epsilon, Effect.INFERENCE, fix)
    yield from _setting("groups", want.groups, got.groups, Effect.INFERENCE, f"{layer}(groups={want.groups})")
    if got.normalised:  # a Keras layer without weights doesn't tell its size: its input has it
        yield from _setting("normalised-size", want.normalised, got.normalised, Effect.INFERENCE)
    if want.statistics != got.statistics:
        yield Finding(
            kind="bn-statistics-used", torch="running statistics" if want.statistics else "the batch's own statistics",
            keras="running statistics" if got.statistics else "the batch's own", effect=Effect.INFERENCE,
        )  # fmt: skip
    yield from _momentum(want, got, layer)
    ones = ("ones", "trainable")
    yield from presence_finding(
        "norm-scale", want.scale, got.scale, words=ones, fix=(f"{layer}(scale=False)", f"{layer}(scale=True)")
    )
    zeros = ("zeros", "trainable")
    yield from presence_finding(
        "norm-centre", want.centre, got.centre, words=zeros, fix=(f"{layer}(center=False)", f"{layer}(center=True)")
    )


def _momentum(want: Norm, got: Norm, layer: str) -> Findings:
    if want.momentum is None or got.momentum is None or _same_number(want.momentum, got.momentum):
        return
    torch = "none (a cumulative average)" if want.momentum < 0 else f"{1 - want.momentum:g} → {want.momentum:g}"
    keep = 0.99 if want.momentum < 0 else round(want.momentum, 12)
    fix = "" if want.momentum < 0 else f"{layer}(momentum={keep!r})"
    yield Finding(kind="momentum", torch=torch, keras=f"{got.momentum:g}", effect=Effect.TRAINING, fix=fix)


def _activation(want: Activation, got: Activation, layer: str, _: bool) -> Findings:
    a, b = dict(want.settings), dict(got.settings)
    numbers = [(a[k], b[k]) for k in a if k in b]
    same = want.name == got.name and a.keys() == b.keys() and all(_equal(x, y) for x, y in numbers)
    if not same:
        told = same_function(want, got)  # celu(1) is elu(1), and a lambda may be anything
        same = told or (told is None and got.function is not None)  # what can't be asked is left to the judge
    if not same:
        fix = f"{layer}: {want.text()}"
        yield Finding(kind="activation", torch=want.text(), keras=got.text(), effect=Effect.INFERENCE, fix=fix)


def _equal(a: float | int | bool | str, b: float | int | bool | str) -> bool:
    return _same_number(a, b) if isinstance(a, float) and isinstance(b, float) else a == b


def _pool(want: Pool, got: Pool, layer: str, nonnegative: bool) -> Findings:
    yield from _setting("pooling", want.kind, got.kind, Effect.INFERENCE)
    a, b = want.windows, got.windows
    if a is None or b is None:
        c, d = pool_output(want), pool_output(got)
        if c is not None and d is not None and c != d:
            yield from _setting("pooling-size", c, d, Effect.INFERENCE)
        return
    alone = a.counts() == b.counts() == (1,) * len(a.kernel)
    yield from _setting("pool-size", a.kernel, b.kernel, Effect.INFERENCE, f"{layer}(pool_size={a.kernel})")
    if not alone:
        yield from _setting("stride", a.stride, b.stride, Effect.INFERENCE, f"{layer}(strides={_short(a.stride)})")
    if a.kernel != b.kernel or (a.stride != b.stride and not alone):
        return
    yield from _padding(a, b, layer)
    padded = any(n for pair in a.padding or () for n in pair)
    if want.kind == "max" and padded and a.fill != b.fill and b.fill == 0.0:
        effect = Effect.NOTHING if nonnegative else Effect.INFERENCE
        detail = "the input is never below zero (it comes from a ReLU)" if nonnegative else ""
        fix = "ops.pad(x, …, constant_values=-inf) in place of the zero padding"
        yield Finding(
            kind="pooling-padding", torch="padded with -inf", keras="padded with 0", effect=effect, fix=fix,
            detail=detail,
        )  # fmt: skip
    if want.kind == "average" and padded and want.counts_padding != got.counts_padding:
        words = {True: "the padding counts", False: "the padding does not count"}
        fix = "ZeroPadding in front, then padding=valid" if want.counts_padding else 'padding="same"'
        yield Finding(
            kind="pooling-divisor", torch=words[want.counts_padding], keras=words[got.counts_padding],
            effect=Effect.INFERENCE, fix=fix,
        )  # fmt: skip


def pool_output(pool: Pool) -> tuple[int | None, ...] | None:
    """The output size of a pooling, where it is known."""
    if pool.output is not None:
        return pool.output
    return pool.windows.counts() if pool.windows is not None else None


def _pad(want: Padding, got: Padding, layer: str, _: bool) -> Findings:
    yield from _setting("padding", pads_text(want.pads), pads_text(got.pads), Effect.INFERENCE, f"{layer}({want.pads})")
    yield from _setting("padding-value", str(want.fill), str(got.fill), Effect.INFERENCE)


def _dropout(want: Dropout, got: Dropout, layer: str, _: bool) -> Findings:
    yield from _setting("dropout", want.rate, got.rate, Effect.TRAINING, f"{layer}({want.rate:g})")
    yield from _setting("dropout-kind", want.kind, got.kind, Effect.TRAINING)


def _embedding(want: Embedding, got: Embedding, layer: str, _: bool) -> Findings:
    yield from _setting("rows", want.rows, got.rows, Effect.INFERENCE, f"{layer}({want.rows}, {want.width})")
    yield from _setting("width", want.width, got.width, Effect.INFERENCE, f"{layer}({want.rows}, {want.width})")


def _recurrent(want: Recurrent, got: Recurrent, layer: str, _: bool) -> Findings:
    yield from _setting("cell", want.cell, got.cell, Effect.INFERENCE)
    yield from _setting("units", want.units, got.units, Effect.INFERENCE, f"{layer}({want.units})")
    yield from _setting("bidirectional", want.bidirectional, got.bidirectional, Effect.INFERENCE)
    yield from _setting("activation", want.activation, got.activation, Effect.INFERENCE)
    if want.cell == got.cell:
        fix = f'{layer}(recurrent_activation="{want.gate}")'
        yield from _setting("gate-activation", want.gate, got.gate, Effect.INFERENCE, fix)
    yield from _setting("dropout", want.dropout, got.dropout, Effect.TRAINING)
    if want.cell == got.cell == "gru":
        fix = f"{layer}(reset_after=True)"
        yield from _setting("reset-after", want.reset_after, got.reset_after, Effect.INFERENCE, fix)
    if want.biases != got.biases:
        both = bool(want.biases) and bool(got.biases)
        yield Finding(
            kind="rnn-biases", torch=f"{want.biases} per cell", keras=f"{got.biases} per cell",
            effect=Effect.TRAINING if both else Effect.INFERENCE,
            detail="only their sum enters the function" if both else "",
            fix="" if both else f"{layer}(use_bias={bool(want.biases)})",
        )  # fmt: skip


def _attention(want: Attention, got: Attention, layer: str, _: bool) -> Findings:
    yield from _setting("heads", want.heads, got.heads, Effect.INFERENCE, f"{layer}(num_heads={want.heads})")
    yield from _setting("width", want.width, got.width, Effect.INFERENCE)
    if want.dropout is not None and got.dropout is not None:
        fix = f"{layer}(dropout={want.dropout:g})"
        yield from _setting("dropout", want.dropout, got.dropout, Effect.TRAINING, fix)
    if want.packed is not None and got.packed is not None:
        words = {True: "one matrix for query, key and value", False: "a matrix each"}
        yield from _setting("packed-projections", words[want.packed], words[got.packed], Effect.NOTHING)
    yield from _bias(want, got)


def _resize(want: Resize, got: Resize, layer: str, _: bool) -> Findings:
    fix = f'{layer}(interpolation="{want.mode}")'
    yield from _setting("interpolation", want.mode, got.mode, Effect.INFERENCE, fix)
    yield from _setting("align-corners", want.corners, got.corners, Effect.INFERENCE)
    if want.factor and got.factor:
        yield from _setting("factor", want.factor, got.factor, Effect.INFERENCE, f"{layer}(size={want.factor})")


_COMPARE: dict[type, Callable[..., Findings]] = {
    Conv: _conv, Dense: _dense, Norm: _norm, Activation: _activation, Pool: _pool, Dropout: _dropout, Padding: _pad,
    Embedding: _embedding, Recurrent: _recurrent, Attention: _attention, Resize: _resize,
}  # fmt: skip
