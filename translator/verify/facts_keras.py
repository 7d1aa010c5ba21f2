"""Keras operations (layers, and the functions of `keras.ops` inside a model), described in the words of `facts`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from translator.verify.facts import (
    Activation,
    Attention,
    Conv,
    Dense,
    Dropout,
    Embedding,
    Facts,
    Ints,
    Norm,
    Padding,
    Pads,
    Pool,
    Preprocessing,
    Presence,
    Recurrent,
    Resize,
    Shaping,
    Windows,
    same_padding,
)
from translator.verify.facts_keras_activations import activation_of
from translator.verify.keras_kinds import TABLE, call_argument, describes, keras_class, keras_classes, presence, size_of

if TYPE_CHECKING:
    import keras


def keras_facts(operation: keras.Operation, sizes: Ints | None = None) -> Facts | None:
    """What `operation` computes, or None where it is not one of Keras' own kinds.

    sizes: the spatial sizes of its input; where they are not given, those of the tensor it was built with.
    """
    for name in keras_classes(operation):
        if name in TABLE:
            return TABLE[name](operation, sizes or _sizes(operation))
    return None


_WITH_ACTIVATION = frozenset(
    {"BaseConv", "BaseDepthwiseConv", "BaseSeparableConv", "BaseConvTranspose", "Dense", "EinsumDense"}
)


def inner_activation(operation: keras.Operation) -> Activation | None:
    """The activation that a weighted layer computes after its own work, None where there is none."""
    if not _WITH_ACTIVATION.intersection(keras_classes(operation)) or operation.activation is None:
        return None
    found = activation_of(operation.activation)
    return None if found.name == "linear" else found


def _sizes(operation: Any) -> Ints | None:
    nodes = getattr(operation, "_inbound_nodes", ())
    if not nodes or not nodes[0].input_tensors:
        return None
    shape = nodes[0].input_tensors[0].shape
    first = getattr(operation, "data_format", "channels_last") == "channels_first"
    spatial = shape[2:] if first else shape[1:-1]
    return tuple(spatial) if spatial and all(isinstance(n, int) for n in spatial) else None


def window_facts(op: Any, kernel: Ints, *, sizes: Ints | None, dilation: Ints, fill: float) -> Windows:
    """How the window of a convolution or pooling layer slides."""
    stride = tuple(op.strides)
    rank, pads = len(kernel), None
    if op.padding == "valid":
        pads = ((0, 0),) * rank
    elif op.padding == "causal":
        pads = tuple(((k - 1) * d, 0) for k, d in zip(kernel, dilation, strict=True))
    elif op.padding == "same":
        pads = _same(kernel, stride, dilation, sizes)
    same = op.padding == "same"
    return Windows(
        kernel=kernel, stride=stride, dilation=dilation, padding=pads, fill=fill, same=same, sizes=sizes
    )  # fmt: skip


def _same(kernel: Ints, stride: Ints, dilation: Ints, sizes: Ints | None) -> Pads | None:
    extent = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    if sizes is None or len(sizes) != len(kernel):
        if any(s != 1 for s in stride):
            return None
        return tuple(((e - 1) // 2, e // 2) for e in extent)
    return tuple(same_padding(n, e, s) for n, e, s in zip(sizes, extent, stride, strict=True))


@describes("BaseConv")
def _conv(op: Any, sizes: Ints | None) -> Conv | None:
    if not op.built:
        return None
    kernel, dilation = tuple(op.kernel_size), tuple(op.dilation_rate)
    return Conv(
        transposed=False,
        channels=int(op.kernel.shape[-2]) * int(op.groups),
        filters=int(op.filters),
        windows=window_facts(op, kernel, sizes=sizes, dilation=dilation, fill=0.0),
        groups=int(op.groups),
        bias=presence(op.bias, 0.0),
    )


@describes("BaseDepthwiseConv")
def _depthwise(op: Any, sizes: Ints | None) -> Conv | None:
    if not op.built:
        return None
    kernel, dilation, channels = tuple(op.kernel_size), tuple(op.dilation_rate), int(op.kernel.shape[-2])
    return Conv(
        transposed=False,
        channels=channels,
        filters=channels * int(op.depth_multiplier),
        windows=window_facts(op, kernel, sizes=sizes, dilation=dilation, fill=0.0),
        groups=channels,
        bias=presence(op.bias, 0.0),
    )


@describes("BaseConvTranspose")
def _conv_transpose(op: Any, sizes: Ints | None) -> Conv | None:
    if not op.built:
        return None
    kernel, rank = tuple(op.kernel_size), len(op.kernel_size)
    pads = ((0, 0),) * rank if op.padding == "valid" else None
    windows = Windows(
        kernel=kernel, stride=tuple(op.strides), dilation=tuple(op.dilation_rate), padding=pads, sizes=sizes,
        same=op.padding == "same",
    )  # fmt: skip
    return Conv(
        transposed=True,
        channels=int(op.kernel.shape[-1]),
        filters=int(op.filters),
        windows=windows,
        groups=1,
        bias=presence(op.bias, 0.0),
        output_padding=None if op.output_padding is None else tuple(op.output_padding),
    )


@describes("Dense")
def _dense(op: Any, _: Ints | None) -> Dense | None:
    if not op.built:
        return None
    return Dense(channels=int(op.kernel.shape[0]), units=int(op.units), bias=presence(op.bias, 0.0))


@describes("BatchNormalization")
def _batch_norm(op: Any, _: Ints | None) -> Norm | None:
    if not op.built:
        return None
    return Norm(
        kind="batch",
        epsilon=float(op.epsilon),
        scale=presence(op.gamma, 1.0) if op.scale else Presence.NONE,
        centre=presence(op.beta, 0.0) if op.center else Presence.NONE,
        normalised=int(op.moving_mean.shape[0]),
        momentum=float(op.momentum),
        statistics=True,
    )


@describes("LayerNormalization")
def _layer_norm(op: Any, _: Ints | None) -> Norm | None:
    if not op.built:
        return None
    scale = getattr(op, "gamma", None)
    centre = getattr(op, "beta", None)
    return Norm(
        kind="rms" if getattr(op, "rms_scaling", False) else "layer",
        epsilon=float(op.epsilon),
        scale=presence(scale, 1.0),
        centre=presence(centre, 0.0),
        normalised=size_of(scale if scale is not None else centre),
    )


@describes("RMSNormalization")
def _rms_norm(op: Any, _: Ints | None) -> Norm | None:
    if not op.built:
        return None
    scale = presence(op.scale, 1.0)
    return Norm(kind="rms", epsilon=float(op.epsilon), scale=scale, centre=Presence.NONE, normalised=size_of(op.scale))


@describes("GroupNormalization")
def _group_norm(op: Any, _: Ints | None) -> Norm | None:
    if not op.built:
        return None
    channels = int(op.input_spec.axes[op.axis])
    return Norm(
        kind="instance" if op.groups in (-1, channels) else "group",
        epsilon=float(op.epsilon),
        scale=presence(op.gamma, 1.0) if op.scale else Presence.NONE,
        centre=presence(op.beta, 0.0) if op.center else Presence.NONE,
        normalised=channels,
        groups=channels if op.groups == -1 else int(op.groups),
    )


@describes("BasePooling")
def _pool(op: Any, sizes: Ints | None) -> Pool:
    kind, kernel = str(op.pool_mode), tuple(op.pool_size)
    fill = float("-inf") if kind == "max" else 0.0
    return Pool(kind=kind, windows=window_facts(op, kernel, sizes=sizes, dilation=(1,) * len(kernel), fill=fill))


@describes("MaxPool", "AveragePool")
def _pool_function(op: Any, sizes: Ints | None) -> Pool | None:
    size = op.pool_size
    rank = len(sizes) if sizes else len(size) if isinstance(size, tuple | list) else 0
    if not rank:
        return None
    kernel = tuple(size) if isinstance(size, tuple | list) else (int(size),) * rank
    strides = kernel if op.strides is None else op.strides
    stride = tuple(strides) if isinstance(strides, tuple | list) else (int(strides),) * rank
    ones = (1,) * rank
    pads = ((0, 0),) * rank if op.padding == "valid" else _same(kernel, stride, ones, sizes)
    kind = "max" if keras_class(op) == "MaxPool" else "average"
    fill = float("-inf") if kind == "max" else 0.0
    same = op.padding == "same"
    windows = Windows(kernel=kernel, stride=stride, dilation=ones, padding=pads, fill=fill, same=same, sizes=sizes)
    return Pool(kind=kind, windows=windows)


@describes(*(f"Global{kind}Pooling{rank}D" for kind in ("Max", "Average") for rank in (1, 2, 3)))
def _global_pool(op: Any, _: Ints | None) -> Pool:
    name = keras_class(op)
    return Pool(kind="max" if "Max" in name else "average", output=(1,) * int(name[-2]))


@describes("BaseAdaptivePooling", "AdaptiveMaxPool", "AdaptiveAveragePool")
def _adaptive_pool(op: Any, sizes: Ints | None) -> Pool:
    wanted = op.output_size
    output = tuple(wanted) if isinstance(wanted, tuple | list) else (int(wanted),) * len(sizes or (0,))
    return Pool(kind="max" if "Max" in type(op).__name__ else "average", output=output)


_DROPOUTS = {
    "Dropout": "element",
    "AlphaDropout": "alpha",
    "GaussianDropout": "gaussian",
    "BaseSpatialDropout": "channel",
}


@describes(*_DROPOUTS)
def _dropout(op: Any, _: Ints | None) -> Dropout:
    kind = next(kind for name, kind in _DROPOUTS.items() if any(c.__name__ == name for c in type(op).__mro__[:3]))
    shape = getattr(op, "noise_shape", None)
    if any("SpatialDropout" in c.__name__ for c in type(op).__mro__):
        kind = "channel"
    elif kind == "element" and shape is not None and all(n == 1 for n in shape[1:]):
        kind = "path"
    elif kind == "element" and shape is not None and all(n == 1 for n in shape[1:-1]):
        kind = "channel"
    return Dropout(kind=kind, rate=float(op.rate))


@describes("Embedding")
def _embedding(op: Any, _: Ints | None) -> Embedding:
    return Embedding(rows=int(op.input_dim), width=int(op.output_dim))


@describes("LSTM", "GRU", "SimpleRNN")
def _recurrent(op: Any, _: Ints | None) -> Recurrent:
    cell = {"SimpleRNN": "rnn"}.get(keras_class(op), keras_class(op).lower())
    after = bool(op.reset_after) if cell == "gru" else None
    return Recurrent(
        cell=cell,
        units=int(op.units),
        layers=1,
        bidirectional=False,
        biases=(2 if after else 1) if op.use_bias else 0,
        dropout=float(op.dropout),
        reset_after=after,
        activation=activation_of(op.activation).name,
        gate=activation_of(op.recurrent_activation).name if cell != "rnn" else "",
    )


@describes("Bidirectional")
def _bidirectional(op: Any, sizes: Ints | None) -> Recurrent | None:
    inner = keras_facts(op.forward_layer, sizes)
    if not isinstance(inner, Recurrent):
        return None
    return replace(inner, bidirectional=True)


@describes("MultiHeadAttention")
def _attention(op: Any, _: Ints | None) -> Attention:
    bias = presence(op._query_dense.bias, 0.0) if op.built else Presence.NONE
    width = int(op.num_heads) * int(op.key_dim)
    return Attention(heads=int(op.num_heads), width=width, bias=bias, dropout=float(op.dropout), packed=False)


@describes("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D")
def _zero_padding(op: Any, _: Ints | None) -> Padding:
    pairs = op.padding if isinstance(op.padding[0], tuple | list) else (op.padding,)
    return Padding(pads=tuple((int(a), int(b)) for a, b in pairs), fill=0.0)


@describes("Cropping1D", "Cropping2D", "Cropping3D")
def _cropping(op: Any, _: Ints | None) -> Padding:
    pairs = op.cropping if isinstance(op.cropping[0], tuple | list) else (op.cropping,)
    return Padding(pads=tuple((-int(a), -int(b)) for a, b in pairs), fill=0.0)


@describes("Pad")
def _pad(op: Any, _: Ints | None) -> Padding | None:
    pairs = op.pad_width
    if not isinstance(pairs, tuple | list) or len(pairs) < 3 or any(any(p) for p in (pairs[0], pairs[-1])):
        return None
    value = call_argument(op, "constant_values", 1, 0.0)
    fill: float | str = (
        float(value or 0.0) if op.mode == "constant" else {"symmetric": "symmetric"}.get(op.mode, op.mode)
    )
    return Padding(pads=tuple((int(a), int(b)) for a, b in pairs[1:-1]), fill=fill)


@describes("UpSampling1D", "UpSampling2D", "UpSampling3D")
def _upsampling(op: Any, _: Ints | None) -> Resize:
    size = op.size if isinstance(op.size, tuple | list) else (op.size,)
    return Resize(mode=getattr(op, "interpolation", "nearest"), factor=tuple(float(s) for s in size), size=None)


@describes("Flatten", "Reshape", "Permute", "Identity")
def _shaping(op: Any, _: Ints | None) -> Shaping:
    return Shaping(name=keras_class(op).lower())


@describes("Rescaling", "Normalization")
def _preprocessing(op: Any, _: Ints | None) -> Preprocessing:
    if keras_class(op) == "Rescaling":
        return Preprocessing(name="Rescaling", settings=f"scale={op.scale}, offset={op.offset}")
    return Preprocessing(name="Normalization", settings="mean and variance of its own")
