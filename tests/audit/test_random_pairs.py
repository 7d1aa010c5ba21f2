"""Random networks, written in both frameworks by code that shares nothing with the translator."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import translator
from scripts.faults.mutations import mutant
from scripts.faults.random_nets import random_pair
from translator.audit.api import AuditOptions
from translator.verdict import Verdict
from translator.verify.proof import ProofOptions

pytestmark = pytest.mark.audit

QUICK = AuditOptions(weights="compare", proof=ProofOptions(dtypes=("float64",), probes=False))
EXPECTED = {"bn-statistics", "num_batches_tracked", "flatten-order"}
SEEDS = st.integers(0, 2**32 - 1)


@given(seed=SEEDS)
@example(seed=664)
@settings(max_examples=12, deadline=None)
def test_a_random_network_is_the_same_in_both_frameworks(seed: int) -> None:
    pair = random_pair(np.random.default_rng(seed))
    report = translator.audit(pair.module, pair.model, pair.inputs, options=QUICK)
    assert report.verdict in (Verdict.EQUAL, Verdict.EXPLAINED)
    assert {d.kind for d in report.differences} <= EXPECTED
    assert report.balance.unexplained == 0


@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_one_random_mutation_is_found_at_its_layer(seed: int) -> None:
    found = mutant(np.random.default_rng(seed))
    pair = found.pair
    report = translator.audit(pair.module, pair.model, pair.inputs, options=QUICK)
    named = {layer for d in report.differences if d.kind not in EXPECTED for layer in d.layers}
    assert report.verdict is Verdict.DIFFERENT, found.kind
    assert named & found.layers, (found.kind, named)
    assert len(named) <= 4, (found.kind, named)


@given(seed=SEEDS)
@settings(max_examples=6, deadline=None)
def test_weights_of_a_random_network_go_across_and_come_back_bit_for_bit(seed: int) -> None:
    pair = random_pair(np.random.default_rng(seed))
    before = {k: v.clone() for k, v in pair.module.state_dict().items()}
    for weight in pair.model.weights:
        weight.assign(np.zeros(weight.shape))
    there = translator.transfer(pair.module, pair.model, pair.inputs, proof=QUICK.proof)
    assert there.report.exit_status == 0
    for tensor in pair.module.state_dict().values():
        tensor.zero_()
    back = translator.transfer(pair.model, pair.module, pair.inputs, proof=QUICK.proof)
    assert back.report.exit_status == 0
    for name, tensor in pair.module.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert tensor.equal(before[name]), name
