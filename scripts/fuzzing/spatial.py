"""Layers over (N, C, *S): convolutions, poolings, normalisations by channel, resizes."""

from __future__ import annotations

from random import Random

from torch import nn

from scripts.fuzzing.layers import Piece, Shape, built, maker, written


def spatial_rank(shape: Shape) -> int:
    """How many spatial axes; 0 where there are none, or too many."""
    return len(shape) - 2 if len(shape) in (3, 4, 5) else 0


def setting(rng: Random, rank: int, choices: list[int]) -> int | tuple[int, ...]:
    """One number for all axes, or one for each."""
    return rng.choice(choices) if rng.random() < 0.6 else tuple(rng.choice(choices) for _ in range(rank))


def groups_of(rng: Random, channels: int, out: int) -> int:
    """A number of groups that divides both."""
    return rng.choice([g for g in range(1, channels + 1) if channels % g == 0 and out % g == 0])


@maker(10)
def convolution(rng: Random, shape: Shape) -> Piece | None:
    rank = spatial_rank(shape)
    if not rank:
        return None
    channels = shape[1]
    out = rng.choice([1, 2, 3, 4, channels, channels * 2])
    cls = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    padding: object = setting(rng, rank, [0, 1, 2])
    stride = setting(rng, rank, [1, 1, 2, 3])
    if rng.random() < 0.15:
        padding, stride = "same", 1
    return built(
        cls, channels, out, setting(rng, rank, [1, 2, 3, 5]), stride=stride, padding=padding,
        dilation=setting(rng, rank, [1, 1, 1, 2]), groups=groups_of(rng, channels, out), bias=rng.random() < 0.6,
        padding_mode=rng.choice(["zeros", "zeros", "zeros", "reflect", "replicate", "circular"]),
    )  # fmt: skip


@maker(5)
def transposed(rng: Random, shape: Shape) -> Piece | None:
    rank = spatial_rank(shape)
    if not rank:
        return None
    channels = shape[1]
    out = rng.choice([1, 2, 4, channels])
    cls = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[rank - 1]
    return built(
        cls, channels, out, setting(rng, rank, [1, 2, 3, 4]), stride=setting(rng, rank, [1, 2, 3]),
        padding=setting(rng, rank, [0, 1]), output_padding=rng.choice([0, 0, 1]), groups=groups_of(rng, channels, out),
        bias=rng.random() < 0.6, dilation=setting(rng, rank, [1, 1, 2]),
    )  # fmt: skip


@maker(7)
def pooling(rng: Random, shape: Shape) -> Piece | None:
    rank = spatial_rank(shape)
    if not rank:
        return None
    kernel, ceil = setting(rng, rank, [2, 3, 3]), rng.random() < 0.4
    stride, pad = setting(rng, rank, [1, 2, 3]), rng.choice([0, 0, 1])
    sizes = setting(rng, rank, [1, 2, 3, 5])
    average = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[rank - 1]
    maximum = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[rank - 1]
    return rng.choice([
        lambda: built(maximum, kernel, stride=stride, padding=pad, ceil_mode=ceil, dilation=rng.choice([1, 1, 2])),
        lambda: built(average, kernel, stride=stride, padding=pad, ceil_mode=ceil,
                      count_include_pad=rng.random() < 0.5),
        lambda: built((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[rank - 1], sizes),
        lambda: built((nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)[rank - 1], sizes),
        lambda: built((nn.LPPool1d, nn.LPPool2d, nn.LPPool3d)[rank - 1], 2, 2, ceil_mode=False),
    ])()  # fmt: skip


@maker(6)
def channel_norm(rng: Random, shape: Shape) -> Piece | None:
    rank = spatial_rank(shape)
    channels = shape[1] if len(shape) > 1 else 0
    if not channels:
        return None
    eps, affine = rng.choice([1e-5, 1e-3, 0.1]), rng.random() < 0.8
    if not rank:
        return built(nn.BatchNorm1d, channels, eps=eps, affine=affine) if len(shape) == 2 else None
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[rank - 1]
    instance = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)[rank - 1]
    return rng.choice([
        lambda: built(norms, channels, eps=eps, momentum=rng.choice([0.1, 0.3]), affine=affine),
        lambda: built(norms, channels, eps=eps, affine=affine),
        lambda: built(nn.GroupNorm, groups_of(rng, channels, channels), channels, eps=eps, affine=affine),
        lambda: built(instance, channels, eps=eps, affine=affine),
        lambda: built(nn.LocalResponseNorm, rng.choice([2, 3]), k=1.5),
    ])()  # fmt: skip


@maker(4)
def resizing(rng: Random, shape: Shape) -> Piece | None:
    rank = spatial_rank(shape)
    if not rank:
        return None
    linear = ("linear", "bilinear", "trilinear")[rank - 1]
    mode = rng.choice(["nearest", "nearest-exact", linear, linear, *(["bicubic", "area"] if rank == 2 else [])])
    target = f"scale_factor={rng.choice([2, 3, 1.5])}"
    if rng.random() < 0.5:
        target = f"size={tuple(rng.choice([1, 3, 4, 7]) for _ in range(rank))}"
    corners = rng.random() < 0.4 if mode in (linear, "bicubic") else None
    return written(f"F.interpolate(x, {target}, mode={mode!r}, align_corners={corners})")


@maker(2)
def shuffles(rng: Random, shape: Shape) -> Piece | None:
    rank = spatial_rank(shape)
    if not rank:
        return None
    groups = groups_of(rng, shape[1], shape[1])
    options = [lambda: built(nn.ChannelShuffle, groups)]
    if rank == 2:
        options += [lambda: built(nn.Dropout2d, 0.2), lambda: written("F.unfold(x, 2)")]
        if shape[1] % 4 == 0:
            options.append(lambda: built(nn.PixelShuffle, 2))
        if shape[2] % 2 == 0 and shape[3] % 2 == 0:
            options.append(lambda: built(nn.PixelUnshuffle, 2))
    return rng.choice(options)()
