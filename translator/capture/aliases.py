"""Dropout gives its input itself in evaluation: what is written to one is written to the other.

A marked dropout is a node of its own with a new result. While PyTorch traces, each write to such a result or to what it
was made of, in place or through a view, is repeated on the other, so that the trace computes what evaluation computes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field

from torch import Tensor


def writes(tensor: Tensor) -> int:
    """How often the tensor was written to, by PyTorch's count; none in inference mode, where PyTorch doesn't count."""
    return 0 if tensor.is_inference() else tensor._version


@dataclass(slots=True)
class _Pair:
    source: Tensor
    result: Tensor
    versions: tuple[int, int]


@dataclass(slots=True)
class Aliases:
    """The tensors that are one in evaluation and two in the trace."""

    pairs: list[_Pair] = field(default_factory=list)

    def add(self, source: Tensor, result: Tensor) -> None:
        """From now on they are one."""
        self.pairs.append(_Pair(source, result, (writes(source), writes(result))))

    def settle(self) -> None:
        """Repeat on the other what was written to one since the last time; PyTorch counts the writes to a tensor."""
        while changed := [p for p in self.pairs if (writes(p.source), writes(p.result)) != p.versions]:
            for pair in changed:
                if writes(pair.source) != pair.versions[0]:
                    pair.result.copy_(pair.source)
                else:
                    pair.source.copy_(pair.result)
                pair.versions = (writes(pair.source), writes(pair.result))


_CURRENT: ContextVar[Aliases | None] = ContextVar("aliases", default=None)


@contextlib.contextmanager
def aliases_kept() -> Iterator[Aliases]:
    """While active, `one_tensor` notes pairs; whoever runs PyTorch's functions settles them after each."""
    aliases = Aliases()
    token = _CURRENT.set(aliases)
    try:
        yield aliases
    finally:
        _CURRENT.reset(token)


def one_tensor(source: Tensor, result: Tensor) -> Tensor:
    """The result, noted as being its source in evaluation."""
    aliases = _CURRENT.get()
    if aliases is not None:
        aliases.add(source, result)
    return result
