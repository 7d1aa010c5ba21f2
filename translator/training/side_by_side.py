"""A PyTorch model and its Keras twin trained side by side, and every way in which they differ named."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import keras
import torch
from torch import nn

from translator.config import Progress
from translator.errors import InputError
from translator.training.batches import default_loss, random_batches
from translator.training.batchnorm import cumulative_layers, with_exact_batchnorm
from translator.training.conclusion import Conclusion, conclude
from translator.training.feed_checks import labels_fed
from translator.training.float64 import loss_in_float64, trains_in_float64
from translator.training.keras_side import KerasSide
from translator.training.losses import map_loss
from translator.training.mapped import Mapped, exact_in_float64
from translator.training.optimizers import map_optimizer
from translator.training.pairing import Pairing, group_variables, pair_by_alignment, pair_by_bindings
from translator.training.parity_report import ParityReport, Part
from translator.training.recipe_checks import check_model, check_recipe
from translator.training.rounding import drifted, growth, run_control
from translator.training.silent import silent
from translator.training.torch_side import Batch, TorchRecipe, TorchSide, outputs_in_training, silence
from translator.training.trajectory import Trajectory, run_together, run_with_noise
from translator.training.trajectory_rows import ControlRow, NoiseRow
from translator.training.user_recipe import KerasRecipe, compiled_recipe, name_of
from translator.verdict import Difference

if TYPE_CHECKING:
    from torch.optim import Optimizer

LIMIT = 1e-8
"""Relative error that passes in float64 after any number of steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityOptions:
    """How to compare.

    steps, batch: how many, and how many examples in each. exact_batchnorm: build the translated model with PyTorch's
    running variance. float32: also measure how far the two drift apart in float32, and PyTorch from itself. limit: the
    relative error that passes in float64. output: the number of the output that the loss looks at.
    """

    steps: int = 50
    batch: int = 8
    seed: int = 0
    exact_batchnorm: bool = False
    float32: bool = True
    limit: float = LIMIT
    output: int = 0
    on_progress: Progress = field(default=lambda stage: None)


def parity(
    module: nn.Module,
    example_inputs: Any,
    keras_model: keras.Model | None = None,
    *,
    example_kwargs: Mapping[str, Any] | None = None,
    recipe: TorchRecipe | None = None,
    keras_recipe: KerasRecipe | None = None,
    batches: Sequence[Batch] | None = None,
    options: ParityOptions | None = None,
    names: tuple[str, str] = ("", ""),
) -> ParityReport:
    """Train `module` and its Keras twin on the same batches from the same weights, and compare every step.

    keras_model: one of the user's own; None translates the module. recipe: None is SGD with momentum on the loss that
    fits the output. keras_recipe: the user's own loss and optimizer, judged against the recipe; None takes those that
    the Keras model was compiled with, and maps the recipe if there are none. batches: None draws random ones.
    Neither model is changed. Raises InputError or UnsupportedError; what differs is in the report.
    """
    options = options or ParityOptions()
    args = tuple(example_inputs) if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
    kwargs = dict(example_kwargs or {})
    clock = _Clock(options.on_progress)
    with _own_weights(keras_model):
        with clock.stage("pairing the two models"):
            pairing = _pair(module, keras_model, args, kwargs, options)
        if recipe is None:
            output = outputs_in_training(module, args, kwargs)[options.output]
            recipe = TorchRecipe(loss=default_loss(output), optimizer=_usual)
        if keras_recipe is None and keras_model is not None:
            keras_recipe = compiled_recipe(keras_model)
        bench = _Bench(
            pairing=pairing,
            recipe=recipe,
            theirs=keras_recipe,
            own_model=keras_model is not None,
            options=options,
            clock=clock,
        )
        bench.batches = list(batches)[: options.steps] if batches is not None else bench.draw(args, kwargs)
        return bench.run(names)


