"""Train the CIFAR ResNet in Keras: compile, fit, evaluate. Recipe and first weights are those of train_cifar.py."""

from __future__ import annotations

import json
import pickle
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

if TYPE_CHECKING:
    import keras

    from translator.data.dataset import Dataset

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts.cifar_recipe import Recipe, check_same, chosen_recipe, last_line, load_data, note, recipe_options  # noqa: E402

RECIPE = "recipe.json"
"""The recipe's name inside the model file."""

EXAMPLES = """\b
Examples:
  python scripts/train_cifar_keras.py
      scikit-learn's digits, 12 epochs: minutes on two cores
  python scripts/train_cifar_keras.py --data cifar-10-batches-py
      CIFAR-10 from a local folder, 80 epochs
  python scripts/train_cifar_keras.py --resume
      go on where a run was cut off; with a larger --epochs, go on learning
  python scripts/train_cifar_keras.py --from-torch resnet.ckpt.state --epochs 24
      go on in Keras where train_cifar.py stopped: weights, Adam's state, epoch
  python scripts/train_cifar_keras.py --resume --epochs 24 --to-torch resnet.ckpt.state
      and back: `train_cifar.py --resume --epochs 36` goes on from there
"""


@dataclass(slots=True, kw_only=True)
class Run:
    """A network in training; `epoch` epochs are done. links: which Keras variable is which PyTorch parameter."""

    recipe: Recipe
    model: keras.Model
    module: Any
    links: Any
    epoch: int = 0


