"""What a user asks for, as plain data: the requests that the command line fills in and the stages read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Progress = Callable[[str], None]
"""Called with a few words as each stage begins: "exporting", "proving layer 3 of 60"."""

EngineName = Literal["native", "onnx2keras"]
Style = Literal["functional", "subclass", "sequential"]
KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
TORCH_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRequest:
    """The PyTorch side: what to build, the checkpoint to load into it, and its example inputs (shapes with the batch).

    seed: of random initial weights and random inputs.
    """

    spec: str
    weights: Path | None = None
    input_shapes: tuple[tuple[int, ...], ...] = ()
    input_dtypes: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertRequest:
    """`translator convert`. output: the .keras file. keep_failed: keep an output that failed its proof.

    dynamic_hw: images of any height and width. exact_batchnorm: BatchNorms that keep PyTorch's running variance in
    training; the file needs a registered class.
    """

    source: SourceRequest
    output: Path
    engine: EngineName = "native"
    fold: bool = False
    dynamic_hw: bool = False
    exact_batchnorm: bool = False
    reports: tuple[Path, ...] = ()
    force: bool = False
    keep_failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRequest:
    """`translator audit`. keras: the KERAS argument. baseline: a file of gaps that are accepted as they stand."""

    source: SourceRequest
    keras: str
    baseline: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferRequest:
    """`translator transfer`. to_keras: the direction. output: the file to write; its suffix says the format.

    partial: transfer what matches and list the rest. fold_epsilon: change weights so that a differing epsilon does
    not matter.
    """

    source: SourceRequest
    keras: str
    to_keras: bool
    output: Path
    partial: bool = False
    fold_epsilon: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteSourceRequest:
    """`translator source`. output: the .py file. weights: a .weights.h5 for what the file builds, or None."""

    source: SourceRequest
    output: Path
    weights: Path | None = None
    style: Style = "functional"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityRequest:
    """`translator parity`. keras: a Keras model of the user's own, or None for the translated one.

    float32: also measure how far runs in float32 drift apart.
    """

    source: SourceRequest
    keras: str | None = None
    steps: int = 50
    optimizer: str = "sgd"
    learning_rate: float = 0.01
    batch: int = 8
    exact_batchnorm: bool = False
    float32: bool = True
