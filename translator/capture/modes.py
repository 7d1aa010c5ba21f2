"""The mode in which a module is traced: the user's module is left as it was given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode while the block runs; afterwards each module's own mode is back (some may have been frozen)."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def traceable(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, without what only asks or hides: a trace can't answer, or loses modules."""
    with evaluating(module), masks_as_given(), without_checks(), without_idle_autocast():
        yield


@contextmanager
def masks_as_given() -> Iterator[None]:
    """torch.nn's transformers take a mask as it is: they would ask whether it is causal, which a trace can't answer.

    It only decides which of two ways that compute the same is taken.
    """
    from torch.nn.modules import transformer

    with patch.object(transformer, "_detect_is_causal_mask", lambda mask, is_causal=None, size=None: bool(is_causal)):
        yield


@contextmanager
def without_idle_autocast() -> Iterator[None]:
    """`with torch.autocast(…, enabled=False)` where none is on does nothing; a trace would hide the modules in it."""
    from torch.amp import autocast

    enter: Any = autocast.__enter__
    leave: Any = autocast.__exit__

    def idle(block: Any) -> bool:
        import torch

        return not block._enabled and not torch.is_autocast_enabled(block.device)

    with (
        patch.object(autocast, "__enter__", lambda block: block if idle(block) else enter(block)),
        patch.object(autocast, "__exit__", lambda block, *error: None if idle(block) else leave(block, *error)),
    ):
        yield


@contextmanager
def without_checks() -> Iterator[None]:
    """PyTorch's distributions don't look whether their parameters are legal: a trace can't answer."""
    from torch.distributions import Distribution

    checked = Distribution._validate_args
    Distribution.set_default_validate_args(value=False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(checked)


@contextmanager
def without_cache(module: nn.Module) -> Iterator[bool]:
    """No cache of keys and values for generation, as transformers' models make one: it is no tensor. True: one had."""
    owned: list[Any] = [getattr(part, "config", None) for part in module.modules()]
    configs = {id(config): config for config in owned if getattr(config, "use_cache", False)}
    for config in configs.values():
        config.use_cache = False
    try:
        yield bool(configs)
    finally:
        for config in configs.values():
            config.use_cache = True


def is_double(module: nn.Module) -> bool:
    """Whether the module computes in float64: it has floats, and all of them are."""
    import torch

    dtypes = {t.dtype for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()}
    return dtypes == {torch.float64}
