"""What PyTorch itself computes: every call of every module, seen by hooks while the model runs once.

Nothing is kept here. A listener gets each call as it begins and as it ends, and takes what it needs; in-place
operations may change any tensor later.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from translator.verify.forward import forward_called

Key = tuple[str, int]
"""A module call: the module's path and how many calls of it came before."""


@dataclass(slots=True, kw_only=True)
class ModuleEvent:
    """One call of one module.

    leaf: no other module was called inside (known when the call ends). args, kwargs: as the module got them; at the end
    of the call they are there only where the listener asked, as copies if the module may have worked in place.
    parents: the calls around it, from the root inward. shapes, floats, storages: of the tensor arguments, in any case;
    arguments: which argument each of them is, by its number or keyword ("0", "mask", "states.1").
    """

    path: str
    call: int
    module: nn.Module
    parents: tuple[Key, ...]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    leaf: bool = True
    shapes: tuple[tuple[int, ...], ...] = ()
    floats: bool = False
    storages: frozenset[int] = frozenset()
    arguments: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        """The module call's name."""
        return self.path, self.call

    @property
    def inputs(self) -> list[torch.Tensor]:
        """The tensor arguments, flattened, in order."""
        return tensors_in((self.args, self.kwargs))


class Listener(Protocol):
    """Who is told about the calls."""

    def enter(self, event: ModuleEvent) -> bool:
        """A call begins. True: keep copies of its arguments until it ends."""

    def leave(self, event: ModuleEvent, outputs: list[torch.Tensor]) -> Mapping[int, torch.Tensor]:
        """A call ended with these tensors. What is returned takes the place of some of them (by number)."""


@dataclass(slots=True)
class _Recorder:
    """Hooks on every module, and the stack of calls that are under way."""

    listener: Listener
    paths: Mapping[int, str]
    calls: Counter[str] = field(default_factory=Counter)
    stack: list[ModuleEvent] = field(default_factory=list)
    silent: bool = False

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook."""
        if self.silent:
            return
        path = self.paths[id(module)]
        parents = tuple(e.key for e in self.stack)
        event = ModuleEvent(path=path, call=self.calls[path], module=module, parents=parents, args=args, kwargs=kwargs)
        given = event.inputs
        event.arguments = tuple(names_in(args)) + tuple(names_in(kwargs))
        event.shapes = tuple(tuple(t.shape) for t in given)
        event.floats = any(t.is_floating_point() for t in given)
        event.storages = frozenset(t.untyped_storage().data_ptr() for t in given)
        self.calls[path] += 1
        if self.stack:
            self.stack[-1].leaf = False
        self.silent = True
        keep = self.listener.enter(event)
        self.silent = False
        if keep and changes_inputs(module):
            event.args, event.kwargs = map_tensors(torch.clone, (args, kwargs))
        elif not keep:
            event.args, event.kwargs = (), {}
        self.stack.append(event)

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Forward hook."""
        if self.silent:
            return None
        event = self.stack.pop()
        found = tensors_in(output)
        self.silent = True
        replaced = self.listener.leave(event, found)
        self.silent = False
        if not replaced:
            return None
        by_id = {id(found[i]): tensor for i, tensor in replaced.items()}
        return map_tensors(lambda t: by_id.get(id(t), t), output)


def run(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], listener: Listener) -> list[torch.Tensor]:
    """Run `module` once in evaluation mode without gradients, telling `listener` of every call; its output tensors.

    It runs on copies of its arguments, which it may change in place. A module that stands under two paths goes by the
    first; modules of the same call count from 0 up. A call is what the forward gets and gives: what hooks of the user's
    compute before and after it is around the call, but for the whole model's.
    """
    paths = {id(child): path for path, child in module.named_modules()}
    recorder = _Recorder(listener=listener, paths=paths)
    with ExitStack() as stack:
        stack.enter_context(evaluating(module))
        stack.enter_context(torch.no_grad())
        for child in module.modules():
            if isinstance(child, torch.jit.ScriptModule):
                continue
            inner = child is not module
            stack.callback(child.register_forward_pre_hook(recorder.before, with_kwargs=True).remove)
            stack.callback(child.register_forward_hook(recorder.after, with_kwargs=True, prepend=inner).remove)
        stack.enter_context(forward_called())
        args, kwargs = map_tensors(torch.clone, (args, dict(kwargs)))
        return tensors_in(module(*args, **kwargs))


def changes_inputs(module: nn.Module) -> bool:
    """Whether the module may work in place: not known of the user's own, said by those of PyTorch."""
    return bool(getattr(module, "inplace", False)) or not type(module).forward.__module__.startswith("torch.nn")


def outputs_of(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    """Call the module on copies of its arguments (it may work in place), without gradients; its output tensors."""
    with torch.no_grad(), forward_called():
        args, kwargs = map_tensors(torch.clone, (args, dict(kwargs)))
        return tensors_in(module(*args, **kwargs))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode while the block runs; afterwards each module's own mode is back.

    PyTorch's attention has a fast way whose output lies in order in memory, which `view` behind it needs. It isn't
    taken where a run is recorded or computes in float64, so what the other way gives is put in order.
    """
    modes = [(child, child.training) for child in module.modules()]
    module.eval()
    hooks = [
        child.register_forward_hook(lambda _, __, output: map_tensors(torch.Tensor.contiguous, output))
        for child in module.modules()
        if isinstance(child, torch.nn.MultiheadAttention)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for child, mode in modes:
            child.training = mode


def tensors_in(value: Any) -> list[torch.Tensor]:
    """All tensors of a nested structure, in order: tuples, lists, mappings, dataclasses."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [t for item in value.values() for t in tensors_in(item)]
    if isinstance(value, (tuple, list)):
        return [t for item in value for t in tensors_in(item)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [t for f in dataclasses.fields(value) for t in tensors_in(getattr(value, f.name))]
    return []


def names_in(value: Any) -> list[str]:
    """The way to each tensor of a nested structure, in the order of `tensors_in`: numbers, keys, fields, by dots."""
    if isinstance(value, torch.Tensor):
        return [""]
    if isinstance(value, Mapping):
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, (tuple, list)):
        items = enumerate(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
    else:
        return []
    return [f"{key}.{rest}" if rest else str(key) for key, item in items for rest in names_in(item)]


def map_tensors(change: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    """The same structure with every tensor changed; what is no structure stays the same object."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, tuple):
        items = [map_tensors(change, item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, list):
        return [map_tensors(change, item) for item in value]
    if isinstance(value, Mapping):
        changed = {key: map_tensors(change, item) for key, item in value.items()}
        make: Callable[..., Any] = type(value)
        return make(**changed) if isinstance(value, OrderedDict) and hasattr(value, "to_tuple") else make(changed)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: map_tensors(change, getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return dataclasses.replace(value, **fields)
    return value
