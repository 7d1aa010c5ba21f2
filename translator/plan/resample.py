"""Where the places of a resized axis lie on the original, and which weights they give it, as exact fractions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

HALF = Fraction(1, 2)


def coordinate(place: int, scale: Fraction, size: int, out: int, mode: str) -> Fraction:
    """Where output place `place` lies on the input axis. mode: ONNX' coordinate_transformation_mode."""
    match mode:
        case "asymmetric":
            return Fraction(place) / scale
        case "align_corners":
            return Fraction(place * (size - 1), out - 1) if out > 1 else Fraction(0)
        case "onnx_align_corners":
            return Fraction(place) * (size - 1) / (scale * size - 1) if out > 1 else Fraction(0)
        case "pytorch_half_pixel" | "onnx_pytorch_half_pixel" if out == 1:
            return Fraction(0)
        case "half_pixel_symmetric":
            adjusted = Fraction(out) / (scale * size)
            offset = Fraction(size, 2) * (1 - adjusted)
            return offset + (place + HALF) / scale - HALF
        case _:
            return (place + HALF) / scale - HALF


def nearest(centres: Sequence[Fraction], size: int, out: int, rounding: str) -> list[int]:
    """The input place for each output place. Floors are taken as PyTorch takes them, in float32."""
    ratio = np.float32(size) / np.float32(out)
    places = []
    for i, centre in enumerate(centres):
        match rounding:
            case "floor":
                exact = centre == Fraction(i * size, out)
                place = int(np.floor(np.float32(i) * ratio)) if exact else math.floor(centre)
            case "ceil":
                place = math.ceil(centre)
            case "round_prefer_ceil":
                place = math.floor(centre + HALF)
            case _:
                place = math.ceil(centre - HALF)
        places.append(min(max(place, 0), size - 1))
    return places


def weights(
    centres: Sequence[Fraction],
    size: int,
    scale: Fraction,
    *,
    cubic: bool,
    a: Fraction,
    antialias: bool,
    exclude_outside: bool,
) -> list[list[Fraction]]:
    """One row of `size` weights for each output place; the border is repeated unless `exclude_outside`."""
    wide = min(scale, Fraction(1)) if antialias else Fraction(1)
    reach = (2 if cubic else 1) / wide
    rows = []
    for centre in centres:
        row = [Fraction(0)] * size
        for place in range(math.floor(centre - reach) + 1, math.ceil(centre + reach)):
            distance = abs(centre - place) * wide
            weight = _cubic(distance, a) if cubic else max(1 - distance, Fraction(0))
            inside = 0 <= place < size
            if inside or not exclude_outside:
                row[min(max(place, 0), size - 1)] += weight
        total = sum(row)
        rows.append([w / total for w in row] if total not in (0, 1) else row)
    return rows


def _cubic(distance: Fraction, a: Fraction) -> Fraction:
    """The cubic convolution kernel with its coefficient a."""
    if distance <= 1:
        return (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    if distance < 2:
        return a * distance**3 - 5 * a * distance**2 + 8 * a * distance - 4 * a
    return Fraction(0)
