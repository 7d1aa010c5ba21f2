"""Networks that random drawing found, made small: each was wrong, or refused, once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import translator
from translator.errors import UnsupportedError
from translator.verdict import Verdict


class PaddedBesideLinear(nn.Module):
    """The padding runs channels first, for the Linear's sake, and the convolution behind it channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(30, 6)
        self.linear = nn.Linear(6, 7, bias=False)
        self.conv = nn.Conv1d(1, 2, 5, padding=2, bias=False, padding_mode="reflect")

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.table(tokens)
        return self.linear(x), self.conv(x)


def test_a_padding_in_another_layout_than_its_convolution_is_no_difference() -> None:
    done = translator.convert(PaddedBesideLinear().eval(), torch.randint(0, 30, (2, 1)))
    assert done.report.verdict is Verdict.EQUAL


class TiedBehindFlatten(nn.Module):
    """Two Linears with one weight can't have the rows of one kernel in the order of a flattened image."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(108, 108, bias=False)
        self.second = nn.Linear(108, 108, bias=False)
        self.second.weight = self.first.weight
        self.head = nn.Linear(108, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x.flatten(1))))))


def test_a_tied_linear_behind_a_flattened_image_reads_it_in_order() -> None:
    done = translator.convert(TiedBehindFlatten().eval(), torch.randn(2, 3, 6, 6))
    assert done.report.verdict is Verdict.EQUAL


class Clamped(nn.Module):
    """Bounds that are a whole number and a float, as people write them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.clamp(-1, 0.5) + torch.clip(x, min=0, max=1.5) + nn.functional.hardtanh(x, 0, 0.7)


def test_a_clamp_between_a_whole_number_and_a_float() -> None:
    assert translator.convert(Clamped(), torch.randn(3, 5)).report.verdict is Verdict.EQUAL


def test_one_slope_for_a_batch_of_numbers() -> None:
    class Numbers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.prelu = nn.PReLU(init=0.3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.prelu(self.prelu(x) - 1)

    assert translator.convert(Numbers(), torch.randn(7)).report.verdict in (Verdict.EQUAL, Verdict.EXPLAINED)


def test_a_padding_that_crops_on_one_side_and_pads_on_the_other() -> None:
    module = nn.Sequential(nn.ZeroPad2d((-1, 1, -1, 2)), nn.Conv2d(3, 4, 1), nn.ZeroPad2d((2, -1, 0, -1)))
    assert translator.convert(module, torch.randn(2, 3, 6, 5)).report.verdict is Verdict.EQUAL


def test_a_transposed_convolution_with_groups_over_three_axes() -> None:
    module = nn.Sequential(nn.ConvTranspose3d(4, 6, (1, 2, 3), stride=(3, 1, 2), output_padding=(1, 0, 1), groups=2))
    assert translator.convert(module, torch.randn(2, 4, 2, 3, 1)).report.verdict is Verdict.EXPLAINED


class PaddedBeforeItIsTurned(nn.Module):
    """A "same" of one number at one end: the padding runs channels first, the convolution behind it channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, (2, 1), padding="same")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x.reshape(x.shape[0], 2, 7, 1))


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
def test_a_padding_before_a_transpose_is_judged_by_the_numbers() -> None:
    done = translator.convert(PaddedBeforeItIsTurned().eval(), torch.randn(2, 1, 7, 2))
    assert done.report.verdict is Verdict.EQUAL


class ViewBehindAttention(nn.Module):
    """`view` needs what PyTorch's fast attention gives in order in memory; in float64 it takes another way."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x)[0].view(x.size(0), -1)


def test_a_view_behind_pytorchs_fast_attention() -> None:
    done = translator.convert(ViewBehindAttention().eval(), torch.randn(2, 4, 6))
    assert done.report.verdict is Verdict.EQUAL


@pytest.mark.parametrize("shape", [(7, 1), (7, 5)])
def test_an_einsum_broadcasts_an_axis_of_size_one(shape: tuple[int, int]) -> None:
    """PyTorch sums over `i` though one operand has one number along it; numpy's einsum, and Keras', refuse."""
    module = ByMatrix(shape).eval()
    done = translator.convert(module, torch.randn(2, 3, 5))
    assert done.report.verdict is Verdict.EQUAL


class ByMatrix(nn.Module):
    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.randn(shape))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.einsum("...i,ji->...j", x, self.p)
        return y, torch.einsum("bti,bsi->bts", x, x.mean(2, keepdim=True))