def steps_per_epoch(recipe: Recipe, data: Dataset) -> int:
    return -(-len(data.train_x) // recipe.batch_size)


def start(recipe: Recipe, data: Dataset) -> Run:
    """PyTorch's network with its first weights, translated; loss, optimizer and schedule mapped, and compiled."""
    import torch

    from models.cifar_resnet import resnet
    from translator.pipeline import convert
    from translator.training.batchnorm import with_exact_batchnorm
    from translator.training.float64 import loss_in_float64, made_for_float64
    from translator.training.losses import map_loss
    from translator.training.mapped import exact_in_float64
    from translator.training.optimizers import map_optimizer
    from translator.training.pairing import pair_by_bindings

    torch.manual_seed(recipe.seed)
    module = resnet(recipe.blocks, num_classes=len(data.classes))
    with floats_of("float32"):
        conversion = convert(module, torch.zeros(2, 3, *data.train_x.shape[1:3]), proof=False, name="resnet")
        model = with_exact_batchnorm(conversion.model)
    wide = recipe.precision == "float64"
    if wide:
        module, model = module.double(), made_for_float64(model)
    links = pair_by_bindings(module, model, conversion.weightmap.bindings, conversion.claims).links
    adam = torch.optim.Adam(module.parameters(), lr=recipe.lr)
    third = torch.optim.lr_scheduler.StepLR(adam, step_size=recipe.lr_step, gamma=1 / 3)
    loss = map_loss(torch.nn.CrossEntropyLoss()).keras
    optimizer = map_optimizer(adam, scheduler=third, steps_per_epoch=steps_per_epoch(recipe, data)).keras
    model.compile(
        loss=loss_in_float64(loss) if wide else loss,
        optimizer=exact_in_float64(optimizer) if wide else optimizer,
        metrics=["accuracy"],
    )
    model.optimizer.build(model.trainable_variables)
    return Run(recipe=recipe, model=model, module=module, links=links)


def train(run: Run, data: Dataset, epochs: int, output: Path, history: Path | None) -> None:
    """Train up to `epochs` epochs, with validation, a progress bar, and a whole checkpoint after each one."""
    import keras

    from translator.training.loaders import keras_epochs, tensorflow_epochs, to_keras_arrays

    recipe, on_tensorflow = run.recipe, keras.backend.backend() == "tensorflow"
    loader = tensorflow_epochs if on_tensorflow else keras_epochs  # tf.data, or keras.utils.PyDataset
    floats = recipe.precision
    batches = loader(data, batch_size=recipe.batch_size, seed=recipe.seed, first_epoch=run.epoch, floats=floats)

    class Save(keras.callbacks.Callback):  # type: ignore[misc]
        """The whole model with its optimizer after each epoch; a kill leaves the old file or the new one."""

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.rate = float(run.model.optimizer.learning_rate)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            run.epoch = epoch + 1
            save(run, output)
            note(history, run.epoch, float(logs["loss"]), self.rate, round(logs["val_accuracy"] * len(data.test_x)))

    class Every100Steps(keras.callbacks.Callback):  # type: ignore[misc]
        """The article's line: epoch, step and loss."""

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if (batch + 1) % 100 == 0:
                done = self.params["epochs"]
                print(f"  step {batch + 1}/{self.params['steps']} of {done} epochs  loss {logs['loss']:.4f}")

    run.model.fit(
        batches,
        initial_epoch=run.epoch,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch(recipe, data) if on_tensorflow else None,
        shuffle=False,
        validation_data=to_keras_arrays(data.test_x, data.test_y, len(data.classes), floats=floats),
        validation_batch_size=500,
        callbacks=[Every100Steps(), Save()],
        verbose="auto",
    )


@contextmanager
def floats_of(precision: str) -> Iterator[None]:
    """Keras makes losses, optimizers and what it is fed of this width while the block runs."""
    import keras

    before = keras.config.floatx()
    keras.config.set_floatx(precision)
    try:
        yield
    finally:
        keras.config.set_floatx(before)


def count_right(run: Run, data: Dataset) -> int:
    """How many of the test images the network names rightly."""
    from translator.training.loaders import to_keras_arrays

    images, _ = to_keras_arrays(data.test_x, data.test_y, len(data.classes), floats=run.recipe.precision)
    return int((run.model.predict(images, batch_size=500, verbose=0).argmax(axis=-1) == data.test_y).sum())


def save(run: Run, output: Path) -> None:
    """One file: architecture, weights, optimizer as Keras saves them, and the recipe; a kill leaves the old or the new.

    A Keras file is a zip archive; what Keras doesn't know in it does no harm.
    """
    from translator.files import Outputs

    with Outputs([output], force=True) as files:
        run.model.save(files.path(output))
        with zipfile.ZipFile(files.path(output), "a") as archive:
            archive.writestr(RECIPE, json.dumps(asdict(run.recipe)))
        files.commit()


def recipe_of(output: Path) -> dict[str, Any]:
    """The recipe in the file that a run left. Raises UsageError for any other file."""
    try:
        with zipfile.ZipFile(output) as archive:
            found: dict[str, Any] = json.loads(archive.read(RECIPE))
            return found
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise click.UsageError(f"--resume: {output} is no model of a run: {error}") from error


def begin_with(run: Run, weights: Path) -> None:
    """Take the weights of a Keras file of this network, such as `translator convert` writes."""
    import keras

    import translator.training.registered  # noqa: F401  the file may name its classes

    found = keras.models.load_model(weights, compile=False)
    shapes = [(v.path, tuple(v.shape)) for v in run.model.variables]
    if [(v.path, tuple(v.shape)) for v in found.variables] != shapes:
        raise click.UsageError(f"--weights {weights}: another network: its variables have other names or shapes")
    run.model.set_weights(found.get_weights())


def resume(run: Run, output: Path, data: Dataset) -> None:
    """Go on from the last whole epoch, if there is one."""
    import keras

    import translator.training.registered  # noqa: F401  the file names its classes

    if not output.exists():
        return
    check_same(f"--resume: the run of {output}", recipe_of(output), run.recipe)
    found = keras.models.load_model(output)
    run.model.set_weights(found.get_weights())
    for mine, theirs in zip(run.model.optimizer.variables, found.optimizer.variables, strict=True):
        mine.assign(theirs)
    run.epoch = int(found.optimizer.iterations) // steps_per_epoch(run.recipe, data)


def take_over(run: Run, path: Path, data: Dataset) -> None:
    """Go on from the state that train_cifar.py left: weights, Adam's state and epoch."""
    import torch

    from translator.bindings import to_keras
    from translator.training.optimizer_state import state_to_keras

    try:
        state = torch.load(path, weights_only=True)
        got = state["recipe"]
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError) as error:
        raise click.UsageError(f"--from-torch: {path} is no state of a run: {error}") from error
    check_same(f"--from-torch: the run of {path}", got, run.recipe)
    run.module.load_state_dict(state["model"])
    adam = torch.optim.Adam(run.module.parameters(), lr=run.recipe.lr)
    adam.load_state_dict(state["optimizer"])
    tensors = {name: tensor.numpy() for name, tensor in run.module.state_dict().items()}
    for link in run.links:
        link.variable.assign(to_keras(link.binding, tensors))
    run.epoch = state["epoch"]
    steps = run.epoch * steps_per_epoch(run.recipe, data)
    state_to_keras(run.links, run.module, adam, run.model.optimizer, steps=steps)


