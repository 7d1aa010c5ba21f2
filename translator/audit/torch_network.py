"""A PyTorch module as a `Network`: hooks on its modules and an eye on the functions in between, while it runs once.

Nothing is exported or compiled, so a model that no exporter takes can still be audited. Tensors are told apart by
identity and are not kept alive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from translator.audit.kinds import kind_and_signature
from translator.audit.moves import Move, moved_again
from translator.audit.network import Network, Unit, Weight
from translator.audit.torch_functions import FunctionCall, function_call, joining, scalar_step
from translator.types import Shape
from translator.verify.facts import Recurrent
from translator.verify.facts_torch import is_foreign, own_forward, torch_class, torch_facts
from translator.verify.torch_record import Key, ModuleEvent, map_tensors, run, tensors_in


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleCall:
    """One call of one module and the values it got and gave; a value the tracer never saw is None."""

    path: str
    call: int
    module: nn.Module
    leaf: bool
    inputs: tuple[int | None, ...]
    outputs: tuple[int | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchNetwork:
    """The network, every module call with its values, and the state-dict names that are another name of a tensor.

    moves: for a value that a function without weights made of one other, how to make it of another tensor.
    """

    network: Network
    calls: tuple[ModuleCall, ...]
    moves: Mapping[int, Move] = field(repr=False)
    aliases: Mapping[str, str]
    tensors: Mapping[str, torch.Tensor] = field(repr=False)


def trace_module(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> TorchNetwork:
    """Run `module` once in evaluation mode on the example arguments and write down what it does."""
    tensors, aliases = state_tensors(module)
    tracer = _Tracer(module, tensors)
    tracer.begin(tensors_in((args, kwargs or {})))
    with tracer:
        outputs = run(module, args, kwargs or {}, tracer)
    numbers = [tracer.number(t) for t in outputs]
    network = Network(
        name=type(module).__name__,
        units=tuple(tracer.units),
        shapes=tuple(tracer.shapes),
        inputs=tuple(tracer.inputs),
        outputs=tuple(n for n in numbers if n is not None),
        past=tracer.past,
        scalars=tracer.scalars,
    )
    return TorchNetwork(
        network=network, calls=tuple(tracer.calls), moves=tracer.moves, aliases=aliases, tensors=tensors
    )


def state_tensors(module: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Every tensor of the state dict by its first name, and the further names of shared ones."""
    first: dict[int, str] = {}
    tensors: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    parameters = module.named_parameters(remove_duplicate=False)
    buffers = module.named_buffers(remove_duplicate=False)
    saved = set(module.state_dict(keep_vars=True))
    for name, tensor in (*parameters, *buffers):
        if name not in saved:
            continue
        known = first.setdefault(id(tensor), name)
        if known == name:
            tensors[name] = tensor
        else:
            aliases[name] = known
    return tensors, aliases


_HOLE = object()


