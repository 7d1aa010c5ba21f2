"""Random networks: a list of steps, each reading tensors that came before; made from a seed, cut down on failure."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from scripts.fuzzing import parameters, spatial  # noqa: F401 - register their makers
from scripts.fuzzing.layers import MAKERS, Piece, built

BATCH = 2
_LARGEST = 3_000
"""Elements of a tensor; a step that makes more is left out."""

_ROUNDING = 1e-6
"""Numbers of about 1 that differ by less are one number, rounded."""

_DIGITS = 1e-2
"""A relative difference between float32 and float64 at which the network itself loses nearly every digit."""

_RAISED = (RuntimeError, ValueError, TypeError, IndexError, AssertionError, ZeroDivisionError)
_JOINS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a + b": lambda a, b: a + b, "a * b": lambda a, b: a * b, "a - b": lambda a, b: a - b,
    "torch.cat((a, b), 1)": lambda a, b: torch.cat((a, b), 1), "a * torch.sigmoid(b)": lambda a, b: a * b.sigmoid(),
    "torch.maximum(a, b)": torch.maximum,
    "torch.where(a > b + 0.1, a, b * 0.5)": lambda a, b: torch.where(a > b + 0.1, a, b * 0.5),
}  # fmt: skip
"""The comparison is of numbers that can't be the same number twice: between those, rounding would decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """piece: applied to the tensors numbered `reads` (0 is the input). Two steps may share a piece."""

    piece: Piece
    reads: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A network. outputs: numbers of the tensors that it puts out."""

    seed: int
    shape: tuple[int, ...]
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]

    def __str__(self) -> str:
        lines = [f"# seed {self.seed}, input {self.shape}, outputs {self.outputs}"]
        for number, step in enumerate(self.steps, 1):
            shared = next((i for i, s in enumerate(self.steps[: number - 1], 1) if s.piece is step.piece), 0)
            again = f"   # the module of {shared} again" if shared else ""
            lines.append(f"{number} = [{step.piece.text}]({', '.join(map(str, step.reads))}){again}")
        return "\n".join(lines)

    def without(self, index: int) -> Recipe:
        """The same with step `index` left out: what read it reads what it read first."""
        gone, source = index + 1, self.steps[index].reads[0]

        def renumbered(n: int) -> int:
            n = source if n == gone else n
            return n - 1 if n > gone else n

        steps = tuple(replace(s, reads=tuple(map(renumbered, s.reads))) for i, s in enumerate(self.steps) if i != index)
        return replace(self, steps=steps, outputs=tuple(dict.fromkeys(map(renumbered, self.outputs))))


class Network(nn.Module):
    """A recipe as a module. apart: every place of a value has memory of its own, also where it was expanded."""

    def __init__(self, recipe: Recipe, *, apart: bool = False) -> None:
        super().__init__()
        self.recipe, self.apart = recipe, apart
        pieces = {id(s.piece): s.piece.run for s in recipe.steps}
        self.parts = nn.ModuleDict({f"p{i}": p for i, p in enumerate(pieces.values()) if isinstance(p, nn.Module)})

    def forward(self, x: Tensor) -> Any:
        values = [x]
        for step in self.recipe.steps:
            value = step.piece.run(*(values[i] for i in step.reads))
            values.append(value.contiguous() if self.apart and 0 in value.stride() else value)
        found = [values[i] for i in self.recipe.outputs]
        return found[0] if len(found) == 1 else tuple(found)


def recipe(seed: int) -> Recipe:
    """The network of a seed. Left out are steps that PyTorch refuses, that give a constant, or that lose all digits."""
    rng = Random(seed)
    with torch.random.fork_rng(devices=[]), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        shape = _shape(rng)
        values = [torch.randn(shape)]
        exact = [values[0].double()]
        steps: list[Step] = []
        for _ in range(rng.randint(2, 9)):
            step = _step(rng, values, steps)
            if step is None:
                continue
            if isinstance(step.piece.run, nn.Module):
                _randomise(step.piece.run, seed)
            value = _tried(step, values)
            wide = _in_float64(step, exact) if value is not None else None
            if value is None or wide is None or _lost(value, wide):
                continue
            steps.append(step)
            values.append(value)
            exact.append(wide)
        if not steps:
            steps, values = [Step(piece=built(nn.ReLU), reads=(0,))], [values[0], values[0].relu()]
    outputs = [len(steps)]
    if len(steps) > 2 and rng.random() < 0.3:
        outputs.insert(0, rng.randrange(1, len(steps)))
    return Recipe(seed=seed, shape=shape, steps=tuple(steps), outputs=tuple(outputs))


def example(made: Recipe) -> Tensor:
    """The input of a recipe."""
    return torch.randn(made.shape, generator=torch.Generator().manual_seed(made.seed))


def _shape(rng: Random) -> tuple[int, ...]:
    rank = rng.choice([1, 2, 3, 3, 4, 4, 4, 4, 5])
    if rank >= 3 and rng.random() < 0.25:
        return (BATCH, *[rng.choice([1, 2, 3, 4, 6])] * (rank - 1))
    small = [1, 2, 3, 4, 5] if rank == 5 else [1, 2, 3, 4, 5, 6, 7, 8, 11]
    return (BATCH, *(rng.choice(small) for _ in range(rank - 1)))


def _step(rng: Random, values: Sequence[Tensor], steps: Sequence[Step]) -> Step | None:
    last = len(values) - 1
    chance = rng.random()
    if chance < 0.15 and last:
        other = rng.randrange(last + 1)
        text = rng.choice(list(_JOINS))
        return Step(piece=Piece(text=text, run=_JOINS[text]), reads=(last, other))
    source = last if rng.random() < 0.85 else rng.randrange(last + 1)
    if chance < 0.25 and steps:
        again = rng.choice(steps)
        return Step(piece=again.piece, reads=(source,)) if len(again.reads) == 1 else None
    maker = rng.choices([m for _, m in MAKERS], [w for w, _ in MAKERS])[0]
    try:
        piece = maker(rng, tuple(values[source].shape))
    except _RAISED:
        return None
    return Step(piece=piece, reads=(source,)) if piece else None


def _tried(step: Step, values: Sequence[Tensor]) -> Tensor | None:
    try:
        value = step.piece.run(*(values[i].clone() for i in step.reads))
    except _RAISED:
        return None
    usable = isinstance(value, Tensor) and value.is_floating_point() and 0 < value.numel() <= _LARGEST
    if usable and value.numel() > 1 and not bool(value.max() - value.min() > _ROUNDING):
        return None  # x - x, or a normalised constant: nothing shows behind it but how PyTorch rounds
    return value if usable and value.ndim <= 6 and value.shape[0] == BATCH and bool(value.isfinite().all()) else None


def _in_float64(step: Step, values: Sequence[Tensor]) -> Tensor | None:
    """The step's value in float64, of values in float64."""
    run = copy.deepcopy(step.piece.run).double() if isinstance(step.piece.run, nn.Module) else step.piece.run
    try:
        with float64_by_default():
            return run(*(values[i].clone() for i in step.reads)).double()  # type: ignore[no-any-return]
    except _RAISED:
        return None


@contextmanager
def float64_by_default() -> Iterator[None]:
    """What the block makes without a dtype is float64."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def _lost(value: Tensor, exact: Tensor) -> bool:
    """Whether float32 has no digits left, as of `x - tanh(x)` of small numbers: a proof in float64 has few, either.

    That goes for each row by itself, since a proof looks at one alone, too.
    """
    off, size = rows_off(value, exact)
    return not bool((off <= _DIGITS * size).all())


def rows_off(value: Tensor, exact: Tensor) -> tuple[Tensor, Tensor]:
    """The largest difference in each row, and the largest number there."""
    off, size = ((t.reshape(len(t), -1).abs().amax(1) if t.ndim else t.abs()) for t in (value - exact, exact))
    return off, size


def _randomise(module: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.8 + 0.2)
        for weight in module.parameters():
            if weight.ndim > 1:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.4)
    module.eval()
