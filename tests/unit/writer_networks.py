"""PyTorch networks to write as Keras source, each for something that is hard to write."""

from __future__ import annotations

import itertools

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn = nn.BatchNorm2d(outside)
        self.down = nn.Conv2d(inside, outside, 1, stride) if stride > 1 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn(self.conv(x)))
        return y + (x if self.down is None else self.down(x))


class Stages(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(Block(3, 3), Block(3, 3))
        self.stage2 = nn.Sequential(Block(3, 8, 2), Block(8, 8))
        self.stage3 = nn.Sequential(Block(8, 16, 2), Block(16, 16))
        self.fc = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.stage3(self.stage2(self.stage1(x))).mean((2, 3)))


class Functions(nn.Module):
    """No module inside."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(torch.nn.functional.linear(x, self.weight))
        return torch.cat([x, torch.tanh(x) * 2], dim=1)


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 4))
        self.head = nn.Linear(8, 2)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        left, right = self.encoder(a), self.encoder(b)
        return self.head(torch.cat([left, right], dim=1)), left


class Keywords(nn.Module):
    """Names that are builtins, Keras' own attributes, or the written file's; and some that will be made keywords."""

    NAMES = ("größe", "klass", "lampda", "input", "output", "name", "layers", "keras", "x", "dtype", "stack", "build")

    def __init__(self) -> None:
        super().__init__()
        for name in self.NAMES:
            self.add_module(name, nn.Linear(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for name in self.NAMES:
            x = torch.relu(self._modules[name](x))
        return x


class Gather(nn.Module):
    def __init__(self, inside: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(inside, 8), nn.Linear(8, 4)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        return self.second(torch.relu(self.first(torch.cat(features, 1))))


class Dense(nn.Module):
    """Each block reads all that came before it."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Gather(4 * k) for k in range(1, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = [x]
        for block in self.blocks:
            features.append(block(features))
        return torch.cat(features, 1)


def double(inside: int, outside: int) -> nn.Sequential:
    """Blocks of a function, not of a class."""
    layers = [nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(outside, outside, 3, padding=1), nn.ReLU())


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.bottom, self.decode = double(3, 4), double(4, 8), double(8, 4)
        self.up = nn.ConvTranspose2d(8, 4, 2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = self.down(x)
        x = self.bottom(nn.functional.max_pool2d(skip, 2))
        return self.decode(torch.cat([skip, self.up(x)], dim=1))


class Step(nn.Module):
    """Numbered parts: what is second in one call is third in another."""

    def __init__(self, inside: int, outside: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        sizes = (inside, *widths, outside)
        parts: list[nn.Module] = [Unit(a, b) for a, b in itertools.pairwise(sizes)]
        if len(widths) > 1:
            parts.insert(1, Gate(widths[0]))
        self.parts = nn.Sequential(*parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.parts(x)


class Unit(nn.Module):
    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(inside, outside), nn.LayerNorm(outside)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(self.linear(x)))


class Gate(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.gate = nn.Linear(size, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.gate(x))


class Steps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.Sequential(*(Step(4, 4, widths) for widths in ((5,), (6,), (7, 8), (8, 9), (9, 7))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.steps(x)


class Text(nn.Module):
    """A parameter of no layer, attention, recurrence, and a layer that is called again."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.randn(1, 6, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.recurrent = nn.LSTM(8, 4, bidirectional=True, batch_first=True)
        self.ops = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.ops(x + self.place)
        x, _ = self.attention(x, x, x, need_weights=False)
        x, _ = self.recurrent(self.ops(torch.relu(x)))
        return x


class Automatic(nn.Module):
    """Layers called as Keras calls operations."""

    def __init__(self) -> None:
        super().__init__()
        self.add, self.einsum_1 = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.einsum_1(self.add(x)) + torch.arange(4.0)
        return x @ x.mT


class Window(nn.Module):
    """A part of each size, and a bias that is looked up by a table of places."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.fc = nn.Linear(6, 6)
        self.bias = nn.Embedding(36, 6)
        self.register_buffer("places", torch.arange(36).flip(0).reshape(6, 6) % (size + 20))
        self.scale = nn.Parameter(torch.randn(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x * self.scale[:6])[:, : self.size] * self.bias(self.places).sum(0)[: self.size]


class Windows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = Window(5), Window(4), Window(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.third(self.second(self.first(x)))


class Turn(nn.Module):
    """Sizes and axes of its own."""

    def __init__(self, shape: tuple[int, int, int], axes: tuple[int, int, int], rate: float) -> None:
        super().__init__()
        self.shape, self.axes = shape, axes
        self.drop = nn.Dropout(rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second, third = (axis + 1 for axis in self.axes)
        x = self.drop(x).reshape(-1, *self.shape).permute(0, first, second, third)
        return torch.tanh(x.flatten(1))


class Turns(nn.Module):
    """A list of modules that is walked by hand."""

    def __init__(self) -> None:
        super().__init__()
        shapes = ((2, 3, 4), (3, 4, 2), (4, 2, 3), (2, 4, 3), (3, 2, 4))
        axes = ((1, 2, 0), (2, 0, 1), (1, 2, 0), (2, 1, 0), (0, 2, 1))
        rates = (0.1, 0.2, 0.3, 0.4, 0.5)
        self.turns = nn.ModuleList(Turn(*given) for given in zip(shapes, axes, rates, strict=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for turn in self.turns:
            x = turn(x)
        return x


class Mix(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.tokens, self.channels = nn.Linear(9, 9), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Mixer(nn.Module):
    """The first block reads its input in another layout than the others."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 2, 2)
        self.blocks = nn.Sequential(*(Mix() for _ in range(4)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.stem(x).flatten(2).transpose(1, 2)).mean(1)


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
        q, k, v = (y.unflatten(2, (2, 4)).transpose(1, 2) for y in self.qkv(x).chunk(3, 2))
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        return x + self.out(y.transpose(1, 2).flatten(2))


class Masked(nn.Module):
    """One mask for all blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Heads() for _ in range(3))

    def forward(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        allowed = (weight > 0)[:, None, None, :]
        for block in self.blocks:
            x = block(x, allowed)
        return x


NETWORKS = {
    "stages": (Stages, ((2, 3, 8, 8),)),
    "functions": (Functions, ((2, 4),)),
    "shared": (Shared, ((2, 4), (2, 4))),
    "keywords": (Keywords, ((2, 4),)),
    "dense": (Dense, ((2, 4),)),
    "unet": (UNet, ((2, 3, 8, 8),)),
    "steps": (Steps, ((2, 4),)),
    "automatic": (Automatic, ((2, 4, 4),)),
    "text": (Text, ((2, 6, 8),)),
    "windows": (Windows, ((2, 6, 6),)),
    "mixer": (Mixer, ((2, 3, 6, 6),)),
    "turns": (Turns, ((2, 24),)),
    "masked": (Masked, ((2, 6, 8), (2, 6))),
}