class BehindDropout(nn.Module):
    """In evaluation a dropout gives its input itself, so what is written to one is written to the other."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.linear, self.dropout, self.how = nn.Linear(6, 6), nn.Dropout(0.3), how

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.linear(x)
        y = self.dropout(x)
        z = self.dropout(y if self.how == "to the result of its result" else x)
        if self.how == "to the input":
            x += 1
        elif self.how == "to the result":
            nn.functional.relu(y, inplace=True)
        elif self.how == "to a part of the result":
            y[:, 1:].mul_(3)
        else:
            z.add_(1)
            y.mul_(2)
        return x, y, z


@pytest.mark.parametrize(
    "how",
    ["to the input", "to the result", "to a part of the result", "to the result of its result", "to another result"],
)
def test_what_is_written_through_a_dropout_is_written_to_its_input(how: str) -> None:
    done = translator.convert(BehindDropout(how).eval(), torch.randn(2, 6))
    assert done.report.verdict in (Verdict.EQUAL, Verdict.EXPLAINED)


class AcrossTheBatch(nn.Module):
    """A reduction keeps no axis, so that batches meet axes of size 1 on both sides."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.amax(1) + x


@pytest.mark.parametrize("shape", [(2, 1, 4), (2, 1, 1, 4), (2, 1, 1, 1, 4)])
def test_a_sum_across_the_batch_keeps_its_axes_at_batch_1(shape: tuple[int, ...]) -> None:
    """TensorFlow takes what is (1, 1, 4) at batch 1 for a bias (seed 83059)."""
    assert translator.convert(AcrossTheBatch(), torch.randn(shape)).report.verdict is Verdict.EQUAL


class AsManyChannels(nn.Module):
    """A layer with as many channels as the batch has rows: it runs on two by chance (seed 83934)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.linear, self.layer = nn.Linear(3, 6), layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.linear(x.amax(2) * x.sigmoid()))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(2, 4, 1, padding=1, groups=2, padding_mode="reflect"), nn.ConvTranspose1d(2, 4, 2, stride=2),
        nn.BatchNorm1d(2), nn.InstanceNorm1d(2, affine=True), nn.GroupNorm(1, 2), nn.PReLU(2),
    ],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_a_number_of_channels_that_changes_is_refused_by_name(layer: nn.Module) -> None:
    with pytest.raises(UnsupportedError, match="a number of channels that changes") as caught:
        translator.convert(AsManyChannels(layer), torch.randn(2, 1, 3))
    assert caught.value.where.module == "layer"


class PaddedBeforeAReshape(nn.Module):
    """The padding runs channels first, and only an axis of size 1 changes places before the convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 3, (1, 1, 2), padding="same", dilation=(2, 1, 1), groups=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat((x, x), 1).reshape(x.shape[0], 3, 2, 2, 6)
        return self.conv(x.sum(2, keepdim=True))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_a_padding_that_runs_before_a_reshape_is_judged_by_the_numbers() -> None:
    """It was called different, though right (seed 111952)."""
    assert translator.convert(PaddedBeforeAReshape(), torch.randn(2, 3, 2, 2, 3)).report.verdict is Verdict.EQUAL


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_layer_without_units_is_refused_by_name() -> None:
    """An adaptive softmax of little width makes some."""
    with pytest.raises(UnsupportedError, match="a weight without elements") as caught:
        translator.convert(nn.Sequential(nn.Linear(3, 0), nn.Linear(0, 2)), torch.randn(2, 4, 3))
    assert caught.value.where.module == "0"


class WrittenThroughAView(nn.Module):
    """A view is written in place, and the model reads both, not what the writer gives (130066)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.relu = nn.Linear(5, 4), nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.linear(x)
        view = x.squeeze(1)
        self.relu(view)
        return x.flatten(1), view


def test_a_module_that_writes_through_a_view_puts_out_one_tensor() -> None:
    assert translator.convert(WrittenThroughAView(), torch.randn(2, 1, 3, 5)).report.verdict is Verdict.EQUAL
