"""What `parity` says of a recipe of the user's own: right ones are accepted, and each wrong one has its name."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import torch
from torch import nn

from tests.train.parity_pairs import ADAM, QUICK, SGD, Net, compiled, kinds, twin
from translator.errors import InputError
from translator.training import registered
from translator.training.parity import KerasRecipe, ParityOptions, TorchRecipe, parity
from translator.verdict import Verdict

pytestmark = pytest.mark.train


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


def test_a_batchnorm_that_is_frozen_in_keras_alone_is_named(example):
    module = Net()
    module.bn.requires_grad_(requires_grad=False)
    model = twin()
    model.get_layer("bn").trainable = False
    (difference,) = (d for d in parity(module, example, model, options=QUICK).differences if not d.allowed)
    assert (difference.kind, difference.layers) == ("batchnorm-frozen", ("bn",))
    assert "trainable=True" in difference.fix


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: registered.TorchAdamW(1e-3, weight_decay=0.1),
        lambda: keras.optimizers.Adam(1e-3, epsilon=1e-8, weight_decay=0.1),
    ],
)
def test_decoupled_weight_decay_in_place_of_l2_is_named(optimizer, example):
    recipe = TorchRecipe(
        loss=nn.CrossEntropyLoss(), optimizer=lambda m: torch.optim.Adam(m.parameters(), lr=1e-3, weight_decay=0.1)
    )
    model = compiled(twin(exact=True), optimizer=optimizer())
    (difference,) = parity(Net(), example, model, recipe=recipe, options=QUICK).differences
    assert difference.kind == "optimizer"
    assert "another rule" in difference.keras


def test_a_group_of_parameters_with_another_setting_is_named(example):
    def groups(module):
        return torch.optim.SGD(
            [{"params": module.fc.parameters()}, {"params": module.conv.parameters(), "lr": 0.002}], lr=0.01
        )

    recipe = TorchRecipe(loss=nn.CrossEntropyLoss(), optimizer=groups)

    def several(rate):
        default, conv = keras.optimizers.SGD(0.01), keras.optimizers.SGD(rate)
        rest = keras.optimizers.SGD(0.0)
        table = keras.optimizers.OptimizerMap(default, {"conv/.*": conv, "bn/.*": rest})
        return compiled(twin(exact=True), optimizer=keras.optimizers.MultiOptimizer(table))

    assert not kinds(parity(Net(), example, several(0.002), recipe=recipe, options=QUICK))
    (difference,) = parity(Net(), example, several(0.003), recipe=recipe, options=QUICK).differences
    assert (difference.kind, difference.layers) == ("optimizer-learning_rate", ("optimizer of conv/kernel",))


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


@pytest.mark.parametrize(
    "prepare",
    [
        lambda x, y: (nhwc(x)[:, :, ::-1], y),
        lambda x, y: (np.pad(nhwc(x), ((0, 0), (2, 2), (2, 2), (0, 0)))[:, 1:7, 3:9], y),
    ],
    ids=["mirrored", "moved"],
)
def test_images_augmented_on_one_side_alone_are_named(prepare, example):
    report = judged(prepare, example)
    assert kinds(report) == {"batch-augmented"}
    assert report.differences[0].keras.startswith("of 6 images")


def test_another_order_within_the_batches_is_said_and_trains_alike(example):
    report = judged(lambda x, y: (nhwc(x)[::-1], y[::-1]), example)
    assert report.verdict is Verdict.EXPLAINED
    assert [d.kind for d in report.differences] == ["batch-order"]


@pytest.mark.parametrize(
    "prepare",
    [lambda x, y: (nhwc(x)[::-1], y), lambda x, y: (nhwc(x), np.roll(y, 1)), lambda x, y: (nhwc(x), (y + 1) % 5)],
    ids=["images alone", "labels alone", "from one"],
)
def test_labels_of_other_examples_are_named(prepare, example):
    assert "labels" in kinds(judged(prepare, example))


@pytest.mark.parametrize(
    ("torch_loss", "setting"),
    [
        (nn.CrossEntropyLoss(label_smoothing=0.1), "label_smoothing"),
        (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])), "weight"),
        (nn.CrossEntropyLoss(reduction="sum"), "reduction"),
    ],
    ids=["label smoothing", "class weights", "sum"],
)
def test_a_setting_that_a_loss_leaves_out_is_named(torch_loss, setting, example):
    recipe = TorchRecipe(loss=torch_loss, optimizer=SGD.optimizer)
    report = parity(Net(), example, compiled(twin(exact=True)), recipe=recipe, options=QUICK)
    assert kinds(report) == {f"loss-{setting}"}
    assert report.differences[0].torch.startswith(f"CrossEntropyLoss({setting}=")


def stepped(m):
    return torch.optim.SGD(m.parameters(), lr=0.01, momentum=0.9)


STEPPED = TorchRecipe(
    loss=nn.CrossEntropyLoss(),
    optimizer=stepped,
    scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=1, gamma=0.5),
    steps_per_epoch=3,
)
SIX = ParityOptions(steps=6, batch=6, float32=False)


@pytest.mark.parametrize(
    ("optimizer", "wrong"),
    [
        (lambda rate: registered.TorchSGD(rate, momentum=0.9), set()),
        (lambda rate: registered.TorchSGD(0.01, momentum=0.9), {"optimizer-schedule"}),
        (lambda rate: registered.TorchSGD(0.01, momentum=0.8), {"optimizer-schedule", "optimizer-momentum"}),
        (lambda rate: keras.optimizers.SGD(rate, momentum=0.9), {"optimizer"}),
        (lambda rate: keras.optimizers.SGD(0.01, momentum=0.9), {"optimizer-schedule", "optimizer"}),
    ],
    ids=["right", "no schedule", "and another momentum", "the rate in the momentum", "both"],
)
def test_a_wrong_schedule_is_named_at_the_step_where_it_begins(optimizer, wrong, example):
    half = keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.01, 0.005])
    model = compiled(twin(exact=True), optimizer=optimizer(half))
    report = parity(Net(), example, model, recipe=STEPPED, options=SIX)
    assert kinds(report) == wrong
    for difference in report.differences:
        if difference.kind == "optimizer-schedule":
            assert difference.torch == "a rate of 0.005 at step 4"


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
