"""A Normalization that PyTorch lacks holds nothing back while it was never adapted, and is refused after that."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import torch
from keras import layers
from torch import nn

import translator
from translator.errors import InputError
from translator.verdict import Verdict

pytestmark = pytest.mark.audit


def port(front: layers.Layer) -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(layers.Conv2D(4, 3)(front(inputs)))))


@pytest.fixture
def module() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)).eval()


def test_a_fresh_normalization_does_not_hold_the_weights_back(module: nn.Module) -> None:
    """As keras.applications' EfficientNet has it: its numbers stay, and the report names it."""
    x = torch.randn(2, 3, 8, 8)
    model = port(layers.Normalization())
    moved = translator.transfer(module, model, x)
    assert (moved.left, moved.report.balance.unexplained) == ((), 0)
    assert [d.kind for d in moved.report.differences if d.kind == "preprocessing"] == ["preprocessing"]
    with torch.no_grad():
        want = module(x).numpy()
    np.testing.assert_allclose(np.asarray(model(x.permute(0, 2, 3, 1).numpy())), want, rtol=1e-4, atol=1e-5)

    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    for tensor in module.state_dict().values():
        tensor.zero_()
    assert translator.transfer(model, module, x).left == ()
    assert all(before[name].equal(tensor) for name, tensor in module.state_dict().items())


def test_an_adapted_normalization_is_refused_with_what_to_do(module: nn.Module) -> None:
    front = layers.Normalization()
    front.adapt(np.random.default_rng(0).normal(3, 2, (16, 8, 8, 3)).astype("float32"))
    model = port(front)
    with pytest.raises(InputError, match=r"mean .*PyTorch has no Normalization; build the Keras model without it"):
        translator.transfer(module, model, torch.randn(2, 3, 8, 8))
    with pytest.raises(InputError, match=r"mean .*PyTorch has no tensor for it"):
        translator.transfer(model, module, torch.randn(2, 3, 8, 8))


def test_a_fixed_rescaling_is_named_and_holds_nothing_back(module: nn.Module) -> None:
    model = port(layers.Rescaling(1 / 255, name="rescaling"))
    report = translator.transfer(module, model, torch.randn(2, 3, 8, 8)).report
    assert report.verdict is Verdict.DIFFERENT
    assert [d.layers for d in report.differences if d.kind == "preprocessing"] == [("rescaling",)]
