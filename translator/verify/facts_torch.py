"""PyTorch modules, described in the words of `facts`.

Dispatch is by the names of PyTorch's own classes along the class's MRO, so this file imports no framework and a
module of the user's own that merely bears such a name is not taken for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    Presence,
    Recurrent,
    Resize,
    Shaping,
    Windows,
    clip,
)

if TYPE_CHECKING:
    import torch

Describe = Callable[[Any, Ints | None], Facts]
_TABLE: dict[str, Describe] = {}


def torch_facts(module: torch.nn.Module, input_shape: Sequence[int | None] | None = None) -> Facts | None:
    """What `module` computes, or None where its class is not one of PyTorch's.

    input_shape: of its first tensor argument, (N, C, *S) or (C, *S) for convolutions and poolings.
    """
    sizes = _spatial(torch_class(module), input_shape or ())
    for cls in type(module).__mro__:
        if cls.__module__.startswith("torch.") and cls.__name__ in _TABLE:
            return _TABLE[cls.__name__](module, sizes)
    return _foreign(module)


def _spatial(name: str, shape: Sequence[int | None]) -> Ints | None:
    """The sizes of S: of as many axes as the class says by its name, of those behind N and C where it doesn't."""
    rank = int(name[-2]) if name.endswith(("1d", "2d", "3d")) else len(shape) - 2
    sizes = tuple(n for n in shape[-rank:] if n is not None) if 0 < rank < len(shape) else ()
    return sizes if sizes and len(sizes) == rank else None


def own_forward(module: torch.nn.Module) -> bool:
    """Whether the class replaces the forward of the PyTorch class it derives from (MaxPool2dSame, BatchNormAct2d)."""
    return not type(module).forward.__module__.startswith("torch.")


def torch_class(module: torch.nn.Module) -> str:
    """Name of the module's nearest PyTorch class."""
    for cls in type(module).__mro__:
        if cls.__module__.startswith("torch."):
            return str(cls.__name__)
    return type(module).__name__


def presence(tensor: Any, neutral: float) -> Presence:
    """Whether a parameter is there, and whether it has an effect; a tensor without values counts as in use."""
    if tensor is None:
        return Presence.NONE
    if tensor.device.type == "meta" or not bool((tensor == neutral).all()):
        return Presence.IN_USE
    return Presence.NEUTRAL


def _describes(*names: str) -> Callable[[Describe], Describe]:
    def register(function: Describe) -> Describe:
        _TABLE.update(dict.fromkeys(names, function))
        return function

    return register


def _ints(value: Any, rank: int) -> Ints:
    return tuple(int(v) for v in value) if isinstance(value, tuple | list) else (int(value),) * rank


def symmetric(padding: Ints) -> Pads:
    """(1, 2) as ((1, 1), (2, 2))."""
    return tuple((p, p) for p in padding)


