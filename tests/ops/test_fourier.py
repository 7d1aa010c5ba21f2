"""Fourier transforms: of real and complex numbers, there and back, over one axis and several, and of frames."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fft, nn

from tests.ops.proving import Case, applied, assert_proven, case

pytestmark = pytest.mark.op

TOKENS, IMAGE = (2, 7, 6), (2, 3, 7, 8)


class GlobalFilter(nn.Module):
    """A GFNet's filter: a product with complex parameters between a transform and its inverse."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(3, 7, 5, 2))

    def forward(self, x: Tensor) -> Tensor:
        spectrum = fft.rfft2(x, norm="ortho") * torch.view_as_complex(self.weight)
        return fft.irfft2(spectrum, s=x.shape[-2:], norm="ortho")


class FourierUnit(nn.Module):
    """A convolution of the spectrum (fast Fourier convolutions, LaMa)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.view_as_real(fft.rfftn(x, dim=(-2, -1))).permute(0, 1, 4, 2, 3)
        y = self.conv(spectrum.flatten(1, 2)).relu().unflatten(1, (3, 2)).permute(0, 1, 3, 4, 2)
        return fft.irfftn(torch.complex(y[..., 0], y[..., 1]), s=x.shape[-2:], dim=(-2, -1))


class Spectrogram(nn.Module):
    """The logarithm of the power of overlapping frames."""

    def __init__(self, length: int, **settings: bool) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(length))
        self.settings = settings

    def forward(self, x: Tensor) -> Tensor:
        frames = torch.stft(x, 16, 8, len(self.window), self.window, return_complex=True, **self.settings)
        return (frames.abs() ** 2 + 1e-6).log()


CASES: tuple[Case, ...] = (
    applied(
        "frames by a window",
        lambda x: torch.stft(x, 16, 8, window=torch.hann_window(16), return_complex=True).abs(),
        (2, 64),
    ),
    applied("a window up to both ends", lambda x: x * torch.hann_window(16, periodic=False), (2, 16)),
    applied(
        "hamming", lambda x: x * torch.hamming_window(16) + torch.hamming_window(16, periodic=True, alpha=0.5), (2, 16)
    ),
    applied("blackman", lambda x: x * torch.blackman_window(16), (2, 16)),
    applied("bartlett", lambda x: x * torch.bartlett_window(16) + torch.bartlett_window(1), (2, 16)),
    applied("fft", lambda x: fft.fft(x).abs(), TOKENS),
    applied("fft over the tokens", lambda x: torch.view_as_real(fft.fft(x, dim=1)), TOKENS),
    applied("fft over both, as FNet", lambda x: fft.fft(fft.fft(x, dim=-1), dim=-2).real, TOKENS),
    applied(
        "rfft, shortened and lengthened",
        lambda x: fft.rfft(x, 5).abs() + fft.rfft(x, 4, dim=1).abs()[:, :1, :3],
        TOKENS,
    ),
    applied("ifft", lambda x: torch.view_as_real(fft.ifft(torch.complex(x, x + 1), dim=1)), TOKENS),
    applied("irfft of an odd length", lambda x: fft.irfft(torch.complex(x, x - 1), n=9), TOKENS),
    applied("irfft of fewer numbers", lambda x: fft.irfft(torch.complex(x, x - 1), n=4), TOKENS),
    applied("there and back", lambda x: fft.ifft2(fft.fftshift(fft.fft2(x), dim=(-2, -1))).real, TOKENS),
    applied(
        "einsum of complex numbers", lambda x: torch.einsum("bti,bsi->bts", fft.rfft(x), fft.rfft(x + 1)).abs(), TOKENS
    ),
    case("GFNet's filter", GlobalFilter, IMAGE),
    case("Fourier unit", FourierUnit, IMAGE),
    case("spectrogram", lambda: Spectrogram(16), (2, 80)),
    case("spectrogram of a short window", lambda: Spectrogram(10, center=False), (2, 80)),
    case("spectrogram of both sides", lambda: Spectrogram(16, onesided=False), (2, 80)),
)


@pytest.mark.parametrize("one", CASES, ids=lambda c: c.name)
def test_fourier_transforms_are_proven(one: Case) -> None:
    assert_proven(CASES, one)
