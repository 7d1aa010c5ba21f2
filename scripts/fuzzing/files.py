"""The files of random networks on Keras' backends, loaded by processes that are kept for many files."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from translator.engines.native import translate
from translator.engines.result import EngineResult
from translator.verify.artifact import ArtifactWorker, judge_file

if TYPE_CHECKING:
    from translator.verdict import Artifact

_ROUNDING = 1e-2
"""A relative distance in float32 that rounding may explain; then float64 decides. Networks may lose digits by
themselves (see `networks`), in each backend's kernels in another way."""

_LIMIT_F64 = 1e-9
"""Relative distance in float64 between a file's outputs and PyTorch's."""


class LoaderEndedError(RuntimeError):
    """A process that loads files has ended by itself."""


class Loaders:
    """One process for each backend and width of floats; one that has ended is started anew. A context manager."""

    def __init__(self, backends: Sequence[str]) -> None:
        self._backends = tuple(backends)
        self._workers: dict[tuple[str, bool], ArtifactWorker] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ExitStack() as stack:
            for worker in self._workers.values():
                stack.callback(worker.close)

    def _worker(self, backend: str, *, double: bool) -> ArtifactWorker:
        place = (backend, double)
        if place in self._workers and self._workers[place].ended is not None:
            self._workers.pop(place).close()
        if place not in self._workers:
            self._workers[place] = ArtifactWorker(backend, double=double)
        return self._workers[place]

    def wrong(self, module: nn.Module, inputs: tuple[Tensor, ...], result: EngineResult) -> str:
        """What is wrong with the file of a translated network, and on which backend; "" where nothing is.

        Raises LoaderEndedError where the process that loaded it has ended.
        """
        for backend in self._backends:
            found = self._judged(backend, module, inputs, result)
            if not found.error:
                continue
            if found.max_rel is None or found.max_rel > _ROUNDING:
                return f"{backend}: {found.error}"
            exact = self._in_float64(backend, module, inputs)
            if exact:
                return f"{backend}: {found.error}; {exact}"
        return ""

    def _judged(
        self, backend: str, module: nn.Module, inputs: tuple[Tensor, ...], result: EngineResult, *, double: bool = False
    ) -> Artifact:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.keras"
            result.model.save(path)
            worker = self._worker(backend, double=double)
            found = judge_file(
                path, module=module, model=result.model, claims=result.claims, args=inputs, worker=worker
            )
        if worker.ended is not None:
            raise LoaderEndedError(f"{backend}: {found.error}")
        return found

    def _in_float64(self, backend: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> str:
        """What is wrong with the file of the same network in float64; "" where float32 only rounded."""
        wide = copy.deepcopy(module).double()
        wide.register_buffer("width", torch.zeros((), dtype=torch.float64))  # makes one without weights float64, too
        exact = tuple(x.double() for x in inputs)
        torch.set_default_dtype(torch.float64)
        try:
            found = self._judged(backend, wide, exact, translate(wide, exact), double=True)
        finally:
            torch.set_default_dtype(torch.float32)
        if found.error:
            return f"in float64: {found.error}"
        close = found.max_rel is not None and found.max_rel <= _LIMIT_F64
        return "" if close else f"in float64: relative {found.max_rel}"
