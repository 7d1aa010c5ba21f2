"""Both frameworks are fed the same numbers, epoch by epoch, whoever asks and wherever it resumes."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from translator.data.batches import epoch_batches
from translator.data.dataset import Dataset
from translator.training.loaders import keras_epochs, tensorflow_epoch, tensorflow_epochs, to_keras_arrays, torch_epoch

pytestmark = [pytest.mark.train]
SETTINGS = {"batch_size": 4, "seed": 3}


@pytest.fixture
def data(rng):
    images = rng.integers(0, 256, size=(10, 6, 6, 3), dtype=np.uint8)
    return Dataset(
        train_x=images,
        train_y=np.arange(10) % 3,
        test_x=images[:2],
        test_y=np.array([0, 1]),
        classes=("a", "b", "c"),
        mean=np.zeros(3),
        std=np.ones(3),
    )


def test_batches_are_equal_bit_for_bit_in_both_frameworks(data):
    epochs = keras_epochs(data, **SETTINGS)
    for epoch in range(3):
        epochs.on_epoch_begin()
        batches = list(torch_epoch(data, epoch=epoch, **SETTINGS))
        assert len(batches) == len(epochs) == 3
        for index, (images, labels) in enumerate(batches):
            got_images, got_labels = epochs[index]
            np.testing.assert_array_equal(got_images, images.numpy().transpose(0, 2, 3, 1))
            np.testing.assert_array_equal(got_labels[:, 0], labels.numpy())
            assert (images.dtype.is_floating_point, str(labels.dtype)) == (True, "torch.int64")
            assert got_images.dtype == np.float32


def test_tf_data_gives_the_same_batches(data):
    for (images, labels), (got_images, got_labels) in zip(
        torch_epoch(data, epoch=1, **SETTINGS), tensorflow_epoch(data, epoch=1, **SETTINGS), strict=True
    ):
        np.testing.assert_array_equal(got_images.numpy(), images.numpy().transpose(0, 2, 3, 1))
        np.testing.assert_array_equal(got_labels.numpy()[:, 0], labels.numpy())


@pytest.mark.parametrize(("form", "shape"), [("column", (2, 1)), ("flat", (2,)), ("one-hot", (2, 3))])
def test_labels_come_in_each_form(data, form, shape):
    _, labels = to_keras_arrays(data.test_x, data.test_y, 3, form)
    assert labels.shape == shape
    np.testing.assert_array_equal(labels.argmax(-1) if form == "one-hot" else labels.reshape(2), data.test_y)


@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize(("loader", "steps"), [(keras_epochs, None), (tensorflow_epochs, 3)])
def test_fit_learns_from_each_epochs_batches_in_their_order_also_when_it_resumes(data, first, loader, steps):
    """What fit learned is what the expected batches teach, one by one."""

    def model():
        inputs = keras.Input((6, 6, 3))
        made = keras.Model(inputs, keras.layers.Dense(3, kernel_initializer="zeros")(keras.layers.Flatten()(inputs)))
        made.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), optimizer="sgd")
        return made

    fitted, taught = model(), model()
    fitted.fit(
        loader(data, first_epoch=first, **SETTINGS),
        initial_epoch=first,
        steps_per_epoch=steps,
        epochs=first + 3,
        shuffle=False,
        verbose=0,
    )
    for epoch in range(first, first + 3):
        for images, labels in epoch_batches(data, epoch=epoch, **SETTINGS):
            taught.train_on_batch(*to_keras_arrays(images, labels, 3))
    for got, want in zip(fitted.get_weights(), taught.get_weights(), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)
