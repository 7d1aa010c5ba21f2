"""What both training scripts have in common: the recipe, its options, the data, and the history that they write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from translator.data.dataset import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a run learns from and how: the same for the run and for whatever resumes it."""

    data: str
    blocks: str
    batch_size: int
    lr: float
    lr_step: int
    seed: int
    precision: str = "float32"

    def learning_rate(self, epoch: int) -> float:
        """Divided by 3 every `lr_step` epochs."""
        return self.lr / 3 ** (epoch // self.lr_step)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """The settings that suit a data set."""

    epochs: int
    lr_step: int


CIFAR = Usual(epochs=80, lr_step=20)
DIGITS = Usual(epochs=12, lr_step=3)

_OPTIONS = (
    click.option(
        "--data",
        "folder",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="Folder of CIFAR-10's python batches. [default: scikit-learn's digits, 3x32x32]",
    ),
    click.option("--blocks", default="2,2,2", show_default=True, help="Residual blocks in each stage."),
    click.option("--epochs", type=click.IntRange(min=0), help="0: only test.  [default: 80; 12 for the digits]"),
    click.option(
        "--weights",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Begin with these: a state_dict in PyTorch, a .keras file of this network in Keras.",
    ),
    click.option("--batch-size", type=click.IntRange(min=2), default=100, show_default=True),
    click.option(
        "--lr", type=click.FloatRange(min=0, min_open=True), default=1e-3, show_default=True, help="Adam's rate."
    ),
    click.option(
        "--lr-step", type=click.IntRange(min=1), help="Epochs until a third of it. [default: 20; 3 for the digits]"
    ),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of weights and batches."),
    click.option(
        "--precision",
        type=click.Choice(["float32", "float64"]),
        default="float32",
        show_default=True,
        help="float64 to see both scripts do the same: in float32 rounding grows until they part.",
    ),
)


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what to learn from and how; `chosen_recipe` makes them a recipe."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def chosen_recipe(folder: Path | None, *, lr_step: int | None, **settings: Any) -> tuple[Recipe, Usual]:
    """The recipe, and the settings that suit its data. folder: of CIFAR-10's batches, or None for the digits."""
    usual = DIGITS if folder is None else CIFAR
    data = "digits" if folder is None else str(folder.resolve())
    return Recipe(data=data, lr_step=lr_step or usual.lr_step, **settings), usual


def check_same(what: str, got: Mapping[str, Any], recipe: Recipe) -> None:
    """Raise UsageError where a run had another recipe. got: as its file holds it."""
    want, had = asdict(recipe), {"precision": "float32", **got}
    other = [f"--{name.replace('_', '-')} {had[name]}, now {want[name]}" for name in want if had[name] != want[name]]
    if other:
        raise click.UsageError(f"{what} had {'; '.join(other)}")


def load_data(folder: Path | None) -> Dataset:
    """CIFAR-10 from that folder, or the digits."""
    from translator.data.cifar import load_cifar10
    from translator.data.digits import load_digits_32

    return load_digits_32() if folder is None else load_cifar10(folder)


def last_line(right: int, data: Dataset, output: Path, epochs: int) -> str:
    """How good the network is, and where it lies; after no epoch nothing was written."""
    count = len(data.test_x)
    return f"test accuracy {right / count:.2%} ({right} of {count} images)" + (f" → {output}" if epochs else "")


def note(history: Path | None, epoch: int, loss: float, rate: float, right: int) -> None:
    """One row of the history: the mean loss of an epoch, and how many test images were named rightly after it."""
    if history is None:
        return
    new = not history.exists()
    with history.open("a", encoding="utf-8") as file:
        file.write("epoch,loss,learning_rate,right\n" if new else "")
        file.write(f"{epoch},{loss!r},{rate!r},{right}\n")
