"""Another epsilon, made up for by the moving variances on request: the same function in inference, and said so."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import torch
from keras import layers
from torch import nn

import translator
from translator.errors import InputError
from translator.verdict import Effect, Report, Verdict

pytestmark = pytest.mark.audit


@pytest.fixture
def module() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)).eval()
    for norm in (net[1], net[4]):
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    return net


def port(*epsilons: float) -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU()(layers.BatchNormalization(epsilon=epsilons[0])(layers.Conv2D(4, 3)(inputs)))
    return keras.Model(inputs, layers.BatchNormalization(epsilon=epsilons[1])(layers.Conv2D(4, 3)(x)))


def of(report: Report, kind: str) -> list[tuple[Effect, tuple[str, ...]]]:
    return [(d.effect, d.layers) for d in report.differences if d.kind == kind]


def test_another_epsilon_is_folded_on_request_alone(module: nn.Module) -> None:
    x = torch.randn(2, 3, 8, 8)
    plain = translator.transfer(module, port(1e-3, 1e-5), x).report
    assert (plain.verdict, of(plain, "epsilon")) == (Verdict.DIFFERENT, [(Effect.INFERENCE, ("1",))])
    model = port(1e-3, 1e-5)
    folded = translator.transfer(module, model, x, fold_epsilon=True).report
    assert (folded.verdict, of(folded, "epsilon")) == (Verdict.EXPLAINED, [(Effect.TRAINING, ("1",))])
    assert folded.exit_status == 0
    assert not [row.note for row in (*plain.layers, *folded.layers) if "this input size only" in row.note]
    assert folded.balance.unexplained == 0
    assert [(g.reason, g.count) for g in folded.balance.gaps] == [("BN moving statistics, counted by Keras", 16)]
    with torch.no_grad():
        want = module(x).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(np.asarray(model(x.permute(0, 2, 3, 1).numpy())), want, rtol=1e-4, atol=1e-5)


def test_a_variance_that_makes_up_for_too_little_is_another_function(module: nn.Module, monkeypatch) -> None:
    """The judge adds variance and epsilon up by itself."""
    from translator.audit import transfer

    right = transfer._shifted
    monkeypatch.setattr(transfer, "_shifted", lambda bound, shift, unit: right(bound, shift * 0.99, unit))
    report = translator.transfer(module, port(1e-3, 1e-5), torch.randn(2, 3, 8, 8), fold_epsilon=True).report
    assert report.verdict is Verdict.DIFFERENT
    assert report.exit_status == 1


def test_a_variance_too_small_to_make_up_for_it_is_refused(module: nn.Module) -> None:
    module[1].running_var[2] = 5e-4
    with pytest.raises(InputError, match="1: its smallest running variance is below the difference of the epsilons"):
        translator.transfer(module, port(1e-3, 1e-5), torch.randn(2, 3, 8, 8), fold_epsilon=True)
