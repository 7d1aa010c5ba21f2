"""Modules that are held at several places of a network, and modules whose forward is the user's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import translator
from translator.verdict import Effect, Verdict

pytestmark = pytest.mark.model


class Encoder(nn.Module):
    """A position encoding as CoaT's: a depthwise convolution beside its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x)) + x


class Block(nn.Module):
    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.conv = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(self.encoder(x)))


class Several(nn.Module):
    """One encoder in each of two blocks and, before or behind them, in the network itself."""

    def __init__(self, *, first: bool, own_calls: int) -> None:
        super().__init__()
        encoder = Encoder(4)
        if first:
            self.encoder = encoder
        self.blocks = nn.ModuleList([Block(encoder, 4), Block(encoder, 4)])
        if not first:
            self.encoder = encoder
        self.own_calls = own_calls

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
            for _ in range(self.own_calls):
                x = self.encoder(x) * 2
        return x


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("own_calls", [0, 1, 2])
def test_a_module_held_at_several_places_is_one_layer(first: bool, own_calls: int) -> None:
    module = Several(first=first, own_calls=own_calls)
    done = translator.convert(module, torch.randn(2, 4, 7, 5))
    assert done.report.verdict is Verdict.EXPLAINED
    classes = [type(layer).__name__ for layer in done.model.layers]
    assert classes.count("DepthwiseConv2D") == classes.count("BatchNormalization") == 1
    assert done.report.balance.torch_total == sum(p.numel() for p in module.parameters())


def test_a_block_held_at_two_places_is_the_same_block() -> None:
    block = Block(Encoder(4), 4)
    done = translator.convert(nn.ModuleDict({"a": block, "b": nn.Sequential(block, nn.ReLU(), block)})["b"], example())
    assert done.report.verdict is Verdict.EXPLAINED
    outer = nn.Sequential(nn.Sequential(block, nn.ReLU()), nn.Sequential(nn.Identity(), block))
    done = translator.convert(outer, example())
    assert done.report.verdict is Verdict.EXPLAINED
    assert [type(layer).__name__ for layer in done.model.layers].count("Conv2D") == 1


class SamePool(nn.MaxPool2d):
    """As timm's MaxPool2dSame: the padding that its settings don't have is made in its forward."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), self.kernel_size, self.stride)


class SameAverage(nn.AvgPool2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), self.kernel_size, self.stride)


@pytest.mark.parametrize("pool", [SamePool, SameAverage])
def test_a_pooling_with_a_forward_of_its_own_is_not_judged_by_settings_it_does_not_use(
    pool: Callable[[int, int], nn.Module],
) -> None:
    done = translator.convert(nn.Sequential(nn.Conv2d(4, 4, 1), pool(3, 2)), example())
    assert done.report.verdict is Verdict.EQUAL


def example() -> Tensor:
    return torch.randn(2, 4, 8, 8)


class Turned(nn.Module):
    """One norm, called on a tensor and on its transpose, or on tensors of different ranks."""

    def __init__(self, norm: nn.Module, *, ranks: bool) -> None:
        super().__init__()
        self.norm, self.patches, self.ranks = norm, nn.Conv2d(3, 8, 2, 2), ranks

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2)
        y = self.norm(x.transpose(1, 2)).transpose(1, 2)
        if self.ranks:
            return y + self.norm(x.transpose(1, 2).unflatten(1, (2, 4))).flatten(1, 2).transpose(1, 2)
        return y + self.norm(x).transpose(1, 2)


@pytest.mark.parametrize(
    ("norm", "ranks"), [(nn.LayerNorm, False), (nn.LayerNorm, True), (nn.RMSNorm, False), (nn.BatchNorm1d, False)]
)
def test_a_norm_that_is_called_on_a_transpose_is_one_layer(norm: Callable[[int], nn.Module], ranks: bool) -> None:
    done = translator.convert(Turned(norm(8), ranks=ranks), torch.randn(2, 3, 4, 8))
    assert done.report.verdict in (Verdict.EQUAL, Verdict.EXPLAINED)
    names = [type(layer).__name__ for layer in done.model.layers]
    assert sum("Normalization" in name for name in names) == 1


class Mixer(nn.Module):
    """A mixer that norms twice with one LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 16, 8, 8), nn.LayerNorm(16)
        self.tokens, self.channels = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.tokens(self.norm(x).transpose(1, 2)).transpose(1, 2)
        return (x + self.channels(self.norm(x))).mean(1)


