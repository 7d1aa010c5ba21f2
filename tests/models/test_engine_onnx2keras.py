"""The engine onnx2keras: run as that package's users run it, and judged like anything else."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest
import torch
import torchvision
from torch import nn

import translator
from models import cifar_resnet
from tests.models.test_conversion import with_statistics
from translator.config import ConvertRequest, SourceRequest
from translator.engines.onnx2keras import translate
from translator.errors import UnsupportedError
from translator.pipeline import convert_file
from translator.verdict import Verdict

pytestmark = pytest.mark.model


@pytest.mark.filterwarnings("ignore")
def test_equal_numbers_are_not_enough_for_the_cifar_network(tmp_path: Path) -> None:
    weights = tmp_path / "resnet.pt"
    torch.save(with_statistics(cifar_resnet.resnet()).state_dict(), weights)
    request = ConvertRequest(
        source=SourceRequest(spec="models/cifar_resnet.py:resnet", weights=weights),
        output=tmp_path / "resnet.keras",
        engine="onnx2keras",
    )
    report = convert_file(request)
    assert report.exit_status == 1
    assert report.numerics["float64"].max_rel < 1e-6
    assert report.balance.keras_total == 195_178
    assert report.balance.unexplained == 0
    (folded,) = [d for d in report.differences if d.kind == "bn-folded"]
    assert len(folded.layers) == 15
    assert report.artifact is not None
    assert report.artifact.lambda_layers >= 1
    assert not report.artifact.reloaded
    assert "Could not locate function" in report.artifact.error
    assert not request.output.exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "first"), [("googlenet", "maxpool1"), ("shufflenet_v2_x0_5", "stage2.0")], ids=["googlenet", "shufflenet"]
)
def test_silently_wrong_numbers_are_found_with_their_first_layer(name: str, first: str) -> None:
    extra = {"init_weights": False} if name == "googlenet" else {}
    module = with_statistics(getattr(torchvision.models, name)(**extra))
    report = translator.convert(module, torch.randn(1, 3, 224, 224), engine="onnx2keras").report
    assert report.verdict is Verdict.DIFFERENT
    assert report.numerics["float64"].max_rel > 1e-3
    assert report.first_wrong.startswith(first)


@pytest.mark.filterwarnings("ignore")
def test_a_failed_conversion_leaves_keras_as_it_was() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Hardswish()).eval()
    with pytest.raises(UnsupportedError, match="HardSwish"):
        translate(module, (torch.randn(2, 3, 8, 8),))
    assert keras.config.image_data_format() == "channels_last"


def test_a_keras_that_is_set_to_channels_first_gets_the_same_model() -> None:
    keras.config.set_image_data_format("channels_first")
    try:
        module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.MaxPool2d(2), nn.Flatten()).eval()
        done = translator.convert(module, torch.randn(2, 3, 8, 8))
        assert keras.config.image_data_format() == "channels_first"
    finally:
        keras.config.set_image_data_format("channels_last")
    assert done.report.exit_status == 0
    assert done.model.input_shape == (None, 8, 8, 3)
