"""The exact BatchNorm keeps PyTorch's running statistics; Keras' own differs by the factor that is known."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from translator.claims import Claims
from translator.cli import cli
from translator.engines.result import EngineResult
from translator.errors import InputError
from translator.keras_source import load_keras
from translator.training.batchnorm import with_exact_batchnorm, with_exact_result, with_native_batchnorm
from translator.training.registered import ExactBatchNormalization

pytestmark = [pytest.mark.train]
law = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def torch_layer(shape, momentum, *, affine=True):
    cls = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d}[len(shape)]
    return cls(shape[1], momentum=momentum, affine=affine).double().train()


def channels_last(array):
    return np.moveaxis(array, 1, -1)


@law
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from([(5, 3), (4, 3, 2), (2, 3, 3, 2), (2, 1, 1, 1)]),
    momentum=st.sampled_from([0.1, 0.01, 1.0, None]),
    affine=st.booleans(),
)
@pytest.mark.usefixtures("float64")
def test_outputs_and_statistics_are_pytorchs_after_every_batch(seed, shape, momentum, affine):
    rng = np.random.default_rng(seed)
    theirs = torch_layer(shape, momentum, affine=affine)
    ours = ExactBatchNormalization(momentum=None if momentum is None else 1 - momentum, center=affine, scale=affine)
    for _ in range(4):
        batch = rng.normal(loc=2.0, scale=3.0, size=shape)
        want = theirs(torch.tensor(batch)).detach().numpy()
        got = ours(channels_last(batch), training=True)
        np.testing.assert_allclose(np.asarray(got), channels_last(want), rtol=0, atol=1e-12)
        np.testing.assert_allclose(np.asarray(ours.moving_mean), theirs.running_mean.numpy(), rtol=1e-12)
        np.testing.assert_allclose(np.asarray(ours.moving_variance), theirs.running_var.numpy(), rtol=1e-12)
    theirs.eval()
    want = theirs(torch.tensor(batch)).detach().numpy()
    np.testing.assert_allclose(np.asarray(ours(channels_last(batch))), channels_last(want), rtol=0, atol=1e-12)


def test_a_frozen_layer_keeps_its_statistics(rng):
    layer = ExactBatchNormalization()
    layer.build((None, 3))
    layer.trainable = False
    layer(rng.normal(size=(4, 3)), training=True)
    np.testing.assert_array_equal(np.asarray(layer.moving_mean), np.zeros(3))


def test_one_value_per_channel_has_no_variance_and_is_nan_where_pytorch_raises():
    layer = ExactBatchNormalization()
    layer(np.ones((1, 3), "float32"), training=True)
    assert np.isnan(np.asarray(layer.moving_variance)).all()


def test_a_mask_and_renorm_are_refused():
    with pytest.raises(ValueError, match="neither renorm nor synchronized"):
        ExactBatchNormalization(synchronized=True)
    layer = ExactBatchNormalization()
    with pytest.raises(ValueError, match="knows no mask"):
        layer.call(np.ones((2, 3, 4), "float32"), training=True, mask=np.ones((2, 3), bool))


def nested():
    inside = keras.Input((4, 4, 2))
    block = keras.Model(
        inside, keras.layers.BatchNormalization(momentum=0.7, epsilon=1e-3, name="bn")(inside), name="b"
    )
    inputs = keras.Input((4, 4, 2))
    x = keras.layers.BatchNormalization(axis=1, name="first", scale=False)(inputs)
    return keras.Model(inputs, keras.ops.relu(block(x)), name="nested")


def test_every_batchnorm_is_replaced_in_nested_models_and_the_function_stays(rng):
    model = nested()
    model.set_weights([rng.uniform(0.5, 2.0, size=w.shape) for w in model.get_weights()])
    exact = with_exact_batchnorm(model)
    kinds = [type(layer).__name__ for layer in exact._flatten_layers() if "BatchNorm" in type(layer).__name__]
    assert kinds == ["ExactBatchNormalization"] * 2
    assert [v.path for v in exact.variables] == [v.path for v in model.variables]
    batch = rng.normal(size=(3, 4, 4, 2)).astype("float32")
    np.testing.assert_array_equal(np.asarray(exact(batch)), np.asarray(model(batch)))
    layer = exact.get_layer("b").get_layer("bn")
    assert (layer.momentum, layer.epsilon, exact.get_layer("first").scale) == (0.7, 1e-3, False)


def test_an_exact_model_survives_its_file_and_goes_back_to_keras_own(tmp_path, rng):
    exact = with_exact_batchnorm(nested(), cumulative={"first"})
    batch = rng.normal(size=(3, 4, 4, 2)).astype("float32")
    exact(batch, training=True)
    exact.save(tmp_path / "exact.keras")
    loaded = keras.models.load_model(tmp_path / "exact.keras")
    for _ in range(2):
        exact(batch + 1, training=True)
        loaded(batch + 1, training=True)
    for mine, theirs in zip(exact.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    with pytest.raises(ValueError, match=r"first: keras\.layers\.BatchNormalization has no cumulative average"):
        with_native_batchnorm(exact)
    back = with_native_batchnorm(with_exact_batchnorm(nested()))
    assert not any("Exact" in type(layer).__name__ for layer in back._flatten_layers())


def test_a_model_without_batchnorm_is_given_back_as_it_is():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    assert with_exact_batchnorm(model) is model


NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.BatchNorm2d(4)

    def forward(self, x):
        return self.bn(self.conv(x)).flatten(1)

def example_inputs():
    return torch.zeros(2, 3, 6, 6)
"""


def test_convert_builds_it_on_request_and_the_file_is_judged_and_loaded_like_any_other(tmp_path):
    """The fresh process that judges the file is given the class, and nothing else of ours."""
    (tmp_path / "net.py").write_text(NET)
    output = tmp_path / "exact.keras"
    result = CliRunner().invoke(cli, ["convert", f"{tmp_path}/net.py:Net", "-o", str(output), "--exact-batchnorm"])
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "import translator.training.registered" in said
    assert "1 custom" in said
    assert type(load_keras(str(output)).model.get_layer("bn")) is ExactBatchNormalization


def test_an_engine_without_bindings_builds_none():
    result = EngineResult(model=nested(), claims=Claims(inputs=(), outputs=()), load_state=None)
    with pytest.raises(InputError, match="--exact-batchnorm needs --engine native"):
        with_exact_result(result, torch.nn.Identity())
