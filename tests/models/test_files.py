"""The written files: they load where neither PyTorch nor we can be imported, on every backend, and compute the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision

import translator
from models import cifar_resnet
from tests.models.test_conversion import RESNETS, with_statistics
from translator.verify.artifact import ArtifactWorker, judge_file

pytestmark = pytest.mark.model
BACKENDS = ("tensorflow", "jax", "torch")
DEPTHS = {"cifar": 14, "resnet20": 20, "resnet56": 56, "resnet110": 110}
SLOW = ("resnet20", "resnet56", "resnet110", *RESNETS)
NETWORKS = ["cifar", *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_file_loads_and_agrees_on_every_backend(name: str, tmp_path: Path) -> None:
    cifar = name in DEPTHS
    module = cifar_resnet.resnet_of_depth(DEPTHS[name]) if cifar else getattr(torchvision.models, name)()
    module = with_statistics(module)
    x = torch.randn(2, 3, 32, 32) if cifar else torch.randn(2, 3, 64, 64)
    conversion = translator.convert(module, x, proof=False)
    path = tmp_path / f"{name}.keras"
    conversion.model.save(path)
    for backend in BACKENDS:
        with ArtifactWorker(backend) as worker:
            artifact = judge_file(
                path, module=module, model=conversion.model, claims=conversion.claims, args=(x,), worker=worker
            )
        assert artifact.error == "", backend
        assert artifact.reloaded
        assert (artifact.lambda_layers, artifact.custom_layers, artifact.transposes) == (0, 0, 0)
        assert artifact.max_rel is not None
        assert artifact.max_rel < 1e-4


def test_a_file_that_needs_our_code_is_found_out(tmp_path: Path) -> None:
    import keras

    module = torch.nn.Sequential(torch.nn.ReLU())
    x = torch.randn(2, 4)
    conversion = translator.convert(module, x, proof=False)
    inputs = keras.Input((4,), name="x")
    outputs = keras.layers.Lambda(lambda v: v * (v > 0), output_shape=(4,))(inputs)
    path = tmp_path / "lambda.keras"
    model = keras.Model(inputs, outputs)
    model.save(path)
    artifact = judge_file(path, module=module, model=model, claims=conversion.claims, args=(x,))
    assert not artifact.reloaded
    assert "Lambda" in artifact.error
    assert artifact.lambda_layers == 1


def test_a_file_for_one_batch_only_is_found_out(tmp_path: Path) -> None:
    import keras

    module = torch.nn.Sequential(torch.nn.ReLU())
    x = torch.randn(2, 4)
    conversion = translator.convert(module, x, proof=False)
    inputs = keras.Input((4,), name="x")
    path = tmp_path / "two.keras"
    keras.Model(inputs, keras.ops.relu(keras.ops.reshape(inputs, (2, 4)))).save(path)
    artifact = judge_file(path, module=module, model=conversion.model, claims=conversion.claims, args=(x,))
    assert not artifact.reloaded
    assert "reshape" in artifact.error


def test_a_model_that_is_right_for_the_examples_batch_only_is_found_out(tmp_path: Path) -> None:
    import keras

    module = torch.nn.Sequential(torch.nn.ReLU())
    x = torch.randn(2, 4)
    conversion = translator.convert(module, x, proof=False)
    inputs = keras.Input((4,), name=conversion.model.inputs[0].name)
    rows = keras.ops.sum(keras.ops.ones_like(inputs[:, 0]))
    model = keras.Model(inputs, keras.layers.ReLU(name=conversion.model.layers[-1].name)(inputs * rows / 2))
    path = tmp_path / "rows.keras"
    model.save(path)
    artifact = judge_file(path, module=module, model=model, claims=conversion.claims, args=(x,))
    assert not artifact.reloaded
    assert artifact.error.startswith("at batch 1: computes something else than PyTorch")


def test_a_file_with_another_weight_is_found_out(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 3))
    x = torch.randn(2, 4)
    conversion = translator.convert(module, x, proof=False)
    path = tmp_path / "linear.keras"
    conversion.model.save(path)
    kernel = conversion.model.get_layer(conversion.plan.layers[0].name).kernel
    kernel.assign(kernel + 1e-6)
    artifact = judge_file(path, module=module, model=conversion.model, claims=conversion.claims, args=(x,))
    assert not artifact.reloaded
    assert artifact.error == "1 of 2 weights are others after loading"