def test_a_norm_called_at_two_places_of_a_mixer_is_one_layer() -> None:
    done = translator.convert(Mixer(), torch.randn(2, 3, 32, 32))
    assert done.report.verdict is Verdict.EQUAL


class Squeezing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(6, 1), nn.Flatten(0))
        self.outer = nn.Linear(6, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.outer(x).squeeze(), self.inner(x)


def test_a_batch_of_one_that_is_squeezed_away_is_named() -> None:
    done = translator.convert(Squeezing(), torch.randn(2, 6))
    assert done.report.verdict is Verdict.EXPLAINED
    (difference,) = done.report.differences
    assert (difference.kind, difference.layers, difference.effect) == ("squeezed-batch", ("(model)",), Effect.NOTHING)


class TwoCalls(nn.Module):
    """One module on two inputs, whose ranks may differ."""

    def __init__(self, shared: nn.Module) -> None:
        super().__init__()
        self.shared = shared

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        results = self.shared(a), self.shared(b)
        return tuple(r[0] if isinstance(r, tuple) else r for r in results)


@pytest.mark.parametrize(
    ("shared", "first", "second"),
    [
        (nn.BatchNorm1d(4), (2, 4), (2, 4, 5)),
        (nn.BatchNorm1d(4, affine=False), (2, 4, 5), (2, 4)),
        (nn.BatchNorm1d(1), (2, 1, 1), (2, 1)),
        (nn.GroupNorm(2, 4), (2, 4, 5), (2, 4, 5, 6)),
        (nn.GroupNorm(2, 4), (2, 4, 3, 3, 3), (2, 4)),
        (nn.LayerNorm((5, 4)), (2, 3, 5, 4), (2, 5, 4)),
        (nn.LSTM(3, 4, batch_first=True), (7, 3), (2, 7, 3)),
        (nn.GRU(3, 4, bidirectional=True), (7, 3), (7, 2, 3)),
        (nn.PReLU(4), (2, 4), (2, 4, 5, 6)),
        (nn.Conv2d(3, 4, 3), (3, 7, 6), (2, 3, 7, 6)),
    ],
    ids=str,
)
def test_a_module_called_on_inputs_of_two_ranks_is_one_layer(
    shared: nn.Module, first: tuple[int, ...], second: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    for buffer in shared.buffers():
        buffer.data = torch.rand_like(buffer) + 0.5 if buffer.is_floating_point() else buffer
    done = translator.convert(TwoCalls(shared).eval(), (torch.randn(first), torch.randn(second)))
    assert done.report.verdict in (Verdict.EQUAL, Verdict.EXPLAINED)
    assert done.report.balance.unexplained == 0
    weighing = [layer for layer in done.model.layers if layer.weights]
    assert len(weighing) == 1


class Unbatched(nn.Module):
    """Attention and a stack of recurrent layers on one example without a batch."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=batch_first)
        self.lstm = nn.LSTM(6, 4, num_layers=2, bidirectional=True, batch_first=batch_first)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        y, shares = self.attention(x, x, x, attn_mask=mask)
        z, (h, c) = self.lstm(x + y)
        return z, shares, h, c


@pytest.mark.parametrize("batch_first", [True, False])
def test_one_example_without_a_batch(batch_first: bool) -> None:
    torch.manual_seed(0)
    done = translator.convert(Unbatched(batch_first=batch_first).eval(), (torch.randn(5, 6), torch.randn(5, 5)))
    assert done.report.verdict in (Verdict.EQUAL, Verdict.EXPLAINED)
    assert done.report.balance.unexplained == 0
