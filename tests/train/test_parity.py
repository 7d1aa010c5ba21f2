"""Parity: right pairs agree in float64 step by step, and each wrong recipe is named."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import torch
from torch import nn

from tests.train.parity_pairs import ADAM, QUICK, SGD, Net, kinds, twin
from translator.errors import InputError
from translator.training.batchnorm import with_exact_batchnorm
from translator.training.parity import ParityOptions, TorchRecipe, parity
from translator.training.parity_report import dumps, from_json
from translator.verdict import Verdict

pytestmark = pytest.mark.train


@pytest.mark.parametrize("recipe", [SGD, ADAM], ids=["sgd", "adam"])
def test_an_exact_twin_trains_like_the_original(recipe, example):
    report = parity(Net(), example, twin(exact=True), recipe=recipe, options=QUICK)
    assert report.verdict is Verdict.EQUAL
    assert report.batchnorm == "exact"
    assert max(row.weight for row in report.steps) < 1e-12
    assert {c.name for c in report.checks} == {
        "losses",
        "gradients of every parameter",
        "weights after every step",
        "BatchNorm means",
        "BatchNorm variances",
        "state of the optimizer",
        "something was learned",
    }


def test_keras_own_batchnorm_differs_in_the_variance_alone_by_the_factor_that_is_predicted(example):
    report = parity(Net(), example, twin(), options=QUICK)
    assert report.verdict is Verdict.EXPLAINED
    (difference,) = report.differences
    assert (difference.kind, difference.layers, difference.allowed) == ("batchnorm-variance", ("bn",), True)
    assert "n/(n − 1) = 1.00465 here (n = 216" in difference.detail
    last = report.steps[-1]
    assert last.predicted < 1e-12 < 1e-4 < last.variance
    assert max(last.weight, last.statistic, last.gradient) < 1e-10


def test_gradients_are_named_in_both_worlds(example):
    report = parity(Net(), example, twin(), options=QUICK)
    named = {row.torch: row.keras for row in report.tensors if row.gradient is not None}
    assert named == {
        "conv.weight": "conv/kernel",
        "bn.weight": "bn/gamma",
        "bn.bias": "bn/beta",
        "fc.weight": "fc/kernel",
        "fc.bias": "fc/bias",
    }


def test_neither_model_is_changed(example):
    module, model = Net(), twin()
    before = [p.clone() for p in module.state_dict().values()], model.get_weights()
    parity(module, example, model, options=QUICK)
    assert all(torch.equal(a, b) for a, b in zip(before[0], module.state_dict().values(), strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(before[1], model.get_weights(), strict=True))
    assert {w.dtype for w in model.weights} == {"float32"}
    assert keras.config.floatx() == "float32"


def test_float32_runs_are_measured_against_pytorch_itself_and_against_float64(example):
    options = ParityOptions(steps=3, batch=6)
    report = parity(Net(), example, twin(), options=options)
    assert [row.step for row in report.noise] == [1, 2, 3]
    for row in report.noise:
        assert 0 < row.keras_exact < 1e-5
        assert 0 < row.torch_exact < 1e-5
        assert abs(row.loss_keras - row.loss_torch) < 1e-4


def test_a_report_survives_json(example):
    report = parity(Net(), example, twin(), options=ParityOptions(steps=2, batch=6))
    assert from_json(json.loads(dumps(report))) == report


def test_a_report_whose_verdict_was_edited_is_refused(example):
    found = json.loads(dumps(parity(Net(), example, twin(momentum=0.99), options=QUICK)))
    with pytest.raises(InputError, match="was edited: it says equal, its findings different"):
        from_json({**found, "verdict": "equal"})


class Quiet(nn.Module):
    """Two biases that began at zero and that a BatchNorm takes away again; and the mean of what has none."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        nn.init.zeros_(self.conv.bias)
        self.bn = nn.BatchNorm2d(4)
        self.again = nn.BatchNorm2d(4, affine=False)
        self.fc = nn.Linear(4 * 4 * 4, 5)

    def forward(self, x):
        return self.fc(torch.relu(self.again(self.bn(self.conv(x)))).flatten(1))


@pytest.mark.parametrize("recipe", [SGD, ADAM], ids=["sgd", "adam"])
def test_what_rounding_alone_has_moved_is_not_taken_for_another_training(recipe, example):
    options = ParityOptions(steps=6, batch=6, exact_batchnorm=True, float32=False)
    report = parity(Quiet(), example, recipe=recipe, options=options)
    assert report.verdict is Verdict.EQUAL
    assert [row.torch for row in report.tensors if row.noise] == ["conv.bias", "bn.bias"]