def _conv_padding(m: Any, rank: int) -> Pads | None:
    if own_forward(m):
        return None
    if m.padding == "valid":
        return symmetric((0,) * rank)
    if m.padding == "same":
        totals = [d * (k - 1) for k, d in zip(m.kernel_size, m.dilation, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return symmetric(_ints(m.padding, rank))


@_describes("Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d")
def _conv(m: Any, sizes: Ints | None) -> Conv:
    rank = len(m.kernel_size)
    fill: float | str = 0.0 if m.padding_mode == "zeros" else {"replicate": "edge"}.get(m.padding_mode, m.padding_mode)
    windows = Windows(
        kernel=tuple(m.kernel_size),
        stride=tuple(m.stride),
        dilation=tuple(m.dilation),
        padding=_conv_padding(m, rank),
        fill=fill,
        same=m.padding == "same",
        sizes=sizes,
    )
    return Conv(
        transposed=bool(m.transposed),
        channels=int(m.in_channels),
        filters=int(m.out_channels),
        windows=windows,
        groups=int(m.groups),
        bias=presence(m.bias, 0.0),
        output_padding=tuple(m.output_padding) if m.transposed else None,
    )


@_describes("Linear", "NonDynamicallyQuantizableLinear")
def _linear(m: Any, _: Ints | None) -> Dense:
    return Dense(channels=int(m.in_features), units=int(m.out_features), bias=presence(m.bias, 0.0))


@_describes("_BatchNorm")
def _batch_norm(m: Any, _: Ints | None) -> Norm:
    momentum = -1.0 if m.momentum is None else 1.0 - float(m.momentum)
    return Norm(
        kind="batch",
        epsilon=float(m.eps),
        scale=presence(m.weight, 1.0),
        centre=presence(m.bias, 0.0),
        normalised=int(m.num_features),
        momentum=momentum if m.track_running_stats else None,
        statistics=bool(m.track_running_stats),
    )


@_describes("_InstanceNorm")
def _instance_norm(m: Any, _: Ints | None) -> Norm:
    scale, centre = presence(m.weight, 1.0), presence(m.bias, 0.0)
    channels = int(m.num_features)
    if m.track_running_stats:  # then evaluation is that of a BatchNorm
        return Norm(
            kind="batch", epsilon=float(m.eps), scale=scale, centre=centre, normalised=channels, statistics=True,
            trains_as="instance",
        )  # fmt: skip
    return Norm(kind="instance", epsilon=float(m.eps), scale=scale, centre=centre, normalised=channels, groups=channels)


@_describes("LayerNorm", "RMSNorm")
def _layer_norm(m: Any, _: Ints | None) -> Norm:
    size = 1
    for n in m.normalized_shape:
        size *= int(n)
    rms = "bias" not in m._parameters
    return Norm(
        kind="rms" if rms else "layer",
        epsilon=float(m.eps) if m.eps is not None else 1.1920928955078125e-07,
        scale=presence(m.weight, 1.0),
        centre=Presence.NONE if rms else presence(m.bias, 0.0),
        normalised=size,
    )


@_describes("GroupNorm")
def _group_norm(m: Any, _: Ints | None) -> Norm:
    scale, centre, groups = presence(m.weight, 1.0), presence(m.bias, 0.0), int(m.num_groups)
    channels = int(m.num_channels)
    kind = "instance" if groups == channels else "group"
    return Norm(kind=kind, epsilon=float(m.eps), scale=scale, centre=centre, normalised=channels, groups=groups)


@_describes("MaxPool1d", "MaxPool2d", "MaxPool3d")
def _max_pool(m: Any, sizes: Ints | None) -> Pool:
    return Pool(kind="max", windows=_pool_windows(m, sizes, fill=float("-inf"), dilation=m.dilation))


@_describes("AvgPool1d", "AvgPool2d", "AvgPool3d")
def _average_pool(m: Any, sizes: Ints | None) -> Pool:
    windows = _pool_windows(m, sizes, fill=0.0, dilation=1)
    padded = any(p for pads in windows.padding or () for p in pads)
    return Pool(kind="average", windows=windows, counts_padding=bool(m.count_include_pad) and padded)


@_describes("LPPool1d", "LPPool2d", "LPPool3d")
def _lp_pool(m: Any, sizes: Ints | None) -> Pool:
    return Pool(kind="lp", windows=_pool_windows(m, sizes, fill=0.0, dilation=1))


def _pool_windows(m: Any, sizes: Ints | None, *, fill: float, dilation: Any) -> Windows:
    rank = int(type(m).__name__[-2]) if type(m).__name__[-2:] in ("1d", "2d", "3d") else len(sizes or (0, 0))
    kernel = _ints(m.kernel_size, rank)
    padding = _ints(getattr(m, "padding", 0), rank)
    return Windows(
        kernel=kernel,
        stride=_ints(m.stride if m.stride is not None else kernel, rank),
        dilation=_ints(dilation, rank),
        padding=None if own_forward(m) else symmetric(padding),
        fill=fill,
        sizes=sizes,
        ceil=bool(m.ceil_mode),
    )


@_describes(*(f"Adaptive{kind}Pool{rank}d" for kind in ("Max", "Avg") for rank in (1, 2, 3)))
def _adaptive_pool(m: Any, sizes: Ints | None) -> Pool:
    rank = len(sizes) if sizes else int(torch_class(m)[-2])
    wanted = m.output_size if isinstance(m.output_size, tuple | list) else (m.output_size,) * rank
    output = tuple(sizes[i] if n is None and sizes else n for i, n in enumerate(wanted))
    return Pool(kind="max" if "Max" in torch_class(m) else "average", output=output)


_DROPOUTS = {"Dropout": "element", "AlphaDropout": "alpha", "FeatureAlphaDropout": "alpha"}


@_describes("_DropoutNd")
def _dropout(m: Any, _: Ints | None) -> Dropout:
    return Dropout(kind=_DROPOUTS.get(torch_class(m), "channel"), rate=float(m.p))


@_describes("Embedding", "EmbeddingBag")
def _embedding(m: Any, _: Ints | None) -> Embedding:
    return Embedding(rows=int(m.num_embeddings), width=int(m.embedding_dim))


@_describes("LSTM", "GRU", "RNN")
def _recurrent(m: Any, _: Ints | None) -> Recurrent:
    cell = m.mode.lower().split("_")[0]
    return Recurrent(
        cell=cell,
        units=int(m.hidden_size),
        layers=int(m.num_layers),
        bidirectional=bool(m.bidirectional),
        biases=2 if m.bias else 0,
        dropout=float(m.dropout) if m.num_layers > 1 else 0.0,
        reset_after=True if cell == "gru" else None,
        activation="relu" if m.mode == "RNN_RELU" else "tanh",
        gate="sigmoid" if cell != "rnn" else "",
    )


@_describes("MultiheadAttention")
def _attention(m: Any, _: Ints | None) -> Attention:
    bias = m.in_proj_bias if m.in_proj_bias is not None else m.out_proj.bias
    return Attention(
        heads=int(m.num_heads),
        width=int(m.embed_dim),
        bias=presence(bias, 0.0),
        dropout=float(m.dropout),
        packed=m.in_proj_weight is not None,
    )


@_describes(
    "ZeroPad1d", "ZeroPad2d", "ZeroPad3d", "_ConstantPadNd", "_ReflectionPadNd", "_ReplicationPadNd", "_CircularPadNd"
)
def _pad(m: Any, _: Ints | None) -> Padding:
    name = torch_class(m)
    modes: dict[str, float | str] = {"Ref": "reflect", "Rep": "edge", "Cir": "circular"}
    flat = _ints(m.padding, 2 * int(name[-2]))
    pairs = [(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)]
    return Padding(pads=tuple(reversed(pairs)), fill=modes.get(name[:3], float(getattr(m, "value", 0.0))))


@_describes("Upsample")
def _upsample(m: Any, sizes: Ints | None) -> Resize:
    rank = len(sizes) if sizes else 2
    factor = tuple(float(f) for f in _per_axis(m.scale_factor, rank)) if m.scale_factor is not None else None
    size = _ints(m.size, rank) if m.size is not None else None
    return Resize(mode=m.mode, factor=factor, size=size, corners=bool(m.align_corners))


def _per_axis(value: Any, rank: int) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,) * rank


@_describes("Flatten", "Unflatten", "Identity")
def _shaping(m: Any, _: Ints | None) -> Shaping:
    return Shaping(name=torch_class(m).lower())


_PLAIN = {
    "ReLU": "relu", "SELU": "selu", "SiLU": "silu", "Mish": "mish", "Sigmoid": "sigmoid", "Tanh": "tanh",
    "Softsign": "softsign", "LogSigmoid": "log_sigmoid", "Hardsigmoid": "hard_sigmoid", "Hardswish": "hard_silu",
    "Tanhshrink": "tanh_shrink", "Softmin": "softmin",
}  # fmt: skip

_SET: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "LeakyReLU": ("leaky_relu", (("negative_slope", "negative_slope"),)),
    "ELU": ("elu", (("alpha", "alpha"),)),
    "CELU": ("celu", (("alpha", "alpha"),)),
    "Hardshrink": ("hard_shrink", (("threshold", "lambd"),)),
    "Softshrink": ("soft_shrink", (("threshold", "lambd"),)),
    "Threshold": ("threshold", (("threshold", "threshold"), ("value", "value"))),
    "Softplus": ("softplus", (("beta", "beta"),)),
}


