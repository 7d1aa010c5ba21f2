"""The files of random networks on Keras' backends, loaded by processes that are kept for many files."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn

from scripts.fuzzing.networks import float64_by_default, rows_off
from translator.engines.result import EngineResult
from translator.verify.artifact import ArtifactWorker, judge_file
from translator.verify.torch_record import tensors_in

_SPREAD = 30
"""How many times what PyTorch's own float32 loses a backend's may, whose kernels sum in another order."""

ROUGH = 1e-2
"""A relative distance that a backend's own formula may explain, such as a variance by E[x²] − E[x]², which Keras' torch
backend takes: what computes something else is off by more. Between the two, somebody has to look."""

_EXAMPLES = 8
"""Inputs by which it is known what PyTorch's own float32 loses: on a single one it may be right by luck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """wrong: on which backend the file computes something else, or doesn't run. rough: where it rounds more than
    PyTorch does. "" for nothing."""

    wrong: str = ""
    rough: str = ""


class LoaderEndedError(RuntimeError):
    """A process that loads files has ended by itself."""


class Loaders:
    """One process for each backend; one that has ended is started anew. A context manager.

    batches: as for `judge_file`.
    """

    def __init__(self, backends: Sequence[str], batches: Sequence[int] | None = None) -> None:
        self.backends = tuple(backends)
        self._batches = batches
        self._workers: dict[str, ArtifactWorker] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ExitStack() as stack:
            for worker in self._workers.values():
                stack.callback(worker.close)

    def _worker(self, backend: str) -> ArtifactWorker:
        if backend in self._workers and self._workers[backend].ended is not None:
            self._workers.pop(backend).close()
        if backend not in self._workers:
            self._workers[backend] = ArtifactWorker(backend)
        return self._workers[backend]

    def found(
        self, module: nn.Module, inputs: tuple[Tensor, ...], result: EngineResult, *, alone: bool = True
    ) -> Found:
        """What is wrong with the file of a translated network, and on which backend.

        alone: what loses digits in PyTorch's float32 may lose as many on a backend; of several networks side by side
        none may, since the others would have its measure. Raises LoaderEndedError where the process that loads the
        file ends.
        """
        rough = ""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.keras"
            if self.backends:
                result.model.save(path)
            for backend in self.backends:
                worker = self._worker(backend)
                found = judge_file(
                    path, module=module, model=result.model, claims=result.claims, args=inputs, worker=worker,
                    batches=self._batches,
                )  # fmt: skip
                if worker.ended is not None:
                    raise LoaderEndedError(f"{backend}: {found.error}")
                if not found.error:
                    continue
                if not alone or found.max_rel is None or found.max_rel > ROUGH:
                    return Found(wrong=f"{backend}: {found.error}")
                if found.max_rel > _SPREAD * lost(module, inputs):
                    rough = f"{backend}: {found.error}"
        return Found(rough=rough)


def lost(module: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """The largest relative difference between a row of PyTorch's outputs in float32 and in float64, for some inputs.

    A row by itself, since files are asked for one, too.
    """
    generator = torch.Generator().manual_seed(0)
    wide = copy.deepcopy(module).double()
    worst = 0.0
    for number in range(_EXAMPLES):
        given = tuple(_another(x, generator) for x in inputs) if number else inputs
        with torch.no_grad():
            narrow = tensors_in(module(*given))
            with float64_by_default():
                exact = tensors_in(wide(*(x.double() if x.is_floating_point() else x for x in given)))
        for have, want in zip(narrow, exact, strict=True):
            if want.is_floating_point() and want.numel() and bool(want.isfinite().all() and have.isfinite().all()):
                off, size = rows_off(have, want)
                worst = max(worst, float((off / size.clamp_min(1e-30)).max()))
    return worst


def _another(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator) if x.is_floating_point() else x
