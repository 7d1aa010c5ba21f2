"""Attention in three ways on either side: packed, separate, as one layer; weights go across and come back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import translator
from tests.audit import attention_pairs as pairs
from translator.verdict import Effect
from translator.verify.proof import ProofOptions

pytestmark = pytest.mark.audit

QUICK = ProofOptions(dtypes=("float64",), probes=False)


@pytest.mark.parametrize("port", [pairs.layer, pairs.separate, pairs.packed], ids=lambda f: f.__name__)
@pytest.mark.parametrize("attention", [pairs.Module, pairs.Packed, pairs.Separate], ids=lambda c: c.__name__)
def test_each_way_to_write_attention_takes_the_weights_of_each_other(
    attention: type[nn.Module], port: Callable[[Any], Any]
) -> None:
    module, model = pairs.Block(attention()).eval(), pairs.keras_block(port)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    tokens = torch.randn(2, pairs.TOKENS, pairs.WIDTH)
    report = translator.transfer(module, model, tokens, proof=QUICK).report
    assert report.exit_status == 0
    assert {d.kind for d in report.differences} <= {"packed-projections", "dropout", "merged"}
    assert not any(d.effect is Effect.INFERENCE for d in report.differences)
    assert np.abs(np.asarray(model(tokens.numpy())) - module(tokens).detach().numpy()).max() < 1e-5
    for tensor in module.state_dict().values():
        tensor.zero_()
    translator.transfer(model, module, tokens, proof=QUICK)
    assert all(torch.equal(v, module.state_dict()[k]) for k, v in before.items())
