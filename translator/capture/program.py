"""A saved program (`torch.export.save`) as an nn.Module with the modules that it was traced from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from translator.errors import InputError
from translator.user_code import users_code

if TYPE_CHECKING:
    from torch import nn


def build_program(path: Path) -> nn.Module:
    """The program of a `.pt2` file; its example inputs stand in `example_inputs`, as (arguments, keywords).

    Sizes that were fixed when it was exported stay fixed. Raises InputError where the file isn't such a program.
    """
    import torch

    with users_code(f"{path}: not a program that torch.export.load() reads:", fix="write it with torch.export.save()"):
        program = torch.export.load(path)
        module: nn.Module = torch.export.unflatten(program)
    if program.example_inputs is None:
        raise InputError(f"{path}: holds no example inputs", fix="export the model again: torch.export keeps them")
    args, kwargs = program.example_inputs
    module.example_inputs = (tuple(args), dict(kwargs or {}))  # type: ignore[assignment]
    return module