class _Tracer(TorchFunctionMode):
    """Listens to module calls, and sees every function called between them."""

    def __init__(self, root: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.root = root
        self.names = {id(t): name for name, t in tensors.items()}
        self.units: list[Unit] = []
        self.shapes: list[Shape] = []
        self.past: dict[int, tuple[int, ...]] = {}
        self.scalars: dict[int, tuple[str, float]] = {}
        self.calls: list[ModuleCall] = []
        self.moves: dict[int, Move] = {}
        self.inputs: list[int] = []
        self.values: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self.made_of: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self.open: list[tuple[Key, tuple[int | None, ...]]] = []
        self.fed: dict[Key, tuple[str, ...]] = {}
        self.atomic: Key | None = None

    def begin(self, inputs: Iterable[torch.Tensor]) -> None:
        """Number the model's inputs."""
        self.inputs = [self._new(t) for t in inputs]

    def number(self, tensor: torch.Tensor) -> int | None:
        """The number of a value, None for what was not computed from the inputs."""
        found: int | None = self.values.get(tensor)  # type: ignore[no-untyped-call]
        return found

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.atomic is not None:
            return func(*args, **kwargs)
        given = tensors_in((args, kwargs))
        read = [n for t in given if (n := self.number(t)) is not None]
        weights = self._weights(given)
        call = function_call(func, args, kwargs) if read else None
        if call is not None and call.product and not (call.slots and id(call.slots["weight"]) in weights):
            call = joining(func)
        again = self._again(func, args, kwargs) if len(read) == 1 and not weights else None
        result = func(*args, **kwargs)
        outputs = tensors_in(result)
        if getattr(func, "__name__", "") == "__setitem__":
            outputs = given[:1]
        if outputs:
            if getattr(func, "__name__", "").endswith("_"):
                self._forget(outputs)  # in place: another value in the same tensor
            self._function(call, read, weights, outputs, _name(func))
            self._scalar(func, args, outputs)
        if again is not None:
            self._remember(again, outputs)
        return result

    def enter(self, event: ModuleEvent) -> bool:
        """A module call begins: one that can be described as a whole is not looked into."""
        if self.atomic is None:
            self.open.append((event.key, tuple(self.number(t) for t in event.inputs)))
            if weights := self._weights(event.inputs):
                self.fed[event.key] = tuple(name for group in weights.values() for name in group)
            if is_atomic(event.module):
                self.atomic = event.key
        return False

    def leave(self, event: ModuleEvent, outputs: list[torch.Tensor]) -> Mapping[int, torch.Tensor]:
        """A module call ended: it becomes a unit, or its insides have."""
        if self.atomic is not None and event.key != self.atomic:
            return {}
        _, inputs = self.open.pop()
        if self.atomic is not None:
            self.atomic = None
            self._module(event, [n for n in inputs if n is not None], outputs)
        numbers = tuple(self.number(t) for t in outputs)
        self.calls.append(
            ModuleCall(
                path=event.path, call=event.call, module=event.module, leaf=event.leaf, inputs=inputs, outputs=numbers
            )
        )
        return {}

    def _forget(self, outputs: list[torch.Tensor]) -> None:
        for tensor in outputs:
            self.values.pop(tensor, None)  # type: ignore[no-untyped-call]

    def _scalar(self, func: Callable[..., Any], args: Any, outputs: list[torch.Tensor]) -> None:
        step = scalar_step(func, args)
        number = self.number(outputs[0])
        if step is not None and number is not None and number in self.past:
            self.scalars[number] = step

    def _remember(self, again: Callable[[torch.Tensor], Any], outputs: list[torch.Tensor]) -> None:
        for place, tensor in enumerate(outputs):
            number = self.number(tensor)
            if number is not None:
                self.moves.setdefault(number, partial(moved_again, again, place))

    def _again(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Callable[[torch.Tensor], Any]:
        """The call with a hole where its one value was; nothing of the value is kept."""
        mark: Callable[[torch.Tensor], Any] = lambda t: _HOLE if self.number(t) is not None else t
        held = map_tensors(mark, (args, kwargs))

        def call(tensor: torch.Tensor) -> Any:
            filled_args, filled_kwargs = tree_map(lambda x: tensor if x is _HOLE else x, held)
            return func(*filled_args, **filled_kwargs)

        return call

    def _new(self, tensor: torch.Tensor) -> int:
        self.shapes.append(tuple(tensor.shape))
        self.values[tensor] = len(self.shapes) - 1
        return len(self.shapes) - 1

    def _weights(self, given: Iterable[torch.Tensor]) -> dict[int, tuple[str, ...]]:
        """For each tensor (by id) that is a parameter or buffer, or is made of some, their names."""
        found: dict[int, tuple[str, ...]] = {}
        for tensor in given:
            if id(tensor) in self.names:
                found[id(tensor)] = (self.names[id(tensor)],)
            elif tensor in self.made_of:
                found[id(tensor)] = self.made_of[tensor]
        return found

    def _function(
        self,
        call: FunctionCall | None,
        read: list[int],
        weights: dict[int, tuple[str, ...]],
        outputs: list[torch.Tensor],
        name: str,
    ) -> None:
        if not read:
            names = tuple(dict.fromkeys(name for group in weights.values() for name in group))
            for tensor in outputs:
                if names and id(tensor) not in self.names:
                    self.made_of[tensor] = names
            return
        several = len(set(read)) > 1 or (len(read) > 1 and call is not None)
        if call is None or (call.facts is None and not several and not weights):
            self._moved(read, weights, outputs, name)
            return
        held = self._held(call, weights)
        kind, signature = call.kind, call.signature
        if call.facts is None and held:
            kind, signature = ("constant", ()) if not several else (kind, ())
            signature = tuple(w.size for w in held)
        self._add(kind, signature, read, outputs, call=call, weights=held, name=name)

    def _moved(
        self, read: list[int], weights: dict[int, tuple[str, ...]], outputs: list[torch.Tensor], name: str
    ) -> None:
        """What only moves elements, or computes with one tensor and constants: edges run past it."""
        sources = tuple(dict.fromkeys(read))
        if held := self._named(weights):
            self._add("constant", tuple(w.size for w in held), read, outputs, call=None, weights=held, name=name)
            return
        for tensor in outputs:
            if self.number(tensor) in sources and tensor.shape == self.shapes[sources[0]] and len(sources) == 1:
                continue
            self.past[self._new(tensor)] = sources

    def _held(self, call: FunctionCall, weights: dict[int, tuple[str, ...]]) -> tuple[Weight, ...]:
        held: list[Weight] = []
        for slot, tensor in (call.slots or {}).items():
            for name in weights.pop(id(tensor), ()):
                weight = self._weight(slot, name, derived=id(tensor) not in self.names)
                turned = call.product and slot == "weight" and len(weight.shape) == 2
                held.append(replace(weight, turned=True, shape=weight.shape[::-1]) if turned else weight)
        return (*held, *self._named(weights))

    def _named(self, weights: dict[int, tuple[str, ...]]) -> tuple[Weight, ...]:
        names = dict.fromkeys(name for group in weights.values() for name in group)
        return tuple(self._weight("value", n) for n in names if find(self.root, n).is_floating_point())

    def _weight(self, slot: str, name: str, *, derived: bool = False) -> Weight:
        tensor = find(self.root, name)
        shape, trainable = tuple(tensor.shape), isinstance(tensor, nn.Parameter) and tensor.requires_grad
        return Weight(slot=slot, name=name, shape=shape, trainable=trainable, derived=derived)

    def _module(self, event: ModuleEvent, inputs: list[int], outputs: list[torch.Tensor]) -> None:
        shape = self.shapes[inputs[0]] if inputs else None
        facts = torch_facts(event.module, shape)
        known = kind_and_signature(facts) if facts is not None else None
        if not inputs and self._made_of_weights(event, outputs):
            return
        if known is None or not inputs:
            sources = tuple(dict.fromkeys(inputs))
            for place, tensor in enumerate(outputs):
                if self.number(tensor) not in sources:
                    number = self._new(tensor)
                    self.past[number] = sources
                    if len(sources) == 1:
                        self.moves[number] = partial(moved_again, event.module, place)
            return
        held = []
        for slot, tensor in (*event.module.named_parameters(), *event.module.named_buffers()):
            if id(tensor) in self.names:
                held.append(self._weight(slot, self.names[id(tensor)], derived=slot.startswith("parametrizations.")))
        if isinstance(facts, Recurrent) and facts.layers > 1:
            self._stack(event, facts, inputs, outputs, held)
            return
        made = tuple(self._new(t) for t in outputs)
        self.units.append(
            Unit(
                index=len(self.units), kind=known[0], signature=known[1], path=event.path, call=event.call,
                text=torch_class(event.module), inputs=tuple(inputs), outputs=made, facts=facts, weights=tuple(held),
                module=event.module,
            )
        )  # fmt: skip

    def _made_of_weights(self, event: ModuleEvent, outputs: list[torch.Tensor]) -> bool:
        """A module that reads nothing of the model's inputs (a table looked up at 0, 1, 2 …) gives something made of
        its weights, and of those that its arguments were made of."""
        names = [self.names[id(t)] for t in event.module.parameters() if id(t) in self.names]
        names += self.fed.pop(event.key, ())
        for tensor in outputs if names else ():
            self.made_of[tensor] = tuple(dict.fromkeys(names))
        return bool(names)

    def _stack(
        self, event: ModuleEvent, facts: Recurrent, inputs: list[int], outputs: list[torch.Tensor], held: list[Weight]
    ) -> None:
        """A recurrent module of several layers: a unit for each layer, one above the other."""
        made = tuple(self._new(t) for t in outputs)
        read = tuple(inputs)
        for layer in range(facts.layers):
            last = layer == facts.layers - 1
            own = tuple(w for w in held if w.slot.split("_l")[-1].split("_")[0] == str(layer))
            one = replace(facts, layers=1, dropout=0.0 if last else facts.dropout)
            if not last:
                self.shapes.append(self.shapes[made[0]])
            out = made if last else (len(self.shapes) - 1,)
            kind, signature = kind_and_signature(one) or ("rnn", ())
            self.units.append(
                Unit(
                    index=len(self.units), kind=kind, signature=signature, path=event.path, call=event.call,
                    text=f"{torch_class(event.module)} layer {layer}", inputs=read, outputs=out, facts=one, weights=own,
                    module=event.module,
                )
            )  # fmt: skip
            read = out

    def _add(
        self,
        kind: str,
        signature: tuple[Any, ...],
        read: list[int],
        outputs: list[torch.Tensor],
        *,
        call: FunctionCall | None,
        weights: tuple[Weight, ...],
        name: str,
    ) -> None:
        path, number = self.open[-1][0] if self.open else ("", 0)
        made = tuple(self._new(t) for t in outputs)
        read = read[:3] if kind == "attend" else read  # a mask has no layer of its own: the numbers judge it
        self.units.append(
            Unit(
                index=len(self.units),
                kind=kind,
                signature=signature,
                path=path,
                call=number,
                text=kind,
                inputs=tuple(read),
                outputs=made,
                facts=call.facts if call else None,
                weights=weights,
                function=name,
                equation=call.equation if call else "",
            )
        )


def _name(function: Callable[..., Any]) -> str:
    """`add` for add, add_ and __add__."""
    return str(getattr(function, "__name__", "")).strip("_")


def is_atomic(module: nn.Module) -> bool:
    """Whether the module is described as a whole: a class of PyTorch's own, run by PyTorch's own forward."""
    return torch_facts(module) is not None and (not own_forward(module) or is_foreign(module))


def find(root: nn.Module, name: str) -> torch.Tensor:
    """The parameter or buffer of that dotted name."""
    owner, _, leaf = name.rpartition(".")
    tensor: torch.Tensor = getattr(root.get_submodule(owner), leaf)
    return tensor
