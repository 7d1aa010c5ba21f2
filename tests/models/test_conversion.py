"""Whole networks through the pipeline: translated, proven, balanced, and nothing in them that isn't Keras' own."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import torch
import torchvision
from torch import nn

import translator
from models import cifar_resnet
from translator.plan import weightmap
from translator.verdict import Verdict

pytestmark = pytest.mark.model

RESNETS = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d",
    "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2",
)  # fmt: skip
QUICK = ("resnet18",)
GLUE = ("Lambda", "Permute", "TorchModuleWrapper")


def with_statistics(module: nn.Module, seed: int = 0) -> nn.Module:
    """BN statistics far from 0 and 1, as a trained network has them."""
    generator = torch.Generator().manual_seed(seed)
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.copy_(torch.randn(m.num_features, generator=generator) * 0.5)
            m.running_var.copy_(torch.rand(m.num_features, generator=generator) * 3 + 0.2)
    return module.eval()


def check(conversion: translator.pipeline.Conversion, module: nn.Module) -> None:
    report = conversion.report
    assert report.verdict is Verdict.EXPLAINED, report.first_wrong
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    statistics = sum(2 * m.num_features for m in norms)
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    assert report.balance.keras_trainable == trainable
    assert [gap.count for gap in report.balance.gaps] == [statistics]
    assert report.balance.unexplained == 0
    kinds = [layer.cls for layer in conversion.plan.layers]
    assert kinds.count("BatchNormalization") == len(norms)
    assert not set(kinds) & set(GLUE)
    assert not any(getattr(call, "op", "") == "transpose" for call in conversion.plan.calls)
    errors = [row.error_f64 for row in report.layers if row.error_f64 is not None]
    assert len(errors) > len(norms)
    assert max(errors) <= 1e-9


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in RESNETS])
def test_torchvision_resnets_are_proven(name: str) -> None:
    module = with_statistics(getattr(torchvision.models, name)())
    check(translator.convert(module, torch.randn(2, 3, 64, 64)), module)


@pytest.mark.parametrize(
    "name",
    [
        "resnet",
        "resnet20",
        pytest.param("resnet56", marks=pytest.mark.slow),
        pytest.param("resnet110", marks=pytest.mark.slow),
    ],
)
def test_cifar_resnets_are_proven(name: str) -> None:
    module = with_statistics(getattr(cifar_resnet, name)())
    check(translator.convert(module, torch.randn(2, 3, 32, 32)), module)


def test_no_padding_layer_stands_where_same_gives_the_same_numbers() -> None:
    conversion = translator.convert(with_statistics(cifar_resnet.resnet()), torch.randn(2, 3, 32, 32))
    padded = [layer.name for layer in conversion.plan.layers if layer.cls == "ZeroPadding2D"]
    assert sorted(padded) == sorted(f"{conv}_pad" for conv in (
        "layer2_0_conv1", "layer2_0_downsample_0", "layer3_0_conv1", "layer3_0_downsample_0",
    ))  # fmt: skip


def test_every_tensor_comes_back_bit_for_bit() -> None:
    module = with_statistics(cifar_resnet.resnet())
    back = translator.convert(module, torch.randn(2, 3, 32, 32), proof=False).state_dict()
    want = {k: v.numpy() for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert back.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_array_equal(back[name], value, strict=True)


def test_a_second_checkpoint_is_converted_without_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = with_statistics(cifar_resnet.resnet(), 1), with_statistics(cifar_resnet.resnet(), 2)
    conversion = translator.convert(first, torch.randn(2, 3, 32, 32), proof=False)
    monkeypatch.setattr(torch.export, "export", None)
    conversion.load_checkpoint(second)
    x = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        want = second(x).numpy()
    got = keras.ops.convert_to_numpy(conversion.model(x.permute(0, 2, 3, 1).numpy()))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_the_weight_map_survives_its_file(tmp_path: object) -> None:
    conversion = translator.convert(with_statistics(cifar_resnet.resnet()), torch.randn(2, 3, 32, 32), proof=False)
    path = tmp_path / "net.weightmap.json"  # type: ignore[operator]
    path.write_text(weightmap.dump(conversion.weightmap))
    assert weightmap.load(path) == conversion.weightmap


def test_conversion_is_deterministic() -> None:
    module = with_statistics(cifar_resnet.resnet())
    first, second = (translator.convert(module, torch.ones(2, 3, 32, 32), proof=False) for _ in range(2))
    assert [(c.outputs, c.args) for c in first.plan.calls] == [(c.outputs, c.args) for c in second.plan.calls]
    assert first.model.to_json() == second.model.to_json()


def test_folding_on_request_is_explained_and_keeps_the_function() -> None:
    module = with_statistics(cifar_resnet.resnet())
    conversion = translator.convert(module, torch.randn(2, 3, 32, 32), fold=True)
    report = conversion.report
    assert report.verdict is Verdict.EXPLAINED
    assert report.numerics["float64"].max_rel < 1e-6
    assert "BatchNormalization" not in {layer.cls for layer in conversion.plan.layers}
    (folded,) = [d for d in report.differences if d.kind == "bn-folded"]
    assert len(folded.layers) == 15
    assert report.balance.keras_total == 195_178
    assert report.balance.unexplained == 0


@pytest.mark.slow
def test_a_network_of_1202_layers_translates_saves_and_loads(tmp_path: object) -> None:
    module = with_statistics(cifar_resnet.resnet1202())
    conversion = translator.convert(module, torch.randn(2, 3, 32, 32))
    assert conversion.report.verdict is Verdict.EXPLAINED
    report = conversion.save(tmp_path / "deep.keras")  # type: ignore[operator]
    assert report.artifact is not None
    assert report.artifact.reloaded
