"""What `translator parity` asks for, made and run: the models from their names, the recipe from its options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from translator.config import ParityRequest, Progress
from translator.errors import InputError
from translator.training.batches import default_loss
from translator.training.parity_report import ParityReport
from translator.training.side_by_side import ParityOptions, parity
from translator.training.torch_side import TorchRecipe, outputs_in_training
from translator.training.user_recipe import Prepare, compiled_recipe
from translator.user_code import owner, parse_spec

if TYPE_CHECKING:
    from torch.optim import Optimizer


def parity_of(request: ParityRequest, on_progress: Progress) -> ParityReport:
    """What a request asks for, in this process."""
    from translator.capture.source import load, needs_pytorch
    from translator.keras_source import load_keras

    needs_pytorch(request.source, "an ONNX file can't be trained in PyTorch")
    on_progress("loading the PyTorch model")
    source = load(request.source)
    model, theirs = None, None
    if request.keras is not None:
        model = load_keras(request.keras, seed=request.source.seed).model
        theirs = compiled_recipe(model, _pipeline(request.keras))
    recipe = _recipe(request, source.module, source.example_inputs, dict(source.example_kwargs))
    report = parity(
        source.module,
        source.example_inputs,
        model,
        example_kwargs=source.example_kwargs,
        recipe=recipe,
        keras_recipe=theirs,
        options=ParityOptions(
            steps=request.steps,
            batch=request.batch,
            seed=request.source.seed,
            exact_batchnorm=request.exact_batchnorm,
            float32=request.float32,
            on_progress=on_progress,
        ),
        names=(source.spec or source.name, request.keras or ""),
    )
    return replace(report, torch_name=source.name, notes=(*source.notes, *report.notes))


def _pipeline(spec: str) -> Prepare | None:
    """`prepare_batch(images, labels)` of the Python file or module that holds the factory, if it offers one."""
    parsed = parse_spec(spec)
    offer = getattr(owner(parsed), "prepare_batch", None) if parsed.right else None
    return offer if callable(offer) else None


def _recipe(request: ParityRequest, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TorchRecipe:
    rate = request.learning_rate
    makers: Mapping[str, Callable[[nn.Module], Optimizer]] = {
        "sgd": lambda m: torch.optim.SGD(m.parameters(), lr=rate, momentum=0.9),
        "adam": lambda m: torch.optim.Adam(m.parameters(), lr=rate),
        "adamw": lambda m: torch.optim.AdamW(m.parameters(), lr=rate),
        "rmsprop": lambda m: torch.optim.RMSprop(m.parameters(), lr=rate),
    }
    if request.optimizer.lower() not in makers:
        raise InputError(f"--optimizer {request.optimizer}: not known", fix=f"one of {', '.join(makers)}")
    loss = default_loss(outputs_in_training(module, args, kwargs)[0])
    return TorchRecipe(loss=loss, optimizer=makers[request.optimizer.lower()])
