"""The weight map that stands beside a written model: `OUT.weightmap.json`.

It says of every Keras variable which PyTorch tensors it is made of and how, and of every module call where its twin is.
With it a second checkpoint of the same architecture is converted, and proven, without tracing again; and Keras weights
go back into a state_dict.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from translator.bindings import Flip, Fold, Permute, Piece, Reshape, Step, WeightBinding
from translator.claims import Claims, KerasValue, ModuleClaim, ParameterClaim, ValueClaim
from translator.errors import InputError
from translator.types import Layout

VERSION = 1
SUFFIX = ".weightmap.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weightmap:
    """bindings: (path of the Keras layer, binding), constants left out. source: how the PyTorch model was named.

    example: (shape with the batch, dtype) of each example input. tensor_shapes: of every PyTorch tensor by name.
    """

    name: str
    source: str
    example: tuple[tuple[tuple[int, ...], str], ...]
    bindings: tuple[tuple[str, WeightBinding], ...]
    tensor_shapes: Mapping[str, tuple[int, ...]]
    claims: Claims
    versions: Mapping[str, str] = field(default_factory=dict)


def beside(model_file: Path) -> Path:
    """Path of the weight map of a model file: `net.keras` → `net.weightmap.json`."""
    return model_file.with_name(model_file.stem + SUFFIX)


def portable(source: str, folder: Path) -> str:
    """A SOURCE whose file is named as seen from the map's folder, so that the map works from any other."""
    file, colon, rest = source.partition(".py:")
    if not colon or Path(file).is_absolute():
        return source
    return os.path.relpath(f"{file}.py", folder) + ":" + rest


def located(source: str, folder: Path) -> str:
    """The SOURCE of a map that stands in `folder`, as seen from the current folder."""
    file, colon, rest = source.partition(".py:")
    there = folder / f"{file}.py"
    return f"{os.path.relpath(there)}:{rest}" if colon and there.exists() else source


def dump(weightmap: Weightmap) -> str:
    """The map as JSON text, the same for the same map."""
    document = {
        "version": VERSION,
        "name": weightmap.name,
        "source": weightmap.source,
        "example": [{"shape": list(shape), "dtype": dtype} for shape, dtype in weightmap.example],
        "versions": dict(weightmap.versions),
        "variables": [_binding_json(layer, binding) for layer, binding in weightmap.bindings],
        "tensors": {name: list(shape) for name, shape in weightmap.tensor_shapes.items()},
        "claims": asdict(weightmap.claims),
    }
    return json.dumps(document, indent=1) + "\n"


def load(path: Path) -> Weightmap:
    """Read a map. Raises InputError: no such file, not JSON, not a weight map, of another version."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: no such file", fix=f"translator convert writes OUT{SUFFIX} beside OUT.keras"
        ) from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not a weight map: {error}", fix="convert the model again") from error
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise InputError(f"{path}: not a weight map of version {VERSION}", fix="convert the model again")
    try:
        return _weightmap(document)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: a damaged weight map: {error!r}", fix="convert the model again") from error


def _weightmap(document: Mapping[str, Any]) -> Weightmap:
    return Weightmap(
        name=document["name"],
        source=document["source"],
        example=tuple((tuple(e["shape"]), e["dtype"]) for e in document["example"]),
        bindings=tuple(_binding(entry) for entry in document["variables"]),
        tensor_shapes={name: tuple(shape) for name, shape in document["tensors"].items()},
        claims=_claims(document["claims"]),
        versions=document["versions"],
    )


def _binding_json(layer: str, binding: WeightBinding) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "layer": layer,
        "variable": binding.variable,
        "shape": list(binding.shape),
        "trainable": binding.trainable,
        "from": [{"tensor": p.tensor} | ({"region": p.region} if p.region else {}) for p in binding.pieces],
    }
    if len(binding.pieces) > 1:
        entry |= {"join": binding.join, "axis": binding.axis}
    if binding.fold is not None:
        entry["fold"] = asdict(binding.fold)
    return entry | {"steps": [_step_json(step) for step in binding.steps]}


def _binding(entry: Mapping[str, Any]) -> tuple[str, WeightBinding]:
    binding = WeightBinding(
        variable=entry["variable"],
        shape=tuple(entry["shape"]),
        trainable=entry["trainable"],
        pieces=tuple(Piece(tensor=p["tensor"], region=_region(p.get("region"))) for p in entry["from"]),
        join=entry.get("join", "concat"),
        axis=entry.get("axis", 0),
        steps=tuple(_step(step) for step in entry["steps"]),
        fold=Fold(**entry["fold"]) if "fold" in entry else None,
    )
    return entry["layer"], binding


def _region(region: Any) -> tuple[tuple[int, int], ...] | None:
    return None if region is None else tuple((int(a), int(b)) for a, b in region)


def _step_json(step: Step) -> dict[str, Any]:
    return {type(step).__name__.lower(): asdict(step)}


def _step(entry: Mapping[str, Any]) -> Step:
    ((kind, fields),) = entry.items()
    kinds: dict[str, type[Permute] | type[Reshape] | type[Flip]] = {
        "permute": Permute,
        "reshape": Reshape,
        "flip": Flip,
    }
    return kinds[kind](**{name: tuple(value) for name, value in fields.items()})


def _claims(document: Mapping[str, Any]) -> Claims:
    return Claims(
        inputs=tuple(_value(v) for v in document["inputs"]),
        outputs=tuple(_value(v) for v in document["outputs"]),
        modules=tuple(
            ModuleClaim(
                path=m["path"],
                call=m["call"],
                inputs=tuple(None if v is None else _value(v) for v in m["inputs"]),
                outputs=tuple(None if v is None else _value(v) for v in m["outputs"]),
                covers=tuple((path, call) for path, call in m["covers"]),
                arguments=tuple(m.get("arguments", ())),
            )
            for m in document["modules"]
        ),
        parameters=tuple(
            ParameterClaim(**(p | {"tensors": tuple(p["tensors"]), "counts": tuple(p["counts"])}))
            for p in document["parameters"]
        ),
        aliases=document["aliases"],
        explained=document["explained"],
    )


def _value(entry: Mapping[str, Any]) -> ValueClaim:
    layout, view = entry["layout"], entry["layout"]["view"]
    return ValueClaim(
        keras=KerasValue(**entry["keras"]),
        layout=Layout(axes=tuple(layout["axes"]), view=None if view is None else tuple(view)),
    )
