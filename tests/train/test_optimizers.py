"""Every mapped optimizer takes PyTorch's steps in float64: weights and states, with any settings and schedule."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from translator.errors import InputError, UnsupportedError
from translator.training import registered
from translator.training.mapped import exact_in_float64
from translator.training.optimizers import map_optimizer

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("float64")]
law = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
seeds = st.integers(0, 2**32 - 1)
rates = st.sampled_from([1e-3, 0.05, 1.0])
decays = st.sampled_from([0.0, 1e-4, 0.3])
momenta = st.sampled_from([0.0, 0.5, 0.9, 1.0])
schedules = st.sampled_from(["none", "step", "multi-step", "exponential", "cosine", "one-cycle", "lambda"])
LIMIT, STEPS = 1e-12, 12
SHAPES = ((3, 2), (4,))
STATES = {
    "TorchSGD": {"momentum_buffer": "_momentums"},
    "TorchAdam": {"exp_avg": "_momentums", "exp_avg_sq": "_velocities", "max_exp_avg_sq": "_velocity_hats"},
    "TorchAdamW": {"exp_avg": "_momentums", "exp_avg_sq": "_velocities", "max_exp_avg_sq": "_velocity_hats"},
    "TorchRMSprop": {"square_avg": "_velocities", "momentum_buffer": "_momentums", "grad_avg": "_averages"},
}


def scheduler_of(kind, optimizer):
    match kind:
        case "none":
            return None
        case "step":
            return lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.3)
        case "multi-step":
            return lr_scheduler.MultiStepLR(optimizer, milestones=[2, 7], gamma=0.3)
        case "cosine":
            return lr_scheduler.CosineAnnealingLR(optimizer, T_max=5, eta_min=1e-4)
        case "exponential":
            return lr_scheduler.ExponentialLR(optimizer, gamma=0.8)
        case "one-cycle":
            cycles = bool(optimizer.defaults.get("momentum") or "betas" in optimizer.defaults)
            return lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=STEPS + 1, cycle_momentum=cycles)
        case "lambda":
            return lr_scheduler.LambdaLR(optimizer, lambda epoch: 1.0 / (1 + epoch))


def close(got, want):
    got, want = np.asarray(got), want.detach().numpy()
    assert got.dtype == want.dtype == np.float64
    assert np.abs(got - want).max() <= LIMIT * max(np.abs(want).max(), 1.0)


def reloaded(mapped):
    """From its config; Keras' own, and its own schedules, with float64 numbers; ours need no help."""
    optimizer = keras.optimizers.deserialize(keras.optimizers.serialize(mapped.keras))
    schedule = type(optimizer._learning_rate).__module__.startswith("keras.src.optimizers.schedules")
    return exact_in_float64(optimizer) if mapped.name.startswith("keras.") or schedule else optimizer


def assert_same_steps(seed, make, schedule="none", *, graph=False):
    """Feed the same random gradients to both, and compare after every step."""
    rng = np.random.default_rng(seed)
    start = [rng.normal(size=shape) for shape in SHAPES]
    params = [torch.nn.Parameter(torch.tensor(value)) for value in start]
    optimizer = make(params)
    scheduler = scheduler_of(schedule, optimizer)
    mapped = map_optimizer(optimizer, scheduler=scheduler, epochs=STEPS)
    twin = reloaded(mapped)
    variables = [keras.Variable(value) for value in start]
    twin.build(variables)

    def apply(gradients):
        twin.apply(gradients, variables)

    apply = tf.function(apply) if graph else apply
    for _ in range(STEPS):
        gradients = [rng.normal(size=shape) * 10.0 ** rng.integers(-6, 2) for shape in SHAPES]
        for param, gradient in zip(params, gradients, strict=True):
            param.grad = torch.tensor(gradient)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        apply([tf.constant(g) for g in gradients])
        for index, (param, variable) in enumerate(zip(params, variables, strict=True)):
            close(variable, param)
            for theirs, ours in STATES.get(type(twin).__name__, {}).items():
                if optimizer.state[param].get(theirs) is not None:
                    close(getattr(twin, ours)[index], optimizer.state[param][theirs])
    return mapped


@law
@given(
    seed=seeds,
    lr=rates,
    momentum=momenta,
    dampening=st.sampled_from([0.0, 0.4]),
    nesterov=st.booleans(),
    decay=decays,
    maximize=st.booleans(),
    schedule=schedules,
)
def test_sgd(seed, lr, momentum, dampening, nesterov, decay, maximize, schedule):
    if nesterov:
        momentum, dampening = momentum or 0.9, 0.0
    assert_same_steps(
        seed,
        lambda params: torch.optim.SGD(
            params,
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            nesterov=nesterov,
            weight_decay=decay,
            maximize=maximize,
        ),
        schedule,
    )