def hand_over(run: Run, path: Path) -> None:
    """The state from which `train_cifar.py --resume` goes on."""
    import torch

    from translator.bindings import to_torch
    from translator.files import Outputs
    from translator.training.keras_side import numbers
    from translator.training.optimizer_state import state_to_torch

    shapes = {name: tuple(t.shape) for name, t in run.module.state_dict().items()}
    found = to_torch([(link.binding, numbers(link.variable)) for link in run.links], shapes)
    state = {name: torch.from_numpy(found[name]) if name in found else t for name, t in run.module.state_dict().items()}
    adam = torch.optim.Adam(run.module.parameters(), lr=run.recipe.lr)
    steps = state_to_torch(run.links, run.module, adam, run.model.optimizer)
    for name in state:
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(steps)
    with Outputs([path], force=True) as files:
        done = {"model": state, "optimizer": adam.state_dict(), "epoch": run.epoch}
        torch.save({"recipe": asdict(run.recipe), **done}, files.path(path))
        files.commit()


def export(model: keras.Model, output: Path, console: Console) -> None:
    """The same network in the other forms that Keras knows: each with how it is read again."""
    from translator.files import Outputs
    from translator.training.batchnorm import with_native_batchnorm

    plain = with_native_batchnorm(model)  # loads anywhere: nothing of ours in it
    forms = {
        output.with_suffix(".h5"): "keras.models.load_model(…), or model.load_weights(…, by_name=True): legacy, whole",
        output.with_suffix(".json"): "keras.models.model_from_json(text): the architecture alone",
        output.with_suffix(".weights.h5"): "model.load_weights(…): the weights alone",
    }
    whole, text, weights = forms
    with Outputs(forms, force=True) as files:
        plain.save(files.path(whole))
        files.path(text).write_text(plain.to_json(), encoding="utf-8")
        partial = files.path(weights).with_name(files.path(weights).stem + ".weights.h5")
        plain.save_weights(partial)
        partial.replace(files.path(weights))
        files.commit()
    for path, how in forms.items():
        console.print(f"  {path}  {how}")


@click.command(help=__doc__, epilog=EXAMPLES)
@recipe_options
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), default=Path("resnet.keras"), show_default=True
)
@click.option("--resume", "go_on", is_flag=True, help="Go on from the last whole epoch of a run with this output.")
@click.option("--force", is_flag=True, help="Replace an existing output.")
@click.option(
    "--from-torch", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Go on from this PyTorch state."
)
@click.option("--to-torch", type=click.Path(dir_okay=False, path_type=Path), help="Leave a PyTorch state here.")
@click.option("--history", type=click.Path(dir_okay=False, path_type=Path), help="Add each epoch's row to this CSV.")
@click.option("--export", "exports", is_flag=True, help="Also write .h5, .json and weights only.")
def main(
    folder: Path | None, epochs: int | None, weights: Path | None, output: Path, go_on: bool, force: bool,
    from_torch: Path | None, to_torch: Path | None, history: Path | None, exports: bool, **rest: Any,
) -> None:  # fmt: skip
    from translator.errors import InputError

    if weights is not None and (go_on or from_torch is not None):
        raise click.UsageError("--weights begins a run, --resume and --from-torch go on with one: give one of them")

    if output.exists() and not (go_on or force):
        raise click.UsageError(f"{output} exists: give --resume to go on with it or --force to replace it")
    if output.suffix != ".keras":
        raise click.UsageError(f"-o {output}: end it in .keras")
    recipe, usual = chosen_recipe(folder, **rest)
    console = Console(highlight=False)
    try:
        data = load_data(folder)
        with floats_of(recipe.precision):
            run = start(recipe, data)
            if weights is not None:
                begin_with(run, weights)
            elif from_torch is not None:
                take_over(run, from_torch, data)
            elif go_on:
                resume(run, output, data)
            last = usual.epochs if epochs is None else epochs
            if run.epoch < last:
                train(run, data, last, output, history)
            right = count_right(run, data)
        if to_torch is not None:
            hand_over(run, to_torch)
        if exports:
            export(run.model, output, console)
    except (InputError, OSError, ValueError) as error:
        raise click.UsageError(str(error)) from error
    console.print(last_line(right, data, output, run.epoch))


if __name__ == "__main__":
    main()
