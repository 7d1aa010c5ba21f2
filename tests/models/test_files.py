"""The written files: they load where neither PyTorch nor we can be imported, on every backend, and compute the same."""

from __future__ import annotations

from contextlib import ExitStack
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


class Gathered(torch.nn.Module):
    """Places in a batch of any size, two at a time: how many rows there are is counted in the graph."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = torch.arange(x.shape[0])[:, None]
        return x[rows, torch.tensor([[0, 2, 1]])]  # type: ignore[no-any-return]


class InsideNorm(torch.nn.Module):
    """A LayerNorm over the width of an image between two convolutions: not the last axis of Keras' layout."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = torch.nn.Conv2d(3, 6, 1), torch.nn.LayerNorm(6), torch.nn.Conv2d(6, 4, 1)
        torch.nn.init.uniform_(self.norm.weight, 0.5, 1.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.first(x)))  # type: ignore[no-any-return]


def test_what_backends_compute_each_in_their_own_way_agrees_on_all(tmp_path: Path) -> None:
    cases = [
        (Gathered(), torch.randn(2, 3, 4)),
        (InsideNorm(), torch.randn(2, 3, 6, 6)),
        (torch.nn.AdaptiveMaxPool3d((2, 3, 1)), torch.randn(2, 3, 4, 5, 3)),
        (torch.nn.AdaptiveMaxPool3d((2, 3, 4)), torch.randn(2, 3, 4, 5, 1)),
    ]
    with ExitStack() as stack:
        workers = [stack.enter_context(ArtifactWorker(backend)) for backend in BACKENDS]
        for number, (module, x) in enumerate(cases):
            conversion = translator.convert(module.eval(), x, proof=False)
            assert not any(type(layer).__name__ == "AdaptiveMaxPooling3D" for layer in conversion.model.layers)
            path = tmp_path / f"{number}.keras"
            conversion.model.save(path)
            for worker in workers:
                artifact = judge_file(
                    path, module=module, model=conversion.model, claims=conversion.claims, args=(x,), worker=worker
                )
                assert artifact.error == "", (type(module).__name__, worker.backend)
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