@law
@given(
    seed=seeds,
    lr=rates,
    betas=st.sampled_from([(0.9, 0.999), (0.0, 0.5), (0.8, 0.5)]),
    eps=st.sampled_from([1e-8, 1e-3, 0.0]),
    decay=decays,
    amsgrad=st.booleans(),
    maximize=st.booleans(),
    decoupled=st.booleans(),
    schedule=schedules,
)
def test_adam_and_adamw(seed, lr, betas, eps, decay, amsgrad, maximize, decoupled, schedule):
    cls = torch.optim.AdamW if decoupled else torch.optim.Adam
    assert_same_steps(
        seed,
        lambda params: cls(params, lr=lr, betas=betas, eps=eps, weight_decay=decay, amsgrad=amsgrad, maximize=maximize),
        schedule,
    )


@law
@given(
    seed=seeds,
    lr=rates,
    alpha=st.sampled_from([0.99, 0.5]),
    momentum=st.sampled_from([0.0, 0.9]),
    eps=st.sampled_from([1e-8, 1e-2, 0.0]),
    decay=decays,
    centered=st.booleans(),
    maximize=st.booleans(),
    schedule=st.sampled_from(["none", "step", "exponential", "lambda"]),
)
def test_rmsprop(seed, lr, alpha, momentum, eps, decay, centered, maximize, schedule):
    assert_same_steps(
        seed,
        lambda params: torch.optim.RMSprop(
            params,
            lr=lr,
            alpha=alpha,
            momentum=momentum,
            eps=eps,
            weight_decay=decay,
            centered=centered,
            maximize=maximize,
        ),
        schedule,
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-3),
        lambda p: torch.optim.AdamW(p, lr=0.1, amsgrad=True),
        lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.9, centered=True),
    ],
)
@pytest.mark.parametrize("schedule", ["none", "one-cycle"])
def test_a_tensorflow_graph_takes_the_same_steps(make, schedule, seed):
    if schedule == "one-cycle" and "alpha" in make([torch.nn.Parameter(torch.zeros(1))]).defaults:
        schedule = "step"
    assert_same_steps(seed, make, schedule, graph=True)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1), "keras.optimizers.SGD"),
        (lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.1), "keras.optimizers.SGD"),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True), "keras.optimizers.SGD"),
        (lambda p: torch.optim.Adam(p, eps=0.0), "keras.optimizers.Adam"),
        (lambda p: torch.optim.AdamW(p, eps=0.0), "keras.optimizers.AdamW"),
        (lambda p: torch.optim.RMSprop(p, eps=0.0), "keras.optimizers.RMSprop"),
        (
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
            "translator.training.registered.TorchSGD",
        ),
        (lambda p: torch.optim.Adam(p), "translator.training.registered.TorchAdam"),
    ],
)
def test_keras_own_optimizer_is_used_where_it_takes_the_same_steps(make, name, seed):
    assert assert_same_steps(seed, make).name == name


def test_momentum_under_a_schedule_needs_the_registered_class_and_keras_own_would_drift(seed):
    mapped = assert_same_steps(seed, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), "step")
    assert mapped.name.endswith("TorchSGD")
    assert "keeps the learning rate in its momentum" in mapped.why


def test_a_native_momentum_says_that_its_rate_must_stand_still():
    mapped = map_optimizer(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9))
    assert mapped.notes == (
        "the same only while the learning rate stands still: where a callback will move it, "
        "use translator.training.registered.TorchSGD",
    )


def grouped(params):
    return torch.optim.SGD([{"params": params[:1], "lr": 0.3}, {"params": params[1:]}], lr=0.1, momentum=0.9)


def test_parameter_groups_become_one_optimizer_each(rng):
    start = [rng.normal(size=shape) for shape in SHAPES]
    params = [torch.nn.Parameter(torch.tensor(value)) for value in start]
    optimizer = torch.optim.AdamW(
        [{"params": params[:1], "weight_decay": 0.0}, {"params": params[1:], "lr": 0.2}], lr=0.1
    )
    scheduler = lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    variables = [keras.Variable(value, name=name) for value, name in zip(start, ("first", "a.b"), strict=True)]
    mapped = map_optimizer(optimizer, scheduler=scheduler, variables=[[v.path] for v in variables])
    twin = reloaded(mapped)
    assert isinstance(twin, keras.optimizers.MultiOptimizer)
    for _ in range(STEPS):
        for param in params:
            param.grad = torch.tensor(rng.normal(size=param.shape))
        optimizer.step()
        scheduler.step()
        twin.apply([tf.constant(p.grad.numpy()) for p in params], variables)
        for param, variable in zip(params, variables, strict=True):
            close(variable, param)


