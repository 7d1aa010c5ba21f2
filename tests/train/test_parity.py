"""Parity: right pairs agree in float64 step by step, and each wrong recipe is named."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import torch
from torch import nn

from translator.errors import InputError
from translator.training.batchnorm import with_exact_batchnorm
from translator.training.parity import KerasRecipe, ParityOptions, TorchRecipe, parity
from translator.training.parity_report import dumps, from_json
from translator.verdict import Verdict

pytestmark = pytest.mark.train
QUICK = ParityOptions(steps=4, batch=6, float32=False)


class Net(nn.Module):
    """conv BN ReLU, and a linear head on the flattened map."""

    def __init__(self, head=5):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4 * 6 * 6, head)

    def forward(self, x):
        return self.fc(torch.relu(self.bn(self.conv(x))).flatten(1))


def twin(*, momentum=0.9, epsilon=1e-5, activation=None, bias=False, exact=False):
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", use_bias=bias, name="conv")(inputs)
    x = keras.layers.BatchNormalization(momentum=momentum, epsilon=epsilon, name="bn")(x)
    x = keras.layers.Flatten()(keras.layers.ReLU()(x))
    model = keras.Model(inputs, keras.layers.Dense(5, activation=activation, name="fc")(x), name="twin")
    return with_exact_batchnorm(model) if exact else model


def compiled(model, *, loss=None, optimizer=None):
    model.compile(
        loss=loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        optimizer=optimizer or keras.optimizers.SGD(0.01, momentum=0.9),
    )
    return model


@pytest.fixture
def example(rng):
    return torch.tensor(rng.normal(size=(2, 3, 6, 6)), dtype=torch.float32)


def adam(module):
    return torch.optim.Adam(module.parameters(), lr=1e-3)


ADAM = TorchRecipe(loss=nn.CrossEntropyLoss(), optimizer=adam)
SGD = TorchRecipe(
    loss=nn.CrossEntropyLoss(), optimizer=lambda m: torch.optim.SGD(m.parameters(), lr=0.01, momentum=0.9)
)


def kinds(report):
    return {d.kind for d in report.differences if not d.allowed}


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


def test_the_right_recipe_of_the_users_own_is_accepted(example):
    report = parity(Net(), example, compiled(twin(exact=True)), recipe=SGD, options=QUICK)
    assert report.verdict is Verdict.EQUAL
    assert report.recipe["optimizer"].keras == "SGD of the model's own"


def test_keras_default_adam_epsilon_is_named(example):
    model = compiled(twin(exact=True), optimizer=keras.optimizers.Adam(1e-3))
    report = parity(Net(), example, model, recipe=ADAM, options=QUICK)
    assert report.verdict is Verdict.DIFFERENT
    (difference,) = report.differences
    assert difference.kind == "optimizer-epsilon"
    assert (difference.torch, difference.keras) == ("epsilon=1e-08", "epsilon=1e-07")
    assert "TorchAdam" in difference.fix
    assert "weight of" in report.first_wrong


def test_keras_adam_with_pytorchs_epsilon_still_adds_it_elsewhere(example):
    model = compiled(twin(exact=True), optimizer=keras.optimizers.Adam(1e-3, epsilon=1e-8))
    (difference,) = parity(Net(), example, model, recipe=ADAM, options=QUICK).differences
    assert difference.kind == "optimizer"
    assert "Adam (another rule)" in difference.keras
    assert "before the bias correction" in difference.fix


@pytest.mark.parametrize(
    ("optimizer", "kind"),
    [
        (lambda: keras.optimizers.SGD(0.02, momentum=0.9), "optimizer-learning_rate"),
        (lambda: keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True), "optimizer-nesterov"),
        (lambda: keras.optimizers.SGD(0.01, momentum=0.9, weight_decay=0.1), "optimizer-weight_decay"),
    ],
)
def test_another_setting_of_the_optimizer_is_named(optimizer, kind, example):
    model = compiled(twin(exact=True), optimizer=optimizer())
    assert kinds(parity(Net(), example, model, recipe=SGD, options=QUICK)) == {kind}


def test_keras_default_batchnorm_momentum_is_measured_and_named(example):
    report = parity(Net(), example, twin(momentum=0.99), options=QUICK)
    assert report.verdict is Verdict.DIFFERENT
    (difference,) = [d for d in report.differences if not d.allowed]
    assert (difference.kind, difference.layers) == ("batchnorm-momentum", ("bn",))
    assert difference.keras == "momentum=0.99: keeps 0.99"
    assert difference.fix == "BatchNormalization(momentum=0.9)"


def test_probabilities_in_place_of_logits_are_named(example):
    model = compiled(twin(exact=True, activation="softmax"), loss=keras.losses.SparseCategoricalCrossentropy())
    report = parity(Net(), example, model, recipe=SGD, options=QUICK)
    assert kinds(report) == {"probabilities"}
    (difference,) = report.differences
    assert (difference.torch, difference.keras) == ("logits", "probabilities: softmax of PyTorch's outputs")


def test_a_loss_of_probabilities_on_logits_is_named(example):
    model = compiled(twin(exact=True), loss=keras.losses.SparseCategoricalCrossentropy())
    report = parity(Net(), example, model, recipe=SGD, options=QUICK)
    assert kinds(report) == {"from-logits"}
    assert report.differences[0].fix == "keras.losses.SparseCategoricalCrossentropy(from_logits=True)"


def test_integer_labels_in_a_categorical_loss_are_named(example):
    model = compiled(twin(exact=True), loss=keras.losses.CategoricalCrossentropy(from_logits=True))
    report = parity(Net(), example, model, recipe=SGD, options=QUICK)
    assert kinds(report) == {"labels"}
    assert "integer labels (6,) in CategoricalCrossentropy" in report.differences[0].keras


def recipe_with(prepare):
    return KerasRecipe(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        optimizer=keras.optimizers.SGD(0.01, momentum=0.9),
        prepare=prepare,
    )


def judged(prepare, example):
    return parity(Net(), example, twin(exact=True), recipe=SGD, keras_recipe=recipe_with(prepare), options=QUICK)


def nhwc(images):
    return images.transpose(0, 2, 3, 1)


def test_one_hot_labels_in_a_sparse_loss_are_named(example):
    report = judged(lambda x, y: (nhwc(x), keras.utils.to_categorical(y, 5)), example)
    assert kinds(report) == {"labels"}
    assert "one-hot labels (6, 5) in SparseCategoricalCrossentropy" in report.differences[0].keras


@pytest.mark.parametrize(
    ("prepare", "kind"),
    [
        (lambda x, y: (x, y), "batch-layout"),
        (lambda x, y: (x.reshape(6, 6, 6, 3), y), "batch-layout"),
        (lambda x, y: (nhwc(x) / 255, y), "batch-values"),
    ],
    ids=["nchw", "reshaped", "scaled"],
)
def test_batches_of_another_layout_or_scale_are_named(prepare, kind, example):
    assert kinds(judged(prepare, example)) == {kind}


def test_a_right_pipeline_with_labels_of_shape_n_1_is_accepted(example):
    assert judged(lambda x, y: (nhwc(x), y[:, None]), example).verdict is Verdict.EQUAL


def test_a_right_pipeline_with_one_hot_labels_is_accepted(example):
    recipe = KerasRecipe(
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        optimizer=keras.optimizers.SGD(0.01, momentum=0.9),
        prepare=lambda x, y: (nhwc(x), keras.utils.to_categorical(y, 5)),
    )
    report = parity(Net(), example, twin(exact=True), recipe=SGD, keras_recipe=recipe, options=QUICK)
    assert report.verdict is Verdict.EQUAL
    assert report.recipe["loss"].keras == "CategoricalCrossentropy of the model's own"


def test_a_pipeline_alone_is_judged_with_the_mapped_loss_and_optimizer(example):
    for prepare, wrong in ((lambda x, y: (nhwc(x), y), set()), (lambda x, y: (x, y), {"batch-layout"})):
        recipe = KerasRecipe(prepare=prepare)
        report = parity(Net(), example, twin(exact=True), recipe=SGD, keras_recipe=recipe, options=QUICK)
        assert kinds(report) == wrong


def test_a_pipeline_that_raises_is_said_to(example):
    with pytest.raises(InputError, match="the pipeline of the Keras side raised: KeyError"):
        judged(lambda x, y: {}["images"], example)


@pytest.mark.parametrize(
    ("loss", "kind"),
    [
        ("sparse_categorical_crossentropy", {"from-logits"}),
        ("crossentropy", {"from-logits"}),
        ("categorical_crossentropy", {"labels", "from-logits"}),
        ("mse", {"loss"}),
        (lambda y, p: keras.losses.sparse_categorical_crossentropy(y, p, from_logits=True), set()),
        ([keras.losses.SparseCategoricalCrossentropy(from_logits=True)], set()),
    ],
    ids=["sparse", "crossentropy", "categorical", "mse", "function", "list"],
)
def test_a_loss_by_name_or_a_function_is_what_compile_makes_of_it(loss, kind, example):
    report = parity(Net(), example, compiled(twin(exact=True), loss=loss), recipe=SGD, options=QUICK)
    assert kinds(report) == kind


def test_a_regulariser_is_named(example):
    model = twin(exact=True)
    model.get_layer("fc").kernel_regularizer = keras.regularizers.L2(0.01)
    report = parity(Net(), example, model, options=QUICK)
    assert kinds(report) == {"regulariser"}
    assert report.differences[0].layers == ("fc",)


def test_clipped_gradients_are_named(example):
    model = compiled(twin(exact=True), optimizer=keras.optimizers.SGD(0.01, momentum=0.9, clipnorm=0.1))
    assert kinds(parity(Net(), example, model, recipe=SGD, options=QUICK)) == {"optimizer-clipnorm"}


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


def test_several_faults_are_all_named_at_once(example):
    model = compiled(
        twin(momentum=0.99, bias=True, activation="softmax"), optimizer=keras.optimizers.Adam(1e-3, epsilon=1e-7)
    )
    report = parity(Net(), example, model, recipe=ADAM, options=QUICK)
    assert kinds(report) == {"batchnorm-momentum", "probabilities", "optimizer-epsilon", "only-in-keras"}


def test_another_function_is_named_as_such(example):
    report = parity(Net(), example, twin(exact=True, epsilon=1e-3), options=QUICK)
    assert "function" in kinds(report)
    assert report.first_wrong.startswith("step 1, gradient of")


def test_probabilities_are_named_beside_another_function(example):
    model = compiled(
        twin(exact=True, epsilon=1e-3, activation="softmax"), loss=keras.losses.SparseCategoricalCrossentropy()
    )
    assert kinds(parity(Net(), example, model, recipe=SGD, options=QUICK)) == {"function", "probabilities"}


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