@_describes(*_PLAIN)
def _plain_activation(m: Any, _: Ints | None) -> Activation:
    return Activation(name=_PLAIN[torch_class(m)])


@_describes(*_SET)
def _set_activation(m: Any, _: Ints | None) -> Activation:
    name, settings = _SET[torch_class(m)]
    return Activation(name=name, settings=tuple((key, float(getattr(m, attribute))) for key, attribute in settings))


@_describes("ReLU6", "Hardtanh")
def _clip(m: Any, _: Ints | None) -> Activation:
    return clip(float(m.min_val), float(m.max_val))


@_describes("GELU")
def _gelu(m: Any, _: Ints | None) -> Activation:
    return Activation(name="gelu", settings=(("approximate", m.approximate == "tanh"),))


@_describes("PReLU")
def _prelu(m: Any, _: Ints | None) -> Activation:
    return Activation(name="prelu", settings=(("slopes", int(m.num_parameters)),))


@_describes("Softmax", "Softmax2d", "LogSoftmax")
def _softmax(m: Any, _: Ints | None) -> Activation:
    return Activation(name="log_softmax" if torch_class(m) == "LogSoftmax" else "softmax")


_FOREIGN = frozenset({("torchvision", "StochasticDepth"), ("timm", "DropPath"), ("torchvision", "FrozenBatchNorm2d")})


def is_foreign(module: torch.nn.Module) -> bool:
    """Whether it is a class of torchvision or timm that stands for a layer of its own."""
    return (type(module).__module__.split(".")[0], type(module).__name__) in _FOREIGN


def _foreign(module: Any) -> Facts | None:
    if not is_foreign(module):
        return None
    if type(module).__name__ == "StochasticDepth":
        return Dropout(kind="path", rate=float(module.p))
    if type(module).__name__ == "DropPath":
        return Dropout(kind="path", rate=float(module.drop_prob or 0.0))
    scale, centre, size = presence(module.weight, 1.0), presence(module.bias, 0.0), int(module.weight.numel())
    return Norm(kind="batch", epsilon=float(module.eps), scale=scale, centre=centre, normalised=size, statistics=True)
