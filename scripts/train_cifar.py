"""Train the CIFAR ResNet in PyTorch and write its checkpoint, `torch.save(model.state_dict(), "resnet.ckpt")`."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from translator.data.dataset import Dataset

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts.cifar_recipe import Recipe, check_same, chosen_recipe, last_line, load_data, note, recipe_options  # noqa: E402

EXAMPLES = """\b
Examples:
  python scripts/train_cifar.py
      scikit-learn's digits, 12 epochs: minutes on two cores
  python scripts/train_cifar.py --data cifar-10-batches-py
      CIFAR-10 from a local folder, 80 epochs
  python scripts/train_cifar.py --resume
      go on where a run was cut off; with a larger --epochs, go on learning
  translator convert models/cifar_resnet.py:resnet --weights resnet.ckpt -o resnet.keras
      what the checkpoint is for
"""


@dataclass(slots=True, kw_only=True)
class Run:
    """A network in training; `epoch` epochs are done."""

    recipe: Recipe
    model: nn.Module
    optimizer: torch.optim.Optimizer
    epoch: int = 0


def start(recipe: Recipe, classes: int) -> Run:
    """The network with its first weights, and Adam."""
    import torch

    from models.cifar_resnet import resnet

    torch.manual_seed(recipe.seed)
    model = resnet(recipe.blocks, num_classes=classes).to(getattr(torch, recipe.precision))
    return Run(recipe=recipe, model=model, optimizer=torch.optim.Adam(model.parameters(), lr=recipe.lr))


def to_tensors(images: np.ndarray, labels: np.ndarray, precision: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, H, W, C) uint8 → (N, C, H, W) of that precision in [0, 1], and labels (N,) int64."""
    import torch

    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(getattr(torch, precision))
    return pixels / 255, torch.from_numpy(labels)


def train_epoch(run: Run, data: Dataset, epochs: int, progress: Progress) -> float:
    """One pass over the training images; the mean loss."""
    from torch.nn.functional import cross_entropy

    from translator.data.batches import epoch_batches

    recipe, total = run.recipe, 0.0
    steps = -(-len(data.train_x) // recipe.batch_size)
    for group in run.optimizer.param_groups:
        group["lr"] = recipe.learning_rate(run.epoch)
    task = progress.add_task(f"epoch {run.epoch + 1}/{epochs}", total=steps, loss=float("nan"))
    run.model.train()
    batches = epoch_batches(data, batch_size=recipe.batch_size, seed=recipe.seed, epoch=run.epoch)
    for step, batch in enumerate(batches, start=1):
        images, labels = to_tensors(*batch, recipe.precision)
        loss = cross_entropy(run.model(images), labels)
        run.optimizer.zero_grad()
        loss.backward()
        run.optimizer.step()
        total += loss.item() * len(labels)
        progress.update(task, advance=1, loss=loss.item())
        if step % 100 == 0:
            progress.console.print(f"epoch {run.epoch + 1}/{epochs}  step {step}/{steps}  loss {loss.item():.4f}")
    progress.remove_task(task)
    run.epoch += 1
    return total / len(data.train_x)


def count_right(run: Run, data: Dataset) -> int:
    """How many of the test images the network names rightly."""
    import torch

    model = run.model.eval()
    right = 0
    with torch.no_grad():
        for first in range(0, len(data.test_x), 500):
            part = slice(first, first + 500)
            images, labels = to_tensors(data.test_x[part], data.test_y[part], run.recipe.precision)
            right += int((model(images).argmax(dim=1) == labels).sum())
    return right


def state_path(output: Path) -> Path:
    """What a run is resumed from, beside its checkpoint."""
    return output.with_name(output.name + ".state")


def save(run: Run, output: Path) -> None:
    """The checkpoint, and all that a later run needs to go on from here; a kill leaves each whole, old or new."""
    import torch

    from translator.files import Outputs

    weights, state = run.model.state_dict(), state_path(output)
    with Outputs([state, output], force=True) as files:
        done = {"model": weights, "optimizer": run.optimizer.state_dict(), "epoch": run.epoch}
        torch.save({"recipe": asdict(run.recipe), **done}, files.path(state))
        torch.save(weights, files.path(output))
        files.commit()


def begin_with(run: Run, weights: Path) -> None:
    """Take the weights of a checkpoint, such as `translator transfer` writes."""
    from translator.capture.checkpoint import load_into, read_checkpoint

    load_into(run.model, read_checkpoint(weights))


def resume(run: Run, output: Path) -> None:
    """Go on from the last whole epoch, if there is one. Raises UsageError where it had another recipe."""
    state = read_state(state_path(output))
    if state is None:
        return
    check_same(f"--resume: the run of {output}", state["recipe"], run.recipe)
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.epoch = state["epoch"]


def read_state(path: Path) -> dict[str, Any] | None:
    """The state that a run left, tensors and numbers only; None where there is none."""
    import pickle

    import torch

    if not path.exists():
        return None
    try:
        return torch.load(path, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise click.UsageError(f"--resume: {path} is no state of a run: {error}") from error


def train(run: Run, data: Dataset, epochs: int, output: Path, console: Console, history: Path | None) -> None:
    """Train up to `epochs` epochs, saving after each one."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.4f}"),
        TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        while run.epoch < epochs:
            rate = run.recipe.learning_rate(run.epoch)
            loss = train_epoch(run, data, epochs, progress)
            save(run, output)
            right = count_right(run, data)
            note(history, run.epoch, loss, rate, right)
            console.print(
                f"epoch {run.epoch}/{epochs}  loss {loss:.4f}  lr {rate:.2g}"
                f"  test accuracy {right / len(data.test_x):.2%}"
            )


@click.command(help=__doc__, epilog=EXAMPLES)
@recipe_options
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), default=Path("resnet.ckpt"), show_default=True
)
@click.option("--resume", "go_on", is_flag=True, help="Go on from the last whole epoch of a run with this output.")
@click.option("--force", is_flag=True, help="Replace an existing output.")
@click.option("--history", type=click.Path(dir_okay=False, path_type=Path), help="Add each epoch's row to this CSV.")
def main(
    folder: Path | None, epochs: int | None, weights: Path | None, output: Path, go_on: bool, force: bool,
    history: Path | None, **rest: Any,
) -> None:  # fmt: skip
    from translator.errors import InputError

    if weights is not None and go_on:
        raise click.UsageError("--weights begins a run, --resume goes on with one: give one of them")

    if output.exists() and not (go_on or force):
        raise click.UsageError(f"{output} exists: give --resume to go on with it or --force to replace it")
    recipe, usual = chosen_recipe(folder, **rest)
    console = Console(highlight=False)
    try:
        data = load_data(folder)
        run = start(recipe, len(data.classes))
        if weights is not None:
            begin_with(run, weights)
        elif go_on:
            resume(run, output)
        train(run, data, usual.epochs if epochs is None else epochs, output, console, history)
    except (InputError, OSError, ValueError) as error:
        raise click.UsageError(str(error)) from error
    right = count_right(run, data)
    console.print(last_line(right, data, output, run.epoch))


if __name__ == "__main__":
    main()