def test_an_example_of_one_row_is_enough_where_a_batchnorm_needs_two(example):
    class Vector(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.bn = nn.Linear(108, 5), nn.BatchNorm1d(5)

        def forward(self, x):
            return self.bn(self.fc(x.flatten(1)))

    options = ParityOptions(steps=2, batch=6, exact_batchnorm=True, float32=False)
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.Dense(5)(keras.layers.Flatten()(keras.ops.transpose(inputs, (0, 3, 1, 2))))
    model = with_exact_batchnorm(keras.Model(inputs, keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)))
    assert parity(Vector(), example[:1], model, options=options).verdict is Verdict.EQUAL


def test_frozen_layers_are_named(example):
    model = twin(exact=True)
    model.get_layer("conv").trainable = False
    assert "frozen-in-keras" in kinds(parity(Net(), example, model, options=QUICK))


def test_what_is_frozen_in_pytorch_stands_still_in_keras_too(example):
    module = Net()
    module.conv.requires_grad_(requires_grad=False)
    module.bn.requires_grad_(requires_grad=False)
    report = parity(module, example, twin(exact=True), options=QUICK)
    assert report.verdict is Verdict.EQUAL
    assert {row.torch: row.weight for row in report.tensors if row.gradient is None and row.kind == "parameter"} == {
        "conv.weight": 0.0, "bn.weight": 0.0, "bn.bias": 0.0,
    }  # fmt: skip
    assert "3 variables whose parameters stand in no group, or are frozen" in " ".join(report.notes)


def test_a_module_that_stays_random_in_training_is_refused(example):
    class Noisy(Net):
        def forward(self, x):
            return super().forward(torch.nn.functional.dropout(x, 0.5, self.training))

    with pytest.raises(InputError, match="two results for one input in training: something in it is random"):
        parity(Noisy(), example, twin(), options=QUICK)


def test_a_module_without_trainable_parameters_is_refused(example):
    module = Net()
    module.requires_grad_(requires_grad=False)
    with pytest.raises(InputError, match="no parameter is trainable: there is nothing to train"):
        parity(module, example, twin(exact=True), options=QUICK)


def test_parameter_groups_frozen_parameters_and_a_schedule_are_taken_over(example):
    def groups(module):
        return torch.optim.SGD(
            [
                {"params": [module.conv.weight], "lr": 0.05, "weight_decay": 0.1},
                {"params": [module.bn.weight, module.bn.bias]},
                {"params": [module.fc.weight]},
            ],
            lr=0.01,
            momentum=0.9,
        )

    recipe = TorchRecipe(
        loss=nn.CrossEntropyLoss(label_smoothing=0.1),
        optimizer=groups,
        scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=1, gamma=0.5),
        steps_per_epoch=2,
    )
    report = parity(Net(), example, twin(exact=True), recipe=recipe, options=ParityOptions(steps=6, float32=False))
    assert report.verdict is Verdict.EQUAL
    assert report.recipe["optimizer"].keras == "keras.optimizers.MultiOptimizer"


def test_a_translated_model_trains_like_the_original(example):
    class Dropped(Net):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x):
            return self.drop(super().forward(x))

    options = ParityOptions(steps=4, batch=6, exact_batchnorm=True, float32=False)
    report = parity(Dropped(), example, recipe=ADAM, options=options)
    assert report.verdict is Verdict.EQUAL
    assert "drop" in report.silenced


def test_the_sum_of_two_biases_begins_in_float64_without_the_rounding_of_float32(rng):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x):
            return self.lstm(x)[0][:, -1]

    module, example = Recurrent(), torch.tensor(rng.normal(size=(2, 5, 3)), dtype=torch.float32)
    nn.init.constant_(module.lstm.bias_ih_l0, 1 / 3)
    nn.init.constant_(module.lstm.bias_hh_l0, 1e-3)
    report = parity(module, example, recipe=SGD, options=QUICK)
    assert report.verdict is Verdict.EQUAL
    assert max(row.gradient for row in report.steps) < 1e-12


def test_the_two_biases_of_an_lstm_move_its_one_keras_bias_twice_as_fast(rng):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(3, 4, batch_first=True)
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(self.lstm(x)[0][:, -1])

    example = torch.tensor(rng.normal(size=(2, 5, 3)), dtype=torch.float32)
    inputs = keras.Input((5, 3))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.LSTM(4)(inputs)))
    for optimizer in (
        lambda m: torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01),
        lambda m: torch.optim.AdamW(m.parameters(), lr=0.01),
    ):
        recipe = TorchRecipe(loss=nn.CrossEntropyLoss(), optimizer=optimizer)
        report = parity(Recurrent(), example, model, recipe=recipe, options=QUICK)
        assert report.verdict is Verdict.EQUAL
        assert max(row.weight for row in report.steps) < 1e-12
