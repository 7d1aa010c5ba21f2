"""What can be translated of torchvision's detectors, and its optical flow: everything but the selection of boxes.

How many boxes a detector keeps depends on the numbers in the image, so a whole one is refused. Its backbone and heads
are one module here: an image (N, 3, H, W) → what the heads say of every anchor, before boxes are selected.

    scripts/translate convert models/detection_parts.py:retinanet --input-shape 2,3,128,160
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import detection, optical_flow

_RANDOM: dict[str, Any] = {"weights": None, "weights_backbone": None}


class BackboneAndHead(nn.Module):
    """A detector's feature maps and what its head makes of them."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head

    def forward(self, image: Tensor) -> Any:
        """(N, 3, H, W) → by name (N, anchors, …)."""
        return self.head(list(self.backbone(image).values()))


class Flow(nn.Module):
    """RAFT with two updates instead of twelve: each is the same module again."""

    def __init__(self, raft: nn.Module) -> None:
        super().__init__()
        self.raft = raft

    def forward(self, pair: Tensor) -> Tensor:
        """Two frames (N, 3 + 3, H, W) → flow (N, 2, H, W)."""
        flows: list[Tensor] = self.raft(*torch.split(pair, 3, 1), num_flow_updates=2)
        return flows[-1]


def retinanet() -> nn.Module:
    """RetinaNet with ResNet-50, feature pyramid and both heads."""
    return BackboneAndHead(detection.retinanet_resnet50_fpn(**_RANDOM))


def fcos() -> nn.Module:
    """FCOS with ResNet-50, feature pyramid and both heads."""
    return BackboneAndHead(detection.fcos_resnet50_fpn(**_RANDOM))


def ssd300() -> nn.Module:
    """SSD with VGG16, for (N, 3, 300, 300)."""
    return BackboneAndHead(detection.ssd300_vgg16(**_RANDOM))


def ssdlite320() -> nn.Module:
    """SSDlite with MobileNetV3, for (N, 3, 320, 320)."""
    return BackboneAndHead(detection.ssdlite320_mobilenet_v3_large(**_RANDOM))


def fasterrcnn_backbone() -> nn.Module:
    """The feature pyramid of Faster R-CNN, Mask R-CNN and Keypoint R-CNN; their heads read boxes that were selected."""
    backbone: nn.Module = detection.fasterrcnn_resnet50_fpn(**_RANDOM).backbone
    return backbone


def raft_small() -> nn.Module:
    """The small RAFT, for (N, 6, H, W) from 128 pixels on."""
    return Flow(optical_flow.raft_small(weights=None))


def raft_large() -> nn.Module:
    """The large RAFT, for (N, 6, H, W) from 128 pixels on."""
    return Flow(optical_flow.raft_large(weights=None))
