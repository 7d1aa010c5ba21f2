"""Every mapped scheduler gives PyTorch's rate at every step, in eager mode and in a TensorFlow graph."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from translator.errors import UnsupportedError
from translator.training.mapped import _wide
from translator.training.schedules import map_scheduler

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("float64")]
law = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
per_epoch = st.sampled_from([1, 3, 41])
LIMIT = 1e-12
EPOCHS = 13


def optimizer_of(*, adam=False, rates=(0.1, 0.02)):
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    return torch.optim.Adam(groups) if adam else torch.optim.SGD(groups, momentum=0.9)


def values_at(schedule, steps):
    if not callable(schedule):
        return np.full(len(steps), schedule)
    native = type(schedule).__module__.startswith("keras")
    config = keras.optimizers.schedules.serialize(schedule)
    schedule = keras.optimizers.schedules.deserialize(_wide(config) if native else config)
    in_graph = tf.function(schedule, input_signature=[tf.TensorSpec((), tf.int64)])
    graph = [np.asarray(in_graph(tf.constant(step, tf.int64))) for step in steps]
    eager = np.asarray(schedule(tf.constant(steps[-1], tf.int64)))
    assert all(value.dtype == np.float64 for value in graph)
    assert abs(eager - graph[-1]) <= LIMIT * abs(eager) + 1e-300
    return np.array(graph)


def assert_same(make, steps_per_epoch, *, adam=False, epochs=EPOCHS, table=None):
    optimizer = optimizer_of(adam=adam)
    scheduler = make(optimizer)
    mapped = map_scheduler(scheduler, steps_per_epoch=steps_per_epoch, epochs=table)
    want = []
    for epoch in range(epochs):
        want.append([(g["lr"], g["betas"][0] if adam else g["momentum"]) for g in optimizer.param_groups])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a scheduler that moves without its optimizer
            if epoch + 1 < epochs:
                scheduler.step()
    want = np.array(want)
    for group, schedule in enumerate(mapped):
        scale = np.abs(want[:, group, 0]).max()
        for place in {0, steps_per_epoch - 1}:
            steps = [epoch * steps_per_epoch + place for epoch in range(epochs)]
            got = values_at(schedule.learning_rate, steps)
            assert np.abs(got - want[:, group, 0]).max() <= LIMIT * scale
            if schedule.momentum is None:
                assert len(set(want[:, group, 1])) == 1
            else:
                assert np.abs(values_at(schedule.momentum, steps) - want[:, group, 1]).max() <= LIMIT
    return mapped


@law
@given(every=st.integers(1, 6), gamma=st.sampled_from([0.1, 1 / 3, 0.9]), steps=per_epoch)
def test_step(every, gamma, steps):
    assert_same(lambda o: lr_scheduler.StepLR(o, step_size=every, gamma=gamma), steps)


@law
@given(milestones=st.lists(st.integers(1, 12), max_size=4), gamma=st.sampled_from([0.1, 0.5]), steps=per_epoch)
def test_multi_step_with_milestones_in_any_order_and_repeated_is_native(milestones, gamma, steps):
    mapped = assert_same(lambda o: lr_scheduler.MultiStepLR(o, milestones=milestones, gamma=gamma), steps)
    assert all(schedule.native for schedule in mapped)


@law
@given(gamma=st.sampled_from([0.5, 0.97]), steps=per_epoch)
def test_exponential(gamma, steps):
    assert_same(lambda o: lr_scheduler.ExponentialLR(o, gamma=gamma), steps)


@law
@given(period=st.integers(1, 14), minimum=st.sampled_from([0.0, 1e-3]), steps=per_epoch)
def test_cosine_annealing_beyond_its_period(period, minimum, steps):
    assert_same(lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=period, eta_min=minimum), steps, epochs=31)


@law
@given(
    total=st.integers(8, 20),
    share=st.sampled_from([0.3, 0.45]),
    anneal=st.sampled_from(["cos", "linear"]),
    three=st.booleans(),
    cycle=st.booleans(),
    adam=st.booleans(),
    steps=per_epoch,
)
def test_one_cycle_to_its_very_last_step(total, share, anneal, three, cycle, adam, steps):
    def make(optimizer):
        return lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=[0.5, 0.1],
            total_steps=total,
            pct_start=share,
            anneal_strategy=anneal,
            three_phase=three,
            cycle_momentum=cycle,
        )

    assert_same(make, steps, adam=adam, epochs=total + 1)


@settings(law, max_examples=10)
@given(seed=st.integers(0, 2**32 - 1), products=st.booleans(), steps=per_epoch)
def test_any_function_of_the_epoch(seed, products, steps):
    factors = np.random.default_rng(seed).uniform(0.0, 2.0, (2, EPOCHS)).tolist()
    cls = lr_scheduler.MultiplicativeLR if products else lr_scheduler.LambdaLR
    assert_same(lambda o: cls(o, [lambda e, row=row: row[e] for row in factors]), steps, table=EPOCHS)


@pytest.mark.parametrize(
    "make",
    [
        lambda o: lr_scheduler.LambdaLR(o, [lambda e: 0.9**e, lambda e: 1 / (1 + e)]),
        lambda o: lr_scheduler.MultiplicativeLR(o, lambda e: 0.95),
        lambda o: lr_scheduler.LinearLR(o, total_iters=5),
        lambda o: lr_scheduler.PolynomialLR(o, total_iters=9, power=2.0),
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=4, T_mult=2),
        lambda o: lr_scheduler.CyclicLR(o, base_lr=0.01, max_lr=0.1, step_size_up=4),
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.LinearLR(o, total_iters=4), lr_scheduler.CosineAnnealingLR(o, T_max=9)], milestones=[4]
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*epoch parameter in `scheduler.step.*:UserWarning")
def test_any_scheduler_of_the_epoch_alone_is_written_down(make):
    for schedule in assert_same(make, 3, table=EPOCHS):
        assert "keras.optimizers.schedules has no" in schedule.why


def test_the_article_divides_by_three_every_twenty_epochs():
    optimizer = optimizer_of(rates=(1e-3,))
    (mapped,) = map_scheduler(lr_scheduler.StepLR(optimizer, step_size=20, gamma=1 / 3), steps_per_epoch=500)
    got = values_at(mapped.learning_rate, [0, 9_999, 10_000, 19_999, 20_000, 39_999])
    np.testing.assert_allclose(got, [1e-3, 1e-3, 1e-3 / 3, 1e-3 / 3, 1e-3 / 9, 1e-3 / 27], rtol=1e-13)


def test_keras_own_staircase_decays_a_step_late_in_a_tensorflow_graph_and_the_mapped_one_does_not():
    native = keras.optimizers.schedules.ExponentialDecay(1.0, 41, 0.5, staircase=True)
    in_graph = tf.function(native, input_signature=[tf.TensorSpec((), tf.int64)])
    assert float(in_graph(tf.constant(41, tf.int64))) == 1.0
    (mapped,) = map_scheduler(lr_scheduler.StepLR(optimizer_of(rates=(1.0,)), step_size=41, gamma=0.5))
    assert values_at(mapped.learning_rate, [40, 41]).tolist() == [1.0, 0.5]


def test_after_the_last_row_of_a_table_training_stands_still():
    (mapped,) = map_scheduler(lr_scheduler.LambdaLR(optimizer_of(rates=(0.1,)), lambda e: 1.0), epochs=3)
    assert values_at(mapped.learning_rate, [2, 3, 100]).tolist() == [0.1, 0.0, 0.0]


def test_writing_a_scheduler_down_leaves_it_and_its_optimizer_alone():
    optimizer = optimizer_of()
    scheduler = lr_scheduler.LambdaLR(optimizer, lambda e: 0.5**e)
    parameter = optimizer.param_groups[0]["params"][0]
    map_scheduler(scheduler, epochs=5)
    assert scheduler.last_epoch == 0
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.02]
    assert optimizer.param_groups[0]["params"][0] is parameter


def test_a_lambda_without_a_number_of_epochs_is_refused():
    with pytest.raises(UnsupportedError, match="LambdaLR: has no closed form here"):
        map_scheduler(lr_scheduler.LambdaLR(optimizer_of(), lambda e: 0.9**e))


def test_a_plateau_scheduler_is_refused_with_the_callback_that_comes_nearest():
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer_of(), factor=0.2, patience=7)
    with pytest.raises(
        UnsupportedError, match=r"its threshold is relative.*\n.*ReduceLROnPlateau\(factor=0.2, patience=7"
    ):
        map_scheduler(scheduler)
