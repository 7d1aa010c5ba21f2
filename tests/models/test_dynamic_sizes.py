"""Images of any height and width: translated so on request, and proven at another size than the example's."""

from __future__ import annotations

import keras
import pytest
import torch
from keras import layers
from torch import Tensor, nn
from torch.nn import functional as F

import translator
from translator.errors import InputError, UnsupportedError
from translator.verdict import Verdict

pytestmark = pytest.mark.model

IMAGE = torch.randn(2, 3, 24, 24)


class Resized(nn.Module):
    """A small segmentation network: its scores are brought back to the size of the image."""

    def __init__(self, **how: object) -> None:
        super().__init__()
        self.down, self.scores, self.how = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 5, 1), how

    def forward(self, x: Tensor) -> Tensor:
        y = F.max_pool2d(self.down(x).relu(), 3, 2, 1)
        return F.interpolate(
            self.scores(y), **({"size": x.shape[2:]} if "scale_factor" not in self.how else {}), **self.how
        )  # type: ignore[arg-type]


class Joined(nn.Module):
    """Down, up by a transposed convolution, joined with what came before; sizes must be even."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.up, self.norm = nn.ConvTranspose2d(8, 4, 2, 2), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        a = self.first(x).relu()
        return torch.cat([a, self.up(self.norm(self.second(F.max_pool2d(a, 2))))], 1)


class Pooled(nn.Module):
    """Scores of the whole image, spread over it again."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x.mean((2, 3), keepdim=True), size=x.shape[2:], mode="bilinear") + x


@pytest.mark.parametrize(
    "module",
    [
        Resized(mode="bilinear"),
        Resized(mode="bilinear", align_corners=True),
        Resized(scale_factor=4, mode="bilinear"),
        Resized(scale_factor=4, mode="nearest"),
        Joined(),
        Pooled(),
        nn.Sequential(nn.Conv2d(3, 4, 4), nn.AvgPool2d(2, ceil_mode=True), nn.MaxPool2d(2, ceil_mode=True)),
        nn.Sequential(nn.Conv2d(3, 4, 5, 2), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(36, 5)),
    ],
    ids=["bilinear", "corners aligned", "scale", "nearest", "joined", "pooled", "halved", "adaptive pool"],
)
def test_any_size_is_proven(module: nn.Module) -> None:
    done = translator.convert(module, IMAGE, dynamic_hw=True)
    assert done.model.input_shape == (None, None, None, 3)
    assert done.report.verdict in (Verdict.EQUAL, Verdict.EXPLAINED), [c for c in done.report.checks if not c.ok]
    other = torch.randn(1, 3, 40, 62)
    with torch.no_grad():
        want = module.eval()(other).movedim(1, -1).numpy()
    have = keras.ops.convert_to_numpy(done.model(other.movedim(1, -1).numpy()))
    assert have.shape == want.shape
    assert abs(have - want).max() < 1e-4 * abs(want).max()


class Placed(nn.Module):
    """An embedding of places, for one size of image."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(1, 3, 4, 6))

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.places).relu()


def test_a_network_that_fixes_its_sizes_says_so() -> None:
    done = translator.convert(Placed(), torch.randn(2, 3, 4, 6), dynamic_hw=True)
    assert done.model.input_shape == (None, 4, 6, 3)
    assert done.report.verdict is Verdict.EQUAL
    assert any("fixes the height or width" in note for note in done.report.notes)


def test_nearest_to_a_size_that_only_a_run_knows_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="mode=nearest with a dynamic size"):
        translator.convert(Resized(mode="nearest"), IMAGE, dynamic_hw=True)


def test_a_linear_map_behind_an_image_of_any_size_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="behind a flattened image of any size"):
        translator.convert(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), torch.randn(2, 3, 4, 4), dynamic_hw=True)


def test_the_other_engine_refuses() -> None:
    with pytest.raises(InputError, match="images of one size only"):
        translator.convert(nn.Conv2d(3, 4, 3), IMAGE, engine="onnx2keras", dynamic_hw=True)


def test_a_model_that_is_right_at_the_examples_size_only_is_different() -> None:
    x = keras.Input((None, None, 3))
    port = keras.Model(x, layers.Conv2D(4, 3, strides=2, padding="same")(x))
    module = nn.Conv2d(3, 4, 3, 2, 1)
    kernel, bias = (p.detach().numpy() for p in module.parameters())
    port.layers[1].set_weights([kernel.transpose(2, 3, 1, 0), bias])
    assert translator.audit(module, port, torch.randn(2, 3, 25, 25)).verdict is Verdict.DIFFERENT


class ForOneSize(nn.Module):
    """Looks the size of the image up, and knows one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.known = nn.Conv2d(3, 4, 3, 2, 1), {25: 1.0}

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.known[x.shape[2]]


def test_a_size_that_pytorch_does_not_take_is_no_fault_of_keras() -> None:
    x = keras.Input((None, None, 3))
    port = keras.Model(x, layers.Conv2D(4, 3, strides=2)(layers.ZeroPadding2D(1)(x)))
    report = translator.transfer(ForOneSize(), port, torch.randn(2, 3, 25, 25)).report
    assert report.verdict is Verdict.EQUAL
    assert any("PyTorch takes no other size" in note for note in report.notes)
