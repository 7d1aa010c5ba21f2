"""Run a written file with Keras replaced by a recorder, and compare what it builds with the plan, call by call.

It knows nothing of how the file was written: layers with their names and settings, operations with their arguments,
and who reads whose result, all must be the plan's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from translator.emit.nesting import is_deep
from translator.emit.source.listing import keras_order
from translator.emit.source.settings import ABSENT, FREE, REQUIRED, defaults, normalised, op_settings
from translator.emit.source.syntax import literal
from translator.emit.source.tree import live_calls
from translator.errors import InternalError
from translator.plan.calls import LayerCall, LayerSpec, Plan, Ref

Key = tuple[Any, ...]


def check(source: str, plan: Plan) -> list[tuple[Sequence[str], Sequence[str]]]:
    """Raise InternalError where the source doesn't build exactly the plan's network.

    Gives the names of the layers of a class as the source's model lists them, and as the converted model does, for each
    class where the two differ: Keras wouldn't find their weights in its file. Nothing of a model made of models.
    """
    book = _Book()
    want = _expected(plan, book)
    recorder = _Recorder(book, [book.input(k) for k in range(len(plan.inputs))])
    got = recorder.run(source)
    missing = [name for name in want.settings if name not in recorder.settings]
    added = [name for name in recorder.settings if name not in want.settings]
    if missing or added:
        raise InternalError(f"the written source lacks the layers {missing[:5]} and adds {added[:5]}")
    for name, settings in want.settings.items():
        if recorder.settings[name] != settings:
            raise InternalError(f"the written layer {name} is {recorder.settings[name]}, not {settings}")
    if got != want.outputs:
        raise InternalError(f"the written source wires layers otherwise: first at {_first(want, recorder)}")
    if recorder.listed is None or is_deep(plan):
        return []
    listed: dict[str, list[str]] = {}
    for spec in recorder.listed:
        listed.setdefault(spec.cls, []).append(spec.name)
    both = [(listed.get(cls, []), names) for cls, names in keras_order(plan).items()]
    return [(mine, names) for mine, names in both if mine != names]


class _Book:
    """Numbers for values, equal where they are computed alike."""

    def __init__(self) -> None:
        self.numbers: dict[Key, int] = {}
        self.parts: dict[int, int] = {}

    def number(self, key: Key) -> int:
        return self.numbers.setdefault(key, len(self.numbers))

    def input(self, index: int) -> int:
        return self.number(("input", index))

    def output(self, call: int, part: int) -> int:
        return call if part == 0 and self.parts.get(call, 1) == 1 else self.number(("part", call, part))


class _Expected:
    def __init__(self) -> None:
        self.settings: dict[str, Mapping[str, str]] = {}
        self.outputs: list[int] = []
        self.calls: list[tuple[str, int]] = []


def _expected(plan: Plan, book: _Book) -> _Expected:
    found = _Expected()
    specs = {spec.name: spec for spec in plan.layers}
    values = {value: book.input(k) for k, (_, value) in enumerate(plan.inputs)}
    for call in live_calls(plan):
        args = [_frozen(a, values) for a in call.args]
        given = call.kwargs if isinstance(call, LayerCall) else op_settings(call.op, call.kwargs)
        kwargs = {k: _frozen(v, values) for k, v in given.items()}
        head = ("layer", call.layer) if isinstance(call, LayerCall) else ("op", call.op)
        number = book.number((*head, tuple(args), tuple(sorted(kwargs.items()))))
        book.parts[number] = len(call.outputs)
        values.update({v: book.output(number, k) for k, v in enumerate(call.outputs)})
        found.calls.append((call.layer if isinstance(call, LayerCall) else call.name, number))
        if isinstance(call, LayerCall):
            first = next((a for a in call.args if isinstance(a, Ref)), None) or next(_refs(call.args), None)
            info = plan.values.get(first.value) if first is not None else None
            spec = specs[call.layer]
            rank = None if info is None else len(info.layout.axes)
            found.settings[call.layer] = _settings(spec.cls, normalised(spec.cls, spec.config, rank))
    found.outputs = [values[value] for _, value in plan.outputs]
    return found


def _refs(arg: Any) -> Iterator[Ref]:
    if isinstance(arg, Ref):
        yield arg
    elif isinstance(arg, tuple | list):
        for item in arg:
            yield from _refs(item)


def _settings(cls: str, given: Mapping[str, Any]) -> dict[str, str]:
    """Every setting as text, defaults included."""
    known = {k: v for k, v in defaults(cls).items() if v is not REQUIRED}
    full = normalised(cls, {**known, **given}, None)
    return {"class": cls} | {k: literal(v) for k, v in full.items() if v is not FREE and v is not ABSENT}


def _frozen(arg: Any, values: Mapping[str, int]) -> Any:
    """An argument as something that can be compared; lists and tuples are alike, as they are to Keras."""
    if isinstance(arg, Ref):
        return ("value", values[arg.value])
    if isinstance(arg, _Value):
        return ("value", arg.number)
    if isinstance(arg, np.ndarray):
        return ("array", str(arg.dtype), arg.shape, arg.tobytes())
    if isinstance(arg, tuple | list):
        return tuple(_frozen(a, values) for a in arg)
    if isinstance(arg, dict):
        return tuple((k, _frozen(v, values)) for k, v in arg.items())
    return literal(arg)


class _Value:
    """A tensor of the replay."""

    shape, dtype = (), "float32"

    def __init__(self, number: int, recorder: _Recorder) -> None:
        self.number, self._recorder = number, recorder

    def __getitem__(self, index: Any) -> _Value:
        return self._recorder.call(("op", "get_item"), (self, index), {})

    def __iter__(self) -> Iterator[_Value]:
        book = self._recorder.book
        for part in range(book.parts.get(self.number, 1)):
            yield _Value(book.output(self.number, part), self._recorder)


class _Recorder:
    """Stands in for Keras while a written file runs."""

    def __init__(self, book: _Book, inputs: Sequence[int]) -> None:
        self.book = book
        self.settings: dict[str, Mapping[str, str]] = {}
        self.made: set[int] = set()
        self.listed: list[LayerSpec] | None = None
        self._inputs = iter(inputs)

    def run(self, source: str) -> list[int]:
        """Run the file's `build_model`; gives the numbers of its outputs."""
        modules = self._modules()
        before = {name: sys.modules.get(name) for name in modules}
        scope: dict[str, Any] = {"__name__": "written"}
        sys.modules.update(modules)
        try:
            exec(compile(source, "<written source>", "exec"), scope)  # noqa: S102 our own text, made of literals and names
            if "nested" in scope:
                scope["nested"] = _plainly
            model = scope["build_model"]()
            if not model.functional:
                self.listed = [part.spec for part in model.layers if isinstance(part, _Made)]
        finally:
            for name, module in before.items():
                sys.modules.pop(name)
                if module is not None:
                    sys.modules[name] = module
        outputs = model.outputs if isinstance(model.outputs, list | tuple) else [model.outputs]
        return [o.number for o in outputs]

    def call(self, head: Key, args: Sequence[Any], kwargs: Mapping[str, Any]) -> _Value:
        """Note one call."""
        frozen = tuple(_frozen(a, {}) for a in args)
        named = tuple(sorted((k, _frozen(v, {})) for k, v in kwargs.items()))
        number = self.book.number((*head, frozen, named))
        self.made.add(number)
        return _Value(number, self)

    def input(self, *args: Any, **kwargs: Any) -> _Value:
        """`keras.Input`."""
        return _Value(next(self._inputs), self)

    def layer(self, cls: str, args: Sequence[Any], settings: dict[str, Any]) -> Any:
        """Make a layer; gives what calls it."""
        name = settings.pop("name")
        order = [key for key in defaults(cls) if key != "trainable"]
        given = {k: v.spec if isinstance(v, _Made) else v for k, v in zip(order, args, strict=False)}
        given |= {k: v.spec if isinstance(v, _Made) else v for k, v in settings.items()}
        return _Made(LayerSpec(name=name, cls=cls, config=given), self)

    def _modules(self) -> dict[str, ModuleType]:
        recorder = self

        class Names:
            """Makes what is asked for."""

            def __init__(self, make: Any, path: str = "") -> None:
                self._make, self._path = make, path

            def __getattr__(self, name: str) -> Any:
                if name == "Layer":
                    return _Layer
                return Names(self._make, f"{self._path}.{name}" if self._path else name)

            def __call__(self, *args: Any, **kwargs: Any) -> Any:
                return self._make(self._path, args, kwargs)

        keras = ModuleType("keras")
        keras.__dict__.update(
            layers=Names(lambda cls, args, kwargs: recorder.layer(cls, args, dict(kwargs))),
            ops=Names(lambda op, args, kwargs: recorder.call(("op", op), args, op_settings(op, kwargs))),
            backend=Names(lambda path, args, kwargs: None),
            saving=Names(lambda path, args, kwargs: lambda made: made),
            Input=self.input,
            Model=_Model,
            Sequential=_Sequential,
        )
        return {"keras": keras, "keras.layers": keras.layers, "keras.ops": keras.ops}


