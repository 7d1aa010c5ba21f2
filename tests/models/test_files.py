"""The written files: they load where neither PyTorch nor we can be imported, on every backend, and compute the same."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
import torchvision

import translator
from models import cifar_resnet
from tests.models.test_conversion import RESNETS, with_statistics
from translator.pipeline import Conversion
from translator.verdict import Artifact
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
            assert loaded(path, conversion, x, worker).transposes == 0


def loaded(path: Path, conversion: Conversion, x: torch.Tensor, worker: ArtifactWorker) -> Artifact:
    """What is found of a file on a worker's backend, which is right."""
    found = judge_file(
        path, module=conversion.module, model=conversion.model, claims=conversion.claims, args=(x,), worker=worker
    )
    assert found.error == "", worker.backend
    assert found.reloaded
    assert (found.lambda_layers, found.custom_layers) == (0, 0)
    assert found.max_rel is not None
    assert found.max_rel < 1e-4
    return found


def test_the_process_that_loads_on_torch_keeps_no_activations(tmp_path: Path) -> None:
    conversion = translator.convert(torch.nn.Linear(2, 3).eval(), torch.randn(2, 2), proof=False)
    conversion.model.save(tmp_path / "model.keras")
    seen = tmp_path / "seen.py"
    seen.write_text("import torch; raise RuntimeError(f'gradients: {torch.is_grad_enabled()}')")
    with ArtifactWorker("torch") as worker:
        answer = worker.ask({"model": str(tmp_path / "model.keras"), "names": [], "classes": [str(seen)], "runs": []})
    assert answer["error"] == "RuntimeError: gradients: False"


class Gathered(torch.nn.Module):
    """Places in a batch of any size, two at a time: how many rows there are is counted in the graph."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = torch.arange(x.shape[0])[:, None]
        return x[rows, torch.tensor([[0, 2, 1]])]  # type: ignore[no-any-return]


class InsideNorm(torch.nn.Module):
    """A normalisation over the width of an image between two convolutions: not the last axis of Keras' layout."""

    def __init__(self, norm: torch.nn.Module) -> None:
        super().__init__()
        self.first, self.norm, self.last = torch.nn.Conv2d(3, 6, 1), norm, torch.nn.Conv2d(6, 4, 1)
        for weight in norm.parameters():
            torch.nn.init.uniform_(weight, 0.5, 1.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.first(x)))  # type: ignore[no-any-return]


IMAGE = (2, 3, 6, 6)
PLAIN = torch.nn.LayerNorm((6, 6), elementwise_affine=False)


def test_what_backends_compute_each_in_their_own_way_agrees_on_all(tmp_path: Path) -> None:
    cases: list[tuple[torch.nn.Module, tuple[int, ...], dict[str, int]]] = [
        (Gathered(), (2, 3, 4), {}),
        (InsideNorm(torch.nn.LayerNorm(6)), IMAGE, {"LayerNormalization": 1, "transpose": 2}),
        (InsideNorm(PLAIN), IMAGE, {"LayerNormalization": 0, "transpose": 0}),
        (InsideNorm(torch.nn.RMSNorm(6)), IMAGE, {"RMSNormalization": 1, "transpose": 2}),
        (torch.nn.Softmax(-1), (2, 3, 2, 2, 2, 3), {"Softmax": 0}),
        (torch.nn.Conv2d(1, 2, (2, 5), stride=(1, 3)), (2, 1, 12, 7), {"Conv2D": 1, "GetItem": 1}),
        (torch.nn.AdaptiveAvgPool2d(7), (2, 3, 2, 3), {"AdaptiveAveragePooling2D": 0}),
        (torch.nn.AdaptiveAvgPool2d(4), (2, 3, 6, 3), {"AdaptiveAveragePooling2D": 1}),
        (torch.nn.AdaptiveMaxPool1d(3), (2, 3, 1), {"AdaptiveMaxPooling1D": 0}),
        (torch.nn.AdaptiveMaxPool2d((3, 1)), (2, 3, 8, 5), {"AdaptiveMaxPooling2D": 0}),
        (torch.nn.AdaptiveMaxPool2d(3), (2, 3, 8, 1), {"AdaptiveMaxPooling2D": 0}),
        (torch.nn.AdaptiveMaxPool3d((2, 3, 1)), (2, 3, 4, 5, 3), {"AdaptiveMaxPooling3D": 0}),
        (torch.nn.AdaptiveMaxPool3d((2, 3, 4)), (2, 3, 4, 5, 1), {"AdaptiveMaxPooling3D": 0}),
    ]
    with ExitStack() as stack:
        workers = [stack.enter_context(ArtifactWorker(backend)) for backend in BACKENDS]
        for number, (module, shape, counts) in enumerate(cases):
            x = torch.randn(shape)
            conversion = translator.convert(module.eval(), x, proof=False)
            made = Counter(type(operation).__name__ for operation in conversion.model.operations)
            path = tmp_path / f"{number}.keras"
            conversion.model.save(path)
            for worker in workers:
                made["transpose"] = loaded(path, conversion, x, worker).transposes
                assert {name: made[name] for name in counts} == counts


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
