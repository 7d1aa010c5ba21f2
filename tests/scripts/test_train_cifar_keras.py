"""scripts/train_cifar_keras.py: learns what the PyTorch loop learns, goes on from either, loads in every form."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import ModuleType

import click
import keras
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from scripts import train_cifar as on_torch
from scripts import train_cifar_keras as on_keras
from scripts.cifar_recipe import chosen_recipe, load_data
from tests.scripts.small_cifar import TINY, small_cifar

SCRIPTS = Path(__file__).parents[2] / "scripts"
pytestmark = pytest.mark.train


def run(script: ModuleType, *arguments: object) -> Result:
    return CliRunner().invoke(script.main, list(map(str, arguments)))


def done(script: ModuleType, *arguments: object) -> Result:
    result = run(script, *arguments)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_cifar(tmp_path_factory.mktemp("cifar"))


@pytest.fixture(scope="module")
def torch_run(batches: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs in PyTorch: the checkpoint; its state and its history stand beside it."""
    output = tmp_path_factory.mktemp("torch") / "resnet.ckpt"
    history = output.with_name("history.csv")
    done(on_torch, "--data", batches, *TINY, "--epochs", 2, "-o", output, "--history", history)
    return output


@pytest.fixture(scope="module")
def keras_run(batches: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One epoch in Keras, with every form that --export writes."""
    output = tmp_path_factory.mktemp("keras") / "resnet.keras"
    history = output.with_name("history.csv")
    done(on_keras, "--data", batches, *TINY, "--epochs", 1, "-o", output, "--history", history, "--export")
    return output


def history(output: Path) -> list[dict[str, float]]:
    with output.with_name("history.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def test_both_scripts_learn_the_same_from_the_same_start(torch_run: Path, keras_run: Path) -> None:
    for theirs, ours in zip(history(torch_run)[:1], history(keras_run), strict=True):
        assert ours["epoch"] == theirs["epoch"] == 1
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
        assert ours["learning_rate"] == pytest.approx(theirs["learning_rate"], rel=1e-6)


def test_in_float64_both_scripts_learn_the_same_but_for_rounding(batches: Path, tmp_path: Path) -> None:
    """Adam multiplies rounding where gradients are tiny: 5e-12 was measured after these five steps."""
    exact = ("--data", batches, *TINY, "--epochs", 1, "--precision", "float64")
    state = tmp_path / "keras.state"
    done(on_torch, *exact, "-o", tmp_path / "resnet.ckpt", "--history", tmp_path / "history.csv")
    done(on_keras, *exact, "-o", tmp_path / "resnet.keras", "--to-torch", state, "--history", tmp_path / "over.csv")
    want = torch.load(tmp_path / "resnet.ckpt.state", weights_only=True)
    got = torch.load(state, weights_only=True)
    assert got["recipe"] == want["recipe"]
    assert got["recipe"]["precision"] == "float64"
    assert {t.dtype for t in got["model"].values()} == {torch.float64, torch.int64}
    assert apart(want["model"], got["model"]) < 1e-9
    with (tmp_path / "history.csv").open() as theirs, (tmp_path / "over.csv").open() as ours:
        (a,), (b,) = csv.DictReader(theirs), csv.DictReader(ours)
    assert float(b["loss"]) == pytest.approx(float(a["loss"]), rel=1e-12)
    assert b["right"] == a["right"]
    assert keras.config.floatx() == "float32"


@pytest.mark.slow
def test_a_resumed_run_ends_where_one_in_one_go_does(batches: Path, keras_run: Path, tmp_path: Path) -> None:
    output, in_one_go = tmp_path / "resnet.keras", tmp_path / "whole.keras"
    output.write_bytes(keras_run.read_bytes())
    done(on_keras, "--data", batches, *TINY, "--epochs", 2, "-o", in_one_go)
    said = done(on_keras, "--data", batches, *TINY, "--epochs", 2, "-o", output, "--resume").output
    assert "Epoch 1/2" not in said
    assert "Epoch 2/2" in said
    whole, resumed = keras.models.load_model(in_one_go), keras.models.load_model(output)
    assert int(whole.optimizer.iterations) == int(resumed.optimizer.iterations) == 10
    for want, got in zip(whole.variables, resumed.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(got), np.asarray(want))


def test_a_state_goes_over_to_keras_and_back_bit_for_bit(batches: Path, torch_run: Path, tmp_path: Path) -> None:
    state, back = torch_run.with_name("resnet.ckpt.state"), tmp_path / "back.state"
    there = ("--from-torch", state, "--to-torch", back)
    done(on_keras, "--data", batches, *TINY, "--epochs", 2, "-o", tmp_path / "resnet.keras", *there)
    want, got = (torch.load(path, weights_only=True) for path in (state, back))
    assert want["recipe"] == got["recipe"]
    assert want["epoch"] == got["epoch"] == 2
    assert want["model"].keys() == got["model"].keys()
    assert [name for name in want["model"] if not torch.equal(want["model"][name], got["model"][name])] == []
    for number, slots in want["optimizer"]["state"].items():
        for key, value in slots.items():
            assert torch.equal(value, got["optimizer"]["state"][number][key]), (number, key)


def apart(want: dict[str, torch.Tensor], got: dict[str, torch.Tensor]) -> float:
    """The largest difference between two models' tensors."""
    return max(float((got[name].double() - tensor.double()).abs().max()) for name, tensor in want.items())


@pytest.mark.slow
def test_training_goes_on_in_the_other_framework(batches: Path, torch_run: Path, tmp_path: Path) -> None:
    """Two epochs in PyTorch and one in Keras are three in PyTorch; without Adam's state they would not be.

    Five steps of Adam move a weight by up to 5e-3, and multiply rounding where gradients are tiny: 1.1e-4 was measured.
    """
    state, output = torch_run.with_name("resnet.ckpt.state"), tmp_path / "resnet.ckpt"
    forgetful = torch.load(state, weights_only=True)
    for slots in forgetful["optimizer"]["state"].values():
        slots.update({key: torch.zeros_like(value) for key, value in slots.items() if key != "step"})
    torch.save(forgetful, tmp_path / "forgetful.state")
    ends = {}
    for name, start in (("kept", state), ("lost", tmp_path / "forgetful.state")):
        over = ("--from-torch", start, "--to-torch", tmp_path / f"{name}.state")
        done(on_keras, "--data", batches, *TINY, "--epochs", 3, "-o", tmp_path / f"{name}.keras", *over)
        ends[name] = torch.load(tmp_path / f"{name}.state", weights_only=True)
    output.with_name("resnet.ckpt.state").write_bytes(state.read_bytes())
    done(on_torch, "--data", batches, *TINY, "--epochs", 3, "-o", output, "--resume")
    want = torch.load(tmp_path / "resnet.ckpt.state", weights_only=True)
    assert want["epoch"] == ends["kept"]["epoch"] == 3
    assert apart(want["model"], ends["kept"]["model"]) < 3e-4
    assert apart(want["model"], ends["lost"]["model"]) > 1e-3


def test_every_exported_form_is_read_again(keras_run: Path) -> None:
    trained = keras.models.load_model(keras_run)
    images = np.random.default_rng(0).random((4, 32, 32, 3), dtype=np.float32)
    want = np.asarray(trained(images))

    def same(model: keras.Model) -> None:
        np.testing.assert_array_equal(np.asarray(model(images)), want)

    text = keras_run.with_suffix(".json").read_text(encoding="utf-8")
    assert "translator" not in text
    by_architecture = keras.models.model_from_json(text)
    by_architecture.load_weights(keras_run.with_suffix(".weights.h5"))
    same(by_architecture)
    same(keras.models.load_model(keras_run.with_suffix(".h5"), compile=False))
    by_name = keras.models.model_from_json(text)
    by_name.load_weights(keras_run.with_suffix(".h5"), by_name=True)
    same(by_name)


def test_weights_go_by_layer_name_into_another_architecture(keras_run: Path) -> None:
    """A network with another head takes the body, layer by layer, and keeps its own head."""
    body = keras.models.model_from_json(keras_run.with_suffix(".json").read_text(encoding="utf-8"))
    features = body.get_layer("fc").input
    other = keras.Model(body.inputs, keras.layers.Dense(3, name="head")(features))
    head = [w.copy() for w in other.get_layer("head").get_weights()]
    other.load_weights(keras_run.with_suffix(".h5"), by_name=True)
    trained = keras.models.load_model(keras_run)
    for name in ("conv", "layer3_0_conv2"):
        np.testing.assert_array_equal(other.get_layer(name).get_weights()[0], trained.get_layer(name).get_weights()[0])
    for want, got in zip(head, other.get_layer("head").get_weights(), strict=True):
        np.testing.assert_array_equal(got, want)


def test_the_recipe_lies_in_the_model_file(batches: Path, keras_run: Path, tmp_path: Path) -> None:
    assert on_keras.recipe_of(keras_run)["batch_size"] == 16
    refused = run(on_keras, "--data", batches, "--blocks", "1,1,1", "--batch-size", 8, "-o", keras_run, "--resume")
    assert refused.exit_code == 2
    assert "--batch-size 16, now 8" in refused.output
    names = {path.name for path in keras_run.parent.iterdir()}
    assert names == {"resnet.keras", "resnet.h5", "resnet.json", "resnet.weights.h5", "history.csv"}
    other = tmp_path / "resnet.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(other)
    refused = run(on_keras, "--data", batches, *TINY, "-o", other, "--resume")
    assert refused.exit_code == 2
    assert "is no model of a run" in refused.output


def test_a_run_begins_with_the_weights_of_a_keras_file(batches: Path, keras_run: Path, tmp_path: Path) -> None:
    recipe, _ = chosen_recipe(batches, blocks="1,1,1", batch_size=16, lr=1e-3, lr_step=None, seed=1)
    begun = on_keras.start(recipe, load_data(batches))
    on_keras.begin_with(begun, keras_run)
    trained = keras.models.load_model(keras_run)
    for got, want in zip(begun.model.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(got, want)
    other = tmp_path / "other.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(other)
    with pytest.raises(click.UsageError, match="another network: its variables have other names or shapes"):
        on_keras.begin_with(begun, other)
    refused = run(on_keras, "--weights", other, "--resume", "-o", tmp_path / "resnet.keras")
    assert "give one of them" in refused.output


@pytest.mark.parametrize("kind", ["whole-model", "other-recipe", "text"])
def test_a_pytorch_file_that_is_no_state_is_refused(kind: str, batches: Path, torch_run: Path, tmp_path: Path) -> None:
    given, says = tmp_path / "given.ckpt", "is no state of a run"
    if kind == "whole-model":  # torch.save(model): loading it runs code, so it isn't loaded
        torch.save(torch.nn.Linear(2, 2), given)
    elif kind == "text":
        given.write_text(json.dumps({"recipe": {}}))
    else:
        state = torch.load(torch_run.with_name("resnet.ckpt.state"), weights_only=True)
        torch.save({**state, "recipe": {**state["recipe"], "lr": 0.5}}, given)
        says = "--lr 0.5, now 0.001"
    refused = run(on_keras, "--data", batches, *TINY, "-o", tmp_path / "a.keras", "--from-torch", given)
    assert refused.exit_code == 2, refused.output
    assert says in refused.output


def test_outputs_are_not_replaced_unasked_and_end_in_keras(keras_run: Path, tmp_path: Path) -> None:
    assert "--resume to go on with it or --force to replace it" in run(on_keras, "-o", keras_run).output
    assert "end it in .keras" in run(on_keras, "-o", tmp_path / "resnet.h5").output