@settings(law, max_examples=12)
@given(
    seed=seeds,
    kind=st.sampled_from(["sgd", "adam", "adamw", "rmsprop"]),
    rate=st.tuples(rates, rates),
    decay=st.tuples(decays, decays),
    flag=st.tuples(st.booleans(), st.booleans()),
    schedule=st.sampled_from(["none", "step", "exponential", "lambda"]),
)
def test_groups_with_settings_of_their_own(seed, kind, rate, decay, flag, schedule):
    """flag: nesterov, amsgrad or centered, as the optimizer has it."""
    rng = np.random.default_rng(seed)
    params = [torch.nn.Parameter(torch.tensor(rng.normal(size=shape))) for shape in SHAPES]
    cls, more, setting = {
        "sgd": (torch.optim.SGD, {"momentum": 0.9}, "nesterov"),
        "adam": (torch.optim.Adam, {}, "amsgrad"),
        "adamw": (torch.optim.AdamW, {}, "amsgrad"),
        "rmsprop": (torch.optim.RMSprop, {"momentum": 0.5}, "centered"),
    }[kind]
    optimizer = cls(
        [
            {"params": [p], "lr": lr, "weight_decay": share, setting: on}
            for p, lr, share, on in zip(params, rate, decay, flag, strict=True)
        ],
        lr=0.1,
        **more,
    )
    scheduler = scheduler_of(schedule, optimizer)
    variables = [keras.Variable(p.detach().numpy(), name=f"v{i}") for i, p in enumerate(params)]
    mapped = map_optimizer(optimizer, scheduler=scheduler, epochs=STEPS, variables=[[v.path] for v in variables])
    twin = exact_in_float64(mapped.keras)
    for _ in range(5):
        for param in params:
            param.grad = torch.tensor(rng.normal(size=param.shape))
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        twin.apply([tf.constant(p.grad.numpy()) for p in params], variables)
        for param, variable in zip(params, variables, strict=True):
            close(variable, param)


def test_several_groups_without_their_variables_are_refused():
    params = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    with pytest.raises(InputError, match="2 parameter groups, and it isn't said which Keras variables"):
        map_optimizer(grouped(params))


def test_variables_in_no_group_stand_still(rng):
    kept, moved = keras.Variable(rng.normal(size=2), name="kept"), keras.Variable(rng.normal(size=2), name="moved")
    before = kept.numpy().copy()
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))])
    mapped = map_optimizer(optimizer, variables=[["moved"]], untrained=["kept"])
    mapped.keras.apply([tf.ones(2, "float64"), tf.ones(2, "float64")], [kept, moved])
    np.testing.assert_array_equal(kept.numpy(), before)
    assert "1 variables whose parameters stand in no group" in mapped.notes[-1]


def test_an_embedding_gradient_with_repeated_rows_is_summed_before_it_is_squared(rng):
    table = rng.normal(size=(5, 3))
    ids = np.array([1, 1, 1, 4])
    weight = torch.nn.Parameter(torch.tensor(table))
    optimizer = torch.optim.Adam([weight], lr=0.1)
    torch.nn.functional.embedding(torch.tensor(ids), weight).pow(2).sum().backward()
    optimizer.step()
    layer = keras.layers.Embedding(5, 3)
    layer.build((None,))
    layer.set_weights([table])
    twin = map_optimizer(torch.optim.Adam([weight], lr=0.1)).keras
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(layer(ids) ** 2)
    gradient = tape.gradient(value, layer.embeddings.value)
    assert isinstance(gradient, tf.IndexedSlices)
    twin.apply([gradient], [layer.embeddings])
    close(layer.embeddings, weight)


def test_the_first_step_of_adam_is_exact_in_float32_where_keras_own_loses_digits():
    betas = (0.9, 0.999)
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = torch.optim.Adam([weight], lr=1e-3, betas=betas, eps=0.0)
    weight.grad = torch.ones(1, dtype=torch.float64)
    optimizer.step()
    errors = []
    for cls in (registered.TorchAdam, keras.optimizers.Adam):
        variable = keras.Variable(np.zeros(1, "float32"), dtype="float32")
        cls(1e-3, beta_1=betas[0], beta_2=betas[1], epsilon=0.0).apply([tf.ones(1)], [variable])
        errors.append(abs(float(variable.numpy()[0]) - float(weight.detach()[0])) / 1e-3)
    assert errors[0] < 2e-7 < 1e-6 < errors[1]


def test_keras_reads_a_python_float_as_float32_on_tensorflow_and_a_numpy_number_as_it_is():
    steps = []
    for optimizer in (
        keras.optimizers.SGD(1.0, momentum=0.9),
        exact_in_float64(keras.optimizers.SGD(1.0, momentum=0.9)),
    ):
        variable = keras.Variable(np.zeros(1))
        for _ in range(2):
            optimizer.apply([tf.ones(1, "float64")], [variable])
        steps.append(float(variable.numpy()[0]))
    assert steps == [-1.0 - (1.0 + float(np.float32(0.9))), -2.9]


def test_an_optimizer_without_a_twin_is_refused_by_name():
    with pytest.raises(UnsupportedError, match=r"NAdam: this optimizer has no Keras twin here\n  fix: +use one of SGD"):
        map_optimizer(torch.optim.NAdam([torch.nn.Parameter(torch.zeros(1))]))
