"""Example inputs: from the command line, from the model itself, or from what its library says; and a first run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from translator.capture.modes import is_double
from translator.errors import InputError, Where
from translator.user_code import describe, user_line

if TYPE_CHECKING:
    import torch
    from torch import nn

DTYPES = (
    "float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool",
)  # fmt: skip
_FEW_TOKENS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Arguments to call a model with, and what was decided about them, a sentence each."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def from_shapes(
    module: nn.Module, shapes: Sequence[Sequence[int]], dtypes: Sequence[str] = (), *, seed: int = 0
) -> Examples:
    """Random inputs of these shapes (with the batch), and of these dtypes: one for all, or one for each.

    A batch of 1 becomes 2 where the model runs so: `torch.export` takes a size of 1 for a constant, and a fault that
    depends on the batch doesn't show. Integers are drawn below the size of the model's largest embedding table that
    lets it run.
    """
    kinds, limits = _spread(dtypes, len(shapes), "float64" if is_double(module) else "float32"), _limits(module, dtypes)
    given = [tuple(shape) for shape in shapes]
    wide = [(2, *shape[1:]) if shape[:1] == (1,) else shape for shape in given]
    attempts = [(sizes, limit) for sizes in ([wide, given] if wide != given else [given]) for limit in limits]
    for sizes, limit in attempts[:-1]:
        args = random_inputs(sizes, kinds, seed=seed, below=limit)
        if _runs(module, args, {}):
            return Examples(args=args, notes=_batch_notes(given, sizes))
    sizes, limit = attempts[-1]
    args = random_inputs(sizes, kinds, seed=seed, below=limit)
    check_runs(module, args)
    return Examples(args=args, notes=("the model runs with a batch of 1 only",) if wide != given else ())


def _batch_notes(given: Sequence[Sequence[int]], used: Sequence[Sequence[int]]) -> tuple[str, ...]:
    widened = "the batch of the example is 2, not 1: a size of 1 would be taken for a constant"
    return () if list(given) == list(used) else (widened,)


def random_inputs(
    shapes: Sequence[Sequence[int]], dtypes: Sequence[str], *, seed: int = 0, below: int = _FEW_TOKENS
) -> tuple[torch.Tensor, ...]:
    """Normal floats, integers in [0, below), fair booleans; the same for the same seed, whatever ran before."""
    import torch

    generator = torch.Generator().manual_seed(seed)

    def draw(shape: Sequence[int], name: str) -> torch.Tensor:
        dtype: torch.dtype = getattr(torch, name)
        if dtype is torch.bool:
            return torch.rand(tuple(shape), generator=generator) < 0.5
        if dtype.is_floating_point:
            return torch.randn(tuple(shape), generator=generator).to(dtype)
        top = min(below, torch.iinfo(dtype).max)
        return torch.randint(0, max(top, 1), tuple(shape), generator=generator, dtype=dtype)

    return tuple(draw(shape, name) for shape, name in zip(shapes, dtypes, strict=True))


def from_offer(module: nn.Module, offer: Any, text: str, *, widen: bool = False) -> Examples:
    """What `example_inputs()` returned: a tensor, a tuple of arguments, a dict of keywords, or (tuple, dict).

    A batch of 1 becomes 2, as in `from_shapes`; the second example is the first one rolled along its last axis, so
    that token numbers stay in range. widen: half-precision inputs become float32.
    """
    import torch

    match offer:
        case torch.Tensor():
            found = Examples(args=(offer,))
        case (tuple() | list() as args, dict() as kwargs):
            found = Examples(args=tuple(args), kwargs=kwargs)
        case tuple() | list() if offer:
            found = Examples(args=tuple(offer))
        case dict() if offer:
            found = Examples(args=(), kwargs=offer)
        case _:
            raise InputError(
                f"{text}: example_inputs() returned {_kind(offer)}",
                fix="return a tensor, a tuple of tensors, a dict of keyword arguments, or (tuple, dict)",
            )
    if widen:
        kwargs = {name: _widened(value) for name, value in found.kwargs.items()}
        found = Examples(args=tuple(map(_widened, found.args)), kwargs=kwargs)
    wide = Examples(
        args=tuple(_doubled(a) for a in found.args), kwargs={k: _doubled(v) for k, v in found.kwargs.items()}
    )
    before, after = _shapes(found), _shapes(wide)
    if before != after and _runs(module, wide.args, wide.kwargs):
        return Examples(args=wide.args, kwargs=wide.kwargs, notes=_batch_notes(before, after))
    check_runs(module, found.args, found.kwargs)
    return found


def _widened(value: Any) -> Any:
    import torch

    half = isinstance(value, torch.Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    return value.float() if half else value


def _doubled(value: Any) -> Any:
    import torch

    if not isinstance(value, torch.Tensor) or value.ndim == 0 or value.shape[0] != 1:
        return value
    return torch.cat([value, value.roll(1, -1)])


def _shapes(example: Examples) -> list[tuple[int, ...]]:
    return [tuple(v.shape) for v in (*example.args, *example.kwargs.values()) if hasattr(v, "shape")]


def check_runs(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> None:
    """Call the model once. Raises InputError that names the innermost module that failed and the line in it."""
    import torch

    path: list[str] = []
    given = torch.utils._pytree.tree_map_only(torch.Tensor, torch.clone, (tuple(args), dict(kwargs or {})))
    try:
        with torch.no_grad(), _path_recorded(module, path):
            module(*given[0], **given[1])  # copies: it may work in place
    except Exception as error:  # the user's own code may raise anything
        shapes = ", ".join(_kind(a) for a in (*args, *(kwargs or {}).values()))
        inner = dict(module.named_modules()).get(path[-1]) if path else None
        name = f"{path[-1]} ({type(inner).__name__})" if path and path[-1] else type(module).__name__
        raise InputError(
            f"the model can't be run on {shapes}: {describe(error)}",
            where=Where(module=name, source=user_line(error)),
            fix="give the shapes it takes, with the batch, as --input-shape 2,3,32,32 (once for each input)",
        ) from error


def _runs(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    try:
        check_runs(module, args, kwargs)
    except InputError:
        return False
    return True


@contextmanager
def _path_recorded(module: nn.Module, path: list[str]) -> Iterator[None]:
    """Keep in `path` the names of the modules that are running, the outermost first; what failed stays there."""
    handles = []
    for name, part in module.named_modules():

        def enter(*_: Any, name: str = name) -> None:
            path.append(name)

        def leave(*_: Any) -> None:
            path.pop()

        handles += [part.register_forward_pre_hook(enter), part.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _limits(module: nn.Module, dtypes: Sequence[str]) -> list[int]:
    """Upper bounds to try for integer inputs: the sizes of the model's embedding tables, the largest first."""
    from torch import nn

    if not any("int" in name for name in dtypes):
        return [_FEW_TOKENS]
    tables = {part.num_embeddings for part in module.modules() if isinstance(part, (nn.Embedding, nn.EmbeddingBag))}
    return sorted(tables, reverse=True) or [_FEW_TOKENS, 2]


def _spread(dtypes: Sequence[str], count: int, default: str) -> list[str]:
    for name in dtypes:
        if name not in DTYPES:
            raise InputError(f"--input-dtype {name}: not a type of input", fix=f"one of {', '.join(DTYPES)}")
    if len(dtypes) <= 1:
        return [*dtypes, default][:1] * count
    if len(dtypes) != count:
        raise InputError(f"{len(dtypes)} times --input-dtype for {count} inputs", fix="one for all, or one for each")
    return list(dtypes)


def _kind(value: Any) -> str:
    """`float32 (2, 3, 32, 32)` for a tensor, the class for anything else."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return f"a {type(value).__name__}"
