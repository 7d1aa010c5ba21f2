"""A Keras model made for float64: the same weights, every dtype wide, in its file, too."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

from translator.training.batchnorm import with_exact_batchnorm
from translator.training.float64 import made_for_float64


def test_a_model_made_for_float64_is_wide_everywhere_and_stays_so_in_its_file(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(2, 3, name="conv")(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="bn")(x))
    mask = keras.ops.cast(x > 0.5, "float32")
    model = with_exact_batchnorm(keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Flatten()(x * mask))))
    wide = made_for_float64(model)
    assert [v.path for v in wide.variables] == [v.path for v in model.variables]
    for mine, theirs in zip(wide.get_weights(), model.get_weights(), strict=True):
        assert (mine.dtype, theirs.dtype) == (np.float64, np.float32)
        np.testing.assert_array_equal(mine, theirs.astype(np.float64))
    images = rng.normal(size=(2, 4, 4, 3))
    got, narrow = np.asarray(wide(images)), np.asarray(model(images.astype(np.float32)))
    assert got.dtype == np.float64
    assert not np.array_equal(got, np.asarray(wide(images.astype(np.float32))))  # inputs aren't rounded
    np.testing.assert_allclose(got, narrow, rtol=1e-4, atol=1e-5)
    wide.save(tmp_path / "wide.keras")
    np.testing.assert_array_equal(np.asarray(keras.models.load_model(tmp_path / "wide.keras")(images)), got)
    assert {v.dtype for v in model.variables} == {"float32"}
