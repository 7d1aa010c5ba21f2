"""Every mapped loss has PyTorch's value and gradient in float64, for any settings."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from translator.errors import UnsupportedError
from translator.training.losses import map_loss

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("float64")]
law = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
seeds = st.integers(0, 2**32 - 1)
reductions = st.sampled_from(["mean", "sum", "none"])
LIMIT = 1e-12


def torch_side(loss, output, target):
    x = torch.tensor(output, requires_grad=True)
    value = loss(x, torch.as_tensor(target))
    value.sum().backward()
    return value.detach().numpy(), x.grad.numpy()


def keras_side(loss, output, target):
    x = tf.constant(output)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = loss(target, x)
        total = tf.reduce_sum(value)
    return value.numpy(), tf.convert_to_tensor(tape.gradient(total, x)).numpy()


def assert_same(torch_loss, output, target, *, keras_output=None, back=lambda g: g, **options):
    mapped = map_loss(torch_loss, **options)
    want, want_grad = torch_side(torch_loss, output, target)
    for loss in (mapped.keras, reloaded(mapped.keras)):
        got, got_grad = keras_side(loss, output if keras_output is None else keras_output, target)
        if want.shape != got.shape:
            assert mapped.keras.reduction == "none"
        close(got.reshape(want.shape), want)
        close(back(got_grad), want_grad)
    return mapped


def reloaded(loss):
    return keras.losses.deserialize(keras.losses.serialize(loss))


def close(got, want):
    assert got.shape == want.shape
    assert got.dtype == want.dtype == np.float64
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    scale = max(np.nanmax(np.abs(want), initial=0.0), 1e-300)
    assert np.nanmax(np.abs(got - want), initial=0.0) <= LIMIT * scale


@law
@given(
    seed=seeds,
    classes=st.integers(2, 7),
    spatial=st.sampled_from([(), (3,), (2, 3)]),
    weighted=st.booleans(),
    smoothing=st.sampled_from([0.0, 0.1, 0.7, 1.0]),
    ignored=st.sampled_from([None, -100, 0, 1]),
    reduction=reductions,
    last=st.booleans(),
)
def test_cross_entropy_of_integer_labels(seed, classes, spatial, weighted, smoothing, ignored, reduction, last):
    rng = np.random.default_rng(seed)
    output = rng.normal(scale=4.0, size=(5, classes, *spatial))
    labels = rng.integers(0, classes, size=(5, *spatial))
    weight = torch.tensor(rng.uniform(0.0, 3.0, classes)) if weighted else None
    if ignored is not None:
        labels.reshape(-1)[1::2] = ignored
        labels.reshape(-1)[0] = classes - 1
    loss = nn.CrossEntropyLoss(
        weight=weight, ignore_index=-100 if ignored is None else ignored, label_smoothing=smoothing, reduction=reduction
    )
    if last:
        assert_same(loss, output, labels, keras_output=np.moveaxis(output, 1, -1), back=lambda g: np.moveaxis(g, -1, 1))
    else:
        assert_same(loss, output, labels, class_axis=1 if spatial else -1)


@law
@given(
    seed=seeds,
    spatial=st.sampled_from([(), (3,), (2, 3)]),
    weighted=st.booleans(),
    smoothing=st.sampled_from([0.0, 0.2]),
    reduction=reductions,
)
def test_cross_entropy_of_probabilities(seed, spatial, weighted, smoothing, reduction):
    rng = np.random.default_rng(seed)
    output = rng.normal(scale=3.0, size=(6, 5, *spatial))
    target = np.ascontiguousarray(np.moveaxis(rng.dirichlet(np.ones(5), (6, *spatial)), -1, 1))
    weight = torch.tensor(rng.uniform(0.1, 3.0, 5)) if weighted else None
    loss = nn.CrossEntropyLoss(weight=weight, label_smoothing=smoothing, reduction=reduction)
    assert_same(loss, output, target, targets="probabilities", class_axis=1 if spatial else -1)


def test_labels_of_shape_n_1_are_the_labels_of_shape_n(rng):
    output, labels = rng.normal(size=(4, 3)), np.array([0, 2, -100, 1])
    for loss in (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1)):
        twin = map_loss(loss).keras
        assert float(twin(labels[:, None], output)) == float(twin(labels, output))


def test_a_batch_that_is_ignored_as_a_whole_is_nan_in_pytorch_and_the_mapping_says_where_it_is_not(rng):
    output, labels = rng.normal(size=(4, 3)), np.full(4, -100)
    native = map_loss(nn.CrossEntropyLoss())
    assert native.native
    assert "PyTorch gives nan, Keras 0" in native.notes[0]
    assert float(native.keras(labels, output)) == 0.0
    exact = map_loss(nn.CrossEntropyLoss(weight=torch.ones(3)))
    assert np.isnan(float(exact.keras(labels, output)))
    assert not exact.notes


def test_probabilities_that_do_not_sum_to_one_need_the_registered_loss_and_the_mapping_says_so(rng):
    output, target = rng.normal(size=(4, 3)), rng.uniform(size=(4, 3))
    native = map_loss(nn.CrossEntropyLoss(), targets="probabilities")
    assert "must sum to 1" in native.notes[0]
    assert_same(nn.CrossEntropyLoss(weight=torch.ones(3, dtype=torch.float64)), output, target, targets="probabilities")
    _, want = torch_side(nn.CrossEntropyLoss(), output, target)
    _, got = keras_side(native.keras, output, target)
    assert np.abs(got - want).max() > 1e-2


@law
@given(
    seed=seeds,
    weighted=st.booleans(),
    reduction=reductions,
    spatial=st.sampled_from([(), (4,)]),
    ignored=st.sampled_from([-100, 0, 3]),
)
def test_nll(seed, weighted, reduction, spatial, ignored):
    rng = np.random.default_rng(seed)
    output = np.log(np.moveaxis(rng.dirichlet(np.ones(4), (5, *spatial)), -1, 1))
    labels = rng.integers(0, 4, size=(5, *spatial))
    labels.reshape(-1)[:3] = [1, 2, ignored]
    weight = torch.tensor(rng.uniform(0.1, 3.0, 4)) if weighted else None
    loss = nn.NLLLoss(weight=weight, ignore_index=ignored, reduction=reduction)
    assert_same(loss, output, labels, class_axis=1)


@law
@given(seed=seeds, weighted=st.booleans(), reduction=reductions)
def test_bce_up_to_certain_probabilities(seed, weighted, reduction):
    rng = np.random.default_rng(seed)
    output = np.concatenate([rng.uniform(size=12), [0.0, 1.0, 1e-9, 1 - 1e-9, 0.0, 1.0]]).reshape(6, 3)
    target = np.concatenate([rng.uniform(size=12), [0.0, 1.0, 1.0, 0.0, 1.0, 0.0]]).reshape(6, 3)
    weight = torch.tensor(rng.uniform(size=3)) if weighted else None
    assert_same(nn.BCELoss(weight=weight, reduction=reduction), output, target)


@law
@given(seed=seeds, weighted=st.booleans(), positives=st.booleans(), reduction=reductions)
def test_bce_with_logits(seed, weighted, positives, reduction):
    rng = np.random.default_rng(seed)
    output = rng.normal(scale=20.0, size=(6, 3))
    output[0] = [0.0, 700.0, -700.0]
    target = rng.uniform(size=(6, 3)).round(1)
    loss = nn.BCEWithLogitsLoss(
        weight=torch.tensor(rng.uniform(size=(6, 1))) if weighted else None,
        pos_weight=torch.tensor(rng.uniform(0, 5, size=3)) if positives else None,
        reduction=reduction,
    )
    assert_same(loss, output, target)


@law
@given(
    seed=seeds,
    shape=st.sampled_from([(5, 1), (4, 3), (2, 3, 2)]),
    reduction=reductions,
    bend=st.sampled_from([0.1, 1.0, 2.5]),
    kind=st.sampled_from(["mse", "l1", "huber", "smooth", "smooth0"]),
)
def test_elementwise_losses(seed, shape, reduction, bend, kind):
    rng = np.random.default_rng(seed)
    output, target = rng.normal(scale=2.0, size=shape), rng.normal(size=shape)
    output.reshape(-1)[0] = target.reshape(-1)[0]
    output.reshape(-1)[1] = target.reshape(-1)[1] + bend
    loss = {
        "mse": nn.MSELoss(reduction=reduction),
        "l1": nn.L1Loss(reduction=reduction),
        "huber": nn.HuberLoss(reduction=reduction, delta=bend),
        "smooth": nn.SmoothL1Loss(reduction=reduction, beta=bend),
        "smooth0": nn.SmoothL1Loss(reduction=reduction, beta=0.0),
    }[kind]
    assert_same(loss, output, target)


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (nn.CrossEntropyLoss(), "keras.losses.SparseCategoricalCrossentropy"),
        (nn.BCEWithLogitsLoss(), "keras.losses.BinaryCrossentropy"),
        (nn.MSELoss(), "keras.losses.MeanSquaredError"),
        (nn.L1Loss(), "keras.losses.MeanAbsoluteError"),
        (nn.HuberLoss(), "keras.losses.Huber"),
        (nn.SmoothL1Loss(), "keras.losses.Huber"),
    ],
)
def test_the_default_settings_map_to_keras_own_losses(loss, name):
    mapped = map_loss(loss)
    assert (mapped.native, mapped.name, mapped.why) == (True, name, "")


def test_a_registered_loss_says_what_keras_own_would_do():
    assert "clips the probability at 1e-7" in map_loss(nn.BCELoss()).why


def test_keras_huber_forgets_its_delta_when_saved_so_another_delta_is_registered():
    huber = keras.losses.Huber(delta=0.1)
    zeros, ones = np.zeros((2, 1)), np.ones((2, 1))
    assert (float(huber(zeros, ones)), float(reloaded(huber)(zeros, ones))) == (pytest.approx(0.095), 0.5)
    assert "forgets its delta" in map_loss(nn.HuberLoss(delta=0.1)).why


def test_a_loss_without_a_twin_is_refused_by_name():
    with pytest.raises(UnsupportedError, match=r"CTCLoss: this loss has no Keras twin here\n  fix: +use one of CrossE"):
        map_loss(nn.CTCLoss())


def test_a_subclass_of_a_known_loss_is_refused_since_it_may_compute_anything():
    class Mine(nn.MSELoss):
        pass

    with pytest.raises(UnsupportedError, match="Mine: this loss has no Keras twin"):
        map_loss(Mine())


def test_targets_of_another_shape_are_refused_where_broadcasting_would_hide_it(rng):
    with pytest.raises(ValueError, match="SquaredError: targets"):
        map_loss(nn.MSELoss(reduction="sum")).keras(rng.normal(size=(4, 3)), rng.normal(size=(4, 1)))
