"""What one layer computes, in words that belong to neither framework: the common ground on which two layers compare.

Spatial axes stand in order (H, W …), paddings as (before, after) per axis, momentum as the share of the OLD statistic
that is kept (Keras' sense; PyTorch's is one minus this), slopes and thresholds by the names PyTorch gives them.
Nothing here imports a framework.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

Ints = tuple[int, ...]
Pads = tuple[tuple[int, int], ...]


class Presence(StrEnum):
    """A bias, scale or centre: not there, there but without effect (zeros; ones for a scale), or there and in use."""

    NONE = "none"
    NEUTRAL = "neutral"
    IN_USE = "in use"


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """How a window slides over the spatial axes.

    padding: None where it is not known (a "same" without known sizes, a forward of the user's own). fill: the number
    that is padded with, or the mode ("reflect", "edge" …). same: the author wrote "same". sizes: of the input.
    ceil: a last window that hangs over the border counts (PyTorch's ceil_mode).
    """

    kernel: Ints
    stride: Ints
    dilation: Ints
    padding: Pads | None
    fill: float | str = 0.0
    same: bool = False
    sizes: Ints | None = None
    ceil: bool = False

    @property
    def extent(self) -> Ints:
        """The kernel with its holes."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def counts(self) -> Ints | None:
        """Number of windows per axis, None where padding or sizes are not known."""
        if self.padding is None or self.sizes is None or len(self.sizes) != len(self.kernel):
            return None
        rows = zip(self.sizes, self.extent, self.stride, self.padding, strict=True)
        return tuple(window_count(n, k, s, pads, ceil=self.ceil) for n, k, s, pads in rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conv:
    """A convolution, transposed or not; a depthwise one has groups equal to its channels."""

    transposed: bool
    channels: int
    filters: int
    windows: Windows
    groups: int
    bias: Presence
    output_padding: Ints | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """A matrix on the last axis."""

    channels: int
    units: int
    bias: Presence


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm:
    """A normalisation. kind: batch, layer, rms, group or instance. momentum: None without statistics, -1 cumulative.

    groups: of a group norm (instance: one per channel). normalised: number of elements of scale and centre.
    trains_as: the kind that it is in training, where that is another one.
    """

    kind: str
    epsilon: float
    scale: Presence
    centre: Presence
    normalised: int
    momentum: float | None = None
    statistics: bool = False
    groups: int = 0
    trains_as: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """An element-wise function or softmax by its name, with its settings in alphabetical order.

    function: of the user's own, where neither its name nor its numbers say which one it is.
    """

    name: str
    settings: tuple[tuple[str, float | int | bool | str], ...] = ()
    function: Callable[[Any], Any] | None = field(default=None, compare=False, repr=False)

    def text(self) -> str:
        """`leaky_relu(negative_slope=0.01)`; "none" for the identity."""
        inside = ", ".join(
            f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in self.settings
        )
        name = "none" if self.name == "linear" else self.name
        return f"{name}({inside})" if inside else name


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A pooling. kind: max, average or lp. windows: None where it is given by its output size alone.

    output: the output size (1, 1 for a global one), None where the windows decide.
    """

    kind: str
    windows: Windows | None = None
    output: tuple[int | None, ...] | None = None
    counts_padding: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropout:
    """kind: element, channel (whole maps), path (whole samples), alpha or gaussian. rate: the share that is dropped."""

    kind: str
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """A table looked up by index."""

    rows: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrent:
    """A recurrent layer. cell: lstm, gru or rnn. biases: vectors per cell, 0, 1 or 2. dropout: between or in cells.

    gate: the activation of the gates; "" for a cell without any.
    """

    cell: str
    units: int
    layers: int
    bidirectional: bool
    biases: int
    dropout: float = 0.0
    reset_after: bool | None = None
    activation: str = "tanh"
    gate: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Multi-head attention. packed: query, key and value projections in one matrix. dropout, packed: None where the
    way it is written does not say."""

    heads: int
    width: int
    bias: Presence
    dropout: float | None
    packed: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Padding:
    """A padding (or, with negative numbers, a cropping) of its own over the spatial axes."""

    pads: Pads
    fill: float | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """A resampling. factor or size, mode nearest/bilinear/bicubic…, corners: PyTorch's align_corners."""

    mode: str
    factor: tuple[float, ...] | None
    size: Ints | None
    corners: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaping:
    """An operation that only moves elements: flatten, reshape, permute, identity."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """A fixed affine map of the data in front of a network: Rescaling, Normalization."""

    name: str
    settings: str


Facts = (
    Conv
    | Dense
    | Norm
    | Activation
    | Pool
    | Dropout
    | Embedding
    | Recurrent
    | Attention
    | Padding
    | Resize
    | Shaping
    | Preprocessing
)


def window_count(n: int, extent: int, stride: int, pads: tuple[int, int], *, ceil: bool = False) -> int:
    """Number of windows on one axis; with `ceil`, PyTorch's rule: no window starts in the padding after the data."""
    room = n + sum(pads) - extent
    if not ceil:
        return room // stride + 1
    count = -(-room // stride) + 1
    return count - 1 if (count - 1) * stride >= n + pads[0] else count


def same_padding(n: int, extent: int, stride: int) -> tuple[int, int]:
    """What TensorFlow's "same" pads on one axis of size n: the odd one goes after."""
    total = max((-(-n // stride) - 1) * stride + extent - n, 0)
    return total // 2, total - total // 2


def clip(low: float, high: float) -> Activation:
    """`min(max(x, low), high)`: ReLU6, Hardtanh and clip are this one function."""
    return Activation(name="clip", settings=(("max", float(high)), ("min", float(low))))


def padded(facts: Conv | Pool, pads: Sequence[Padding], sizes: Ints | None) -> Conv | Pool:
    """The convolution or pooling together with the paddings in front of it. sizes: of what is padded."""
    windows = facts.windows
    if windows is None or windows.padding is None or any(len(p.pads) != len(windows.kernel) for p in pads):
        return facts
    padding, fill = windows.padding, windows.fill
    for extra in pads:
        padding = tuple((a + c, b + d) for (a, b), (c, d) in zip(padding, extra.pads, strict=True))
        fill = extra.fill if any(n for pair in extra.pads for n in pair) else fill
    joined = replace(windows, padding=padding, fill=fill, sizes=sizes)
    if isinstance(facts, Conv):
        return replace(facts, windows=joined)
    return replace(facts, windows=joined, counts_padding=facts.kind == "average" and fill == 0.0)