@dataclass(slots=True, kw_only=True)
class _Bench:
    """A pair on the bench: everything that the runs share."""

    pairing: Pairing
    recipe: TorchRecipe
    theirs: KerasRecipe | None
    own_model: bool
    options: ParityOptions
    clock: _Clock
    batches: list[Batch] = field(default_factory=list)
    parts: dict[str, Part] = field(default_factory=dict)

    def draw(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Batch]:
        """Random batches for the module."""
        options = self.options
        output = outputs_in_training(self.pairing.module, args, kwargs)[options.output]
        return list(
            random_batches(
                args, kwargs, output, self.recipe.loss, size=options.batch, count=options.steps, seed=options.seed
            )
        )

    def run(self, names: tuple[str, str]) -> ParityReport:
        """Both runs, and what follows from them."""
        model = self.pairing.model
        with self.clock.stage("training in float64"), trains_in_float64(model), silent(model) as silenced:
            differences = self.check()
            own_loss_is_wrong = any(d.kind.partition("-")[0] in ("loss", "from", "labels") for d in differences)
            found = self.together(own_loss_is_wrong)
            concluded = conclude(self.pairing, found, self.options.limit, len(self.batches))
            control: list[ControlRow] = []
            if drifted(found.steps, concluded, differences, self.options.limit):
                concluded, control = self.explained(found, concluded)
        noise = []
        if self.options.float32:
            with self.clock.stage("training in float32, twice in PyTorch"), silent(model):
                noise = self.noise()
        return ParityReport(
            title=" ".join(name for name in names if name),
            torch_name=type(self.pairing.module).__name__,
            keras_name=self.pairing.model.name,
            backend=keras.config.backend(),
            recipe=self.parts,
            batchnorm=concluded.batchnorm,
            batch=self.batches[0].target.shape[0] if self.batches else 0,
            seed=self.options.seed,
            limit=self.options.limit,
            checks=concluded.checks,
            differences=(*differences, *concluded.differences),
            steps=tuple(found.steps),
            tensors=tuple(found.tensors.values()),
            control=tuple(control),
            noise=tuple(noise),
            first_wrong=found.first_wrong,
            silenced=tuple(dict.fromkeys((*silence(copy.deepcopy(self.pairing.module)), *silenced))),
            notes=tuple(note for part in self.parts.values() for note in part.notes),
            timing=self.clock.seconds,
            versions=_versions(),
        )

    def torch_side(self, dtype: torch.dtype) -> TorchSide:
        """A fresh copy of the module, ready to train."""
        return TorchSide(self.pairing.module, self.recipe, dtype=dtype, output=self.options.output)

    def mapped(self, side: TorchSide) -> tuple[Mapped, Mapped]:
        """The Keras loss and the Keras optimizer that compute what PyTorch's do."""
        pairing, recipe = self.pairing, self.recipe
        floats = any(b.target.is_floating_point() and b.target.ndim > 1 for b in self.batches)
        loss = map_loss(
            side.loss,
            targets="probabilities" if floats and isinstance(side.loss, nn.CrossEntropyLoss) else "indices",
            class_axis=pairing.class_axis(side.output),
        )
        groups, none = group_variables(side.optimizer, side.module, pairing.links)
        summed = {
            link.path: len(link.binding.pieces)
            for link in pairing.links
            if link.binding.join == "sum" and len(link.binding.pieces) > 1 and link.variable.trainable
        }
        alone = [v.path for v, _ in pairing.alone if v.trainable]
        optimizer = map_optimizer(
            side.optimizer,
            scheduler=side.scheduler,
            steps_per_epoch=recipe.steps_per_epoch,
            epochs=recipe.epochs,
            variables=[[*groups[0], *alone], *groups[1:]],
            untrained=none,
            summed=summed,
        )
        return loss, optimizer

    def check(self) -> list[Difference]:
        """What is wrong with the user's model and recipe, part by part; nothing where neither is theirs."""
        side = self.torch_side(torch.float64)
        loss, optimizer = self.mapped(side)
        theirs = self.theirs or KerasRecipe()
        for part, want, mapped, own in (
            ("loss", self.recipe.loss, loss, theirs.loss),
            ("optimizer", side.optimizer, optimizer, theirs.optimizer),
        ):
            self.parts[part] = Part(
                torch=_one_line(want),
                keras=mapped.name if own is None else f"{name_of(own)} of the model's own",
                native=mapped.native,
                why=mapped.why,
                notes=mapped.notes,
            )
        if side.scheduler is not None:
            self.parts["scheduler"] = Part(torch=type(side.scheduler).__name__, keras="in the optimizer", native=True)
        found: list[Difference] = []
        if self.own_model and self.batches:
            self.reset(torch.float64)
            found += check_model(self.pairing, self.torch_side(torch.float64), self.batches[0])
        if self.theirs is not None and self.batches:
            wide = replace(theirs, loss=loss_in_float64(theirs.loss))
            found += check_recipe(self.pairing, side, self.batches[0], wide, loss, optimizer, len(self.batches))
        if any(d.kind == "probabilities" for d in found):  # a loss of probabilities fits that head: the head is said
            found = [d for d in found if d.kind != "from-logits"]
        return found

    def explained(self, found: Trajectory, concluded: Conclusion) -> tuple[Conclusion, list[ControlRow]]:
        """A run that drifted beyond the limit, judged again step by step, and held against PyTorch's own drift."""
        try:
            anew = self.together(own_loss_is_wrong=False, anew=True)
        except InputError:  # the state of an optimizer that can't be carried over
            return concluded, []
        control = run_control(
            self.torch_side(torch.float64), self.torch_side(torch.float64), self.batches, self.on_step("float64, again")
        )
        each = conclude(self.pairing, anew, self.options.limit, len(self.batches))
        check, difference = growth(found.steps, control, self.options.limit)
        if difference is None or not all(c.ok for c in each.checks):
            return replace(concluded, checks=(*concluded.checks, check)), control
        found.tensors = anew.tensors
        named = tuple(replace(c, name=f"{c.name}, each step begun anew") for c in each.checks)
        return replace(each, checks=(*named, check), differences=(*each.differences, difference)), control

    def together(self, own_loss_is_wrong: bool, *, anew: bool = False) -> Trajectory:
        """The float64 run. A loss that can't be used is left out of it, so that the rest can be compared."""
        self.reset(torch.float64)
        side = self.torch_side(torch.float64)
        loss, optimizer = self.mapped(side)
        used, moved = loss.keras, exact_in_float64(optimizer.keras)
        theirs = self.theirs or KerasRecipe()
        if theirs.loss is not None and not own_loss_is_wrong:
            used = loss_in_float64(theirs.loss)
        if theirs.optimizer is not None:
            moved = exact_in_float64(theirs.optimizer)
        prepare = theirs.prepare
        keras_side = KerasSide(self.pairing.model, used, moved, self.pairing.pick(side.output))
        return run_together(
            self.pairing,
            side,
            keras_side,
            self.batches,
            limit=self.options.limit,
            on_step=self.on_step("float64, each step begun anew" if anew else "float64"),
            anew=anew,
            labels=None
            if prepare is None or own_loss_is_wrong
            else lambda batch: labels_fed(self.pairing, prepare, batch),
        )

    def noise(self) -> list[NoiseRow]:
        """The float32 runs."""
        self.reset(torch.float32)
        first, again = self.torch_side(torch.float32), self.torch_side(torch.float32)
        exact = self.torch_side(torch.float64)
        loss, optimizer = self.mapped(first)
        keras_side = KerasSide(self.pairing.model, loss.keras, optimizer.keras, self.pairing.pick(first.output))
        return run_with_noise(self.pairing, (first, again, exact), keras_side, self.batches, self.on_step("float32"))

    def reset(self, dtype: torch.dtype) -> None:
        """Both start from the module's weights; in float64 a sum of two biases isn't rounded to float32."""
        self.pairing.set_weights(self.torch_side(dtype).state())

    def on_step(self, what: str) -> Callable[[int], None]:
        """Progress for one run."""
        return lambda step: self.options.on_progress(f"training in {what}: step {step}/{len(self.batches)}")