class _Made:
    """A layer of Keras' that was made, and may be called, or wrapped by another."""

    def __init__(self, spec: LayerSpec, recorder: _Recorder) -> None:
        self.spec, self._recorder, self._layers, self.name = spec, recorder, (), spec.name
        self._settings = _settings(spec.cls, normalised(spec.cls, spec.config, None))

    def __call__(self, *args: Any, **kwargs: Any) -> _Value:
        name = self.spec.name
        if self._recorder.settings.setdefault(name, self._settings) is not self._settings:
            raise InternalError(f"the written source makes two layers of the name {name}")
        return self._recorder.call(("layer", name), args, kwargs)


class _Layer:
    """Base of blocks that are classes."""

    def __init__(self, *, name: str = "", **kwargs: Any) -> None:
        self.name = name

    @property
    def _layers(self) -> list[Any]:
        """The layers and blocks that it keeps, as Keras finds them."""
        return list({id(part): part for kept in vars(self).values() for part in _parts_of(kept)}.values())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)  # type: ignore[attr-defined]


class _Model(_Layer):
    def __init__(self, inputs: Any = None, outputs: Any = None, *, name: str = "", **kwargs: Any) -> None:
        super().__init__(name=name)
        self.outputs, self.functional = outputs, outputs is not None

    @property
    def layers(self) -> list[Any]:
        """What it is made of."""
        return self._layers

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.outputs = super().__call__(*args, **kwargs)
        return self.outputs


class _Sequential(_Model):
    def __init__(self, parts: Sequence[Any], *, name: str = "") -> None:
        super().__init__(name=name)
        self._parts = list(parts)
        if self._parts and isinstance(self._parts[0], _Value):
            self.outputs = self.call(self._parts.pop(0))

    def call(self, x: Any) -> Any:
        """One after the other."""
        for part in self._parts:
            x = part(x)
        return x


def _parts_of(kept: Any) -> Iterator[Any]:
    if isinstance(kept, _Made | _Layer):
        yield kept
    elif isinstance(kept, list | tuple):
        for item in kept:
            yield from _parts_of(item)


def _plainly(block: Any, *tensors: Any, name: str, label: str | None = None, **settings: Any) -> Any:
    return block(*tensors, **settings, name=name)


def _first(want: _Expected, recorder: _Recorder) -> str:
    return next((name for name, number in want.calls if number not in recorder.made), "the outputs")
