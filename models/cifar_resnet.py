"""The CIFAR-10 residual network in PyTorch: three stages of two-convolution blocks, for any block counts.

`resnet()` is the network with block counts [2, 2, 2]: 195,738 parameters. The others are the CIFAR family, where the
depth is 6n + 2 for n blocks in each stage. The shortcut of a block that changes shape is a 3x3 convolution.
"""

from collections.abc import Sequence

import torch
from torch import nn


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution, padding 1, without bias."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)


class ResidualBlock(nn.Module):
    """conv BN ReLU conv BN, plus the identity or its downsampling, ReLU. (N, C, H, W) → (N, C', H/stride, W/stride)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, downsample: nn.Module | None = None):
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual = x
        out = self.conv1(x)
        out = self.bn1(out)
        out = self.relu(out)
        out = self.conv2(out)
        out = self.bn2(out)
        if self.downsample is not None:
            residual = self.downsample(x)
        out += residual
        out = self.relu(out)
        return out


class ResNet(nn.Module):
    """(N, 3, 32, 32) images → (N, num_classes) logits."""

    def __init__(self, block: type[ResidualBlock], layers: Sequence[int], num_classes: int = 10):
        super().__init__()
        self.in_channels = 16
        self.conv = conv3x3(3, 16)
        self.bn = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = self._make_layer(block, 16, layers[0])
        self.layer2 = self._make_layer(block, 32, layers[1], stride=2)
        self.layer3 = self._make_layer(block, 64, layers[2], stride=2)
        self.avg_pool = nn.AvgPool2d(8)
        self.fc = nn.Linear(64, num_classes)

    def _make_layer(self, block: type[ResidualBlock], out_channels: int, blocks: int, stride: int = 1) -> nn.Sequential:
        downsample = None
        if stride != 1 or self.in_channels != out_channels:
            downsample = nn.Sequential(
                conv3x3(self.in_channels, out_channels, stride),
                nn.BatchNorm2d(out_channels),
            )
        layers = [block(self.in_channels, out_channels, stride, downsample)]
        self.in_channels = out_channels
        layers += [block(out_channels, out_channels) for _ in range(1, blocks)]
        return nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv(x)
        out = self.bn(out)
        out = self.relu(out)
        out = self.layer1(out)
        out = self.layer2(out)
        out = self.layer3(out)
        out = self.avg_pool(out)
        out = out.view(out.size(0), -1)
        out = self.fc(out)
        return out


def resnet(blocks: str | Sequence[int] = (2, 2, 2), num_classes: int = 10) -> ResNet:
    """The network with these block counts: `(3, 3, 3)` or the text "3,3,3"."""
    return ResNet(ResidualBlock, block_counts(blocks), num_classes)


def block_counts(blocks: str | Sequence[int]) -> tuple[int, int, int]:
    """Three positive block counts, from numbers or from text such as "3,3,3". Raises ValueError."""
    try:
        counts = tuple(int(count) for count in (blocks.split(",") if isinstance(blocks, str) else blocks))
    except (TypeError, ValueError):
        counts = ()
    if len(counts) != 3 or min(counts) < 1:
        raise ValueError(f"blocks: want three positive block counts such as 2,2,2, got {blocks!r}")
    return counts[0], counts[1], counts[2]


def resnet_of_depth(depth: int, num_classes: int = 10) -> ResNet:
    """The CIFAR ResNet of that depth, 6n + 2. Raises ValueError for another number."""
    n, rest = divmod(depth - 2, 6)
    if rest or n < 1:
        raise ValueError(f"depth: want 6n + 2 (8, 14, 20 …), got {depth}")
    return resnet((n, n, n), num_classes)


def resnet20(num_classes: int = 10) -> ResNet:
    """ResNet-20 of the CIFAR family, blocks [3, 3, 3]."""
    return resnet_of_depth(20, num_classes)


def resnet32(num_classes: int = 10) -> ResNet:
    """ResNet-32 of the CIFAR family, blocks [5, 5, 5]."""
    return resnet_of_depth(32, num_classes)


def resnet44(num_classes: int = 10) -> ResNet:
    """ResNet-44 of the CIFAR family, blocks [7, 7, 7]."""
    return resnet_of_depth(44, num_classes)


def resnet56(num_classes: int = 10) -> ResNet:
    """ResNet-56 of the CIFAR family, blocks [9, 9, 9]."""
    return resnet_of_depth(56, num_classes)


def resnet110(num_classes: int = 10) -> ResNet:
    """ResNet-110 of the CIFAR family, blocks [18, 18, 18]."""
    return resnet_of_depth(110, num_classes)


def resnet1202(num_classes: int = 10) -> ResNet:
    """ResNet-1202 of the CIFAR family, blocks [200, 200, 200]."""
    return resnet_of_depth(1202, num_classes)


def example_inputs() -> tuple[torch.Tensor]:
    """Two images of noise, (2, 3, 32, 32): what the translator traces with when it is told nothing else."""
    return (torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)),)
