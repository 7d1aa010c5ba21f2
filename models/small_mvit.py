"""torchvision's video transformers for 8 frames of 64x64: the same modules, fewer tokens.

torchvision's own builders fix 16 frames of 224x224. TensorFlow computes the grouped 3-D convolutions that shrink keys
and values by its slowest path on a CPU, and in float64, as a proof needs it, a second each even at this size.
"""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from torch import nn
from torchvision.models import video
from torchvision.models.video import mvit


def mvit_v1_b() -> nn.Module:
    """(N, 3, 8, 64, 64) → (N, 400)."""
    return _small(video.mvit_v1_b)


def mvit_v2_s() -> nn.Module:
    """(N, 3, 8, 64, 64) → (N, 400)."""
    return _small(video.mvit_v2_s)


def _small(build: Callable[[], nn.Module]) -> nn.Module:
    whole = mvit.MViT

    def small(**settings: Any) -> nn.Module:
        return whole(**{**settings, "spatial_size": (64, 64), "temporal_size": 8})

    with patch.object(mvit, "MViT", small):
        return build()