class _Clock:
    """Says each stage as it begins, and how long it took."""

    def __init__(self, on_progress: Progress) -> None:
        self.on_progress, self.seconds = on_progress, dict[str, float]()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.on_progress(name)
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


@contextmanager
def _own_weights(model: keras.Model | None) -> Iterator[None]:
    """Give the user's Keras model its weights back."""
    before = model.get_weights() if model is not None else []
    try:
        yield
    finally:
        if model is not None:
            model.set_weights(before)


def _pair(
    module: nn.Module,
    model: keras.Model | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: ParityOptions,
) -> Pairing:
    if model is not None:
        from translator.audit.align import align

        return pair_by_alignment(module, align(module, model, args, kwargs), model)
    from translator.pipeline import convert

    conversion = convert(
        module, args, example_kwargs=kwargs, proof=False, seed=options.seed, on_progress=options.on_progress
    )
    if conversion.weightmap is None:
        raise InputError("this engine gives no weight bindings", fix="use the native engine")
    bindings, model = conversion.weightmap.bindings, conversion.model
    if options.exact_batchnorm:
        model = with_exact_batchnorm(model, cumulative=cumulative_layers(module, bindings))
    return pair_by_bindings(module, model, bindings, conversion.claims)


def _usual(module: nn.Module) -> Optimizer:
    return torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)


def _one_line(thing: Any) -> str:
    """An optimizer or a loss with the settings that say something."""
    if isinstance(thing, torch.optim.Optimizer):
        group = thing.param_groups[0]
        keys = ("lr", "momentum", "nesterov", "betas", "alpha", "eps", "weight_decay", "amsgrad", "centered")
        shown = ", ".join(f"{k}={group[k]}" for k in keys if k in group and group[k] not in (0, False, None))
        more = f"; {len(thing.param_groups)} groups" if len(thing.param_groups) > 1 else ""
        return f"{type(thing).__name__}({shown}{more})"
    return type(thing).__name__


def _versions() -> dict[str, str]:
    from translator.runtime import versions

    return dict(versions())
