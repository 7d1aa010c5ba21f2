"""SOURCE arguments: every way they can be wrong."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import translator
from tests.unit.sources import SHAPE, refusal
from translator.capture.source import check_finite, load_source
from translator.errors import InputError, UnsupportedError
from translator.verdict import Verdict
from translator.verify.watch import Watch


def test_a_factory_that_raises_is_told_with_the_users_own_line(write) -> None:
    path = write("""
        from torch import nn
        def width():
            return nn.Linear(2, "three")
        def build():
            return width()
    """)
    message = refusal(f"{path}:build", input_shapes=SHAPE)
    assert message.startswith(f"{path}:build: the factory raised TypeError:")
    assert f"source:  {path}, line 4, in width" in message


def test_a_file_that_raises_on_import_is_told_with_its_line(write) -> None:
    path = write("import math\nmath.sqrt(-1)\n")
    message = refusal(f"{path}:build")
    assert "raised ValueError: " in message
    assert f"{path}, line 2, in <module>" in message
    assert f"{path}, line 1" in refusal(f"{write('def build(:')}:build")
    assert "ModuleNotFoundError: No module named 'no_such_thing'" in refusal(f"{write('import no_such_thing')}:x")
    assert "raised SystemExit" in refusal(f"{write('import sys; sys.exit(3)')}:x")


@pytest.mark.parametrize(
    ("right", "message"),
    [
        ("Nett", "did you mean Net?"),
        ("bild", "did you mean build?"),
        ("zzz", "has no `zzz`"),
        ("number", "`number` is an int, not a factory"),
        ("model?width=3", "is a model already, it takes no arguments"),
        ("build?widht=3", "got an unexpected keyword argument 'widht'"),
        ("build?3", "`3` is not an argument"),
        ("build?width=3&width=4", "the argument `width` is given twice"),
        ("", "names no factory"),
    ],
)
def test_a_wrong_name_or_argument_is_told_with_what_there_is(network: str, right: str, message: str) -> None:
    assert message in refusal(f"{network}:{right}", input_shapes=SHAPE)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("None", "returned None, not an nn.Module"),
        ("{'state_dict': 1, 'epoch': 2}", "returned a dict with the keys state_dict, epoch, not an nn.Module"),
        ("nn.Linear", "returned a type, not an nn.Module"),
        ("torch.ones(3)", "returned a Tensor, not an nn.Module"),
        ("nn.Linear(2, 2, device='meta')", "its weights are on the meta device"),
    ],
)
def test_what_a_factory_returned_instead_of_a_model_is_told(write, result: str, message: str) -> None:
    path = write(f"import torch\nfrom torch import nn\ndef build():\n    return {result}\n")
    assert message in refusal(f"{path}:build", input_shapes=[(2, 2)])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet18", "not a source"),
        ("no/such/file.py:build", "no such file: no/such/file.py"),
        ("no.such.package:build", "there is no module `no`"),
        ("models.nothing_here:build", "there is no module `models.nothing_here`"),
        ("a b:c", "neither a file nor a module"),
        ("torchvision:resnet19", "did you mean resnet18"),
        ("torchvision:resnet18?depth=3", "building the model raised TypeError"),
        ("timm:resnet18dd", "did you mean resnet18d"),
        ("hf:/no/such/folder", "no such file: /no/such/folder/config.json"),
        ("weights.ckpt", "a checkpoint holds weights, not an architecture"),
        ("absent.onnx", "no such file"),
    ],
)
def test_what_is_no_source_is_refused_with_what_to_do(spec: str, message: str) -> None:
    assert message in refusal(spec)


def test_what_is_not_supported_is_refused_by_name() -> None:
    assert "take a list of images" in refusal("torchvision:ssdlite320_mobilenet_v3_large", UnsupportedError)


def test_a_saved_program_keeps_its_modules_and_its_example(network: str, tmp_path: Path) -> None:
    model = load_source(f"{network}:Net", input_shapes=SHAPE).module
    program = torch.export.export(model, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    torch.export.save(program, tmp_path / "net.pt2")
    loaded = load_source(str(tmp_path / "net.pt2"))
    assert loaded.name == "net"
    assert [tuple(x.shape) for x in loaded.example_inputs] == SHAPE
    assert {name for name, _ in loaded.module.named_children()} == {"conv", "bn"}
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded.module(x), model(x))


def test_a_file_that_is_no_saved_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pt2").write_bytes(b"not a program")
    assert "not a program that torch.export.load() reads" in refusal(str(tmp_path / "a.pt2"))


def test_an_unknown_input_shape_is_asked_for(network: str) -> None:
    assert "give --input-shape" in refusal(f"{network}:Net")


def test_a_wrong_input_shape_names_the_module_that_failed_and_its_line(network: str) -> None:
    message = refusal(f"{network}:Net", input_shapes=[(2, 4, 8, 8)])
    assert "can't be run on float32 (2, 4, 8, 8): RuntimeError" in message
    assert "module:  conv (Conv2d)" in message
    assert f"{network}, line 13, in forward" in message
    assert "missing 1 required positional argument" not in message


def test_a_wrong_number_of_inputs_or_types_is_told(network: str) -> None:
    message = refusal(f"{network}:Net", input_shapes=[(2, 3, 8, 8), (2, 3)])
    assert "module:  Net" in message
    assert "takes 2 positional arguments but 3 were given" in message
    assert "not a type of input" in refusal(f"{network}:Net", input_shapes=SHAPE, input_dtypes=["float12"])
    assert "2 times --input-dtype for 1 inputs" in refusal(
        f"{network}:Net", input_shapes=SHAPE, input_dtypes=["int64", "int64"]
    )


@pytest.mark.parametrize(
    ("tensor", "value", "refused"),
    [
        ("weight", float("nan"), True), ("weight", float("inf"), True), ("running_var", float("inf"), True),
        ("running_mean", float("nan"), True), ("mask", float("nan"), True), ("mask", float("-inf"), False),
    ],
)  # fmt: skip
def test_nan_and_infinity_in_weights_are_refused_by_name(tensor: str, value: float, *, refused: bool) -> None:
    module = nn.Sequential(nn.BatchNorm1d(4), nn.Module())
    module[1].register_buffer("mask", torch.zeros(4))
    name = "1.mask" if tensor == "mask" else f"0.{tensor}"
    with torch.no_grad():
        module.state_dict()[name][1] = value
    if not refused:
        check_finite(module, "x")
        return
    with pytest.raises(InputError, match=rf"x: NaN or infinite values in {name} \(1 of 4\)"):
        check_finite(module, "x")


def test_nan_in_a_checkpoint_names_the_checkpoint(network: str, tmp_path: Path) -> None:
    state = load_source(f"{network}:Net", input_shapes=SHAPE).module.state_dict()
    state["conv.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, tmp_path / "bad.pt")
    message = refusal(f"{network}:Net", input_shapes=SHAPE, weights=tmp_path / "bad.pt")
    assert f"{tmp_path / 'bad.pt'}: NaN or infinite values in conv.weight (1 of 108)" in message


class Kept(nn.Module):
    """As many numbers as are above 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = x[x > 0]
        return kept.sum() if kept.shape[0] > 3 else x.sum()


def test_what_depends_on_the_numbers_is_refused_with_its_module_and_line() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.ReLU(), Kept()))
    with pytest.raises(UnsupportedError) as caught:
        translator.convert(module, torch.randn(2, 3))
    assert caught.value.reason == "data-dependent-shape"
    assert caught.value.where.module == "1.1"
    assert re.search(r"test_source_refusals\.py, line \d+, in forward$", caught.value.where.source)
    assert "translate the modules before it" in str(caught.value)


class Running(nn.Module):
    """The largest number so far: PyTorch's exporter knows no translation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cummax(x, 1)[0]


class OwnGroups(nn.Module):
    """A kernel for each sample, with as many groups as there are samples: the exporter stumbles over it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 4, 3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, channels, height, width = x.shape
        kernels = (self.weight[None] * x.mean((2, 3))[:, None, :, None, None]).flatten(0, 1)
        y = nn.functional.conv2d(x.reshape(1, batch * channels, height, width), kernels, padding=1, groups=batch)
        return y.view(batch, 6, height, width)


@pytest.mark.parametrize(
    ("module", "shape", "reason", "operation"),
    [(Running(), (2, 3), "op", "aten.cummax.default"), (OwnGroups(), (2, 4, 7, 9), "export", "aten.conv2d.default")],
    ids=["no translation", "an error"],
)
def test_what_the_exporter_refuses_has_its_operation_module_and_line(
    module: nn.Module, shape: tuple[int, ...], reason: str, operation: str
) -> None:
    with pytest.raises(UnsupportedError) as caught:
        translator.convert(nn.Sequential(nn.Identity(), nn.Sequential(module)), torch.randn(shape))
    assert caught.value.reason == reason
    assert caught.value.what.startswith(f"{operation}: ")
    assert caught.value.where.module == "1.0"
    assert re.search(r"test_source_refusals\.py, line \d+, in forward$", caught.value.where.source)


class OwnError(Exception):
    """An error that PyTorch doesn't know."""


class Particular(nn.Module):
    """Runs on its example, and on nothing else of one kind."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.linear, self.kind = nn.Linear(6, 6), kind
        self.table = np.ones((6, 3), np.float32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x)
        tracing = torch.compiler.is_compiling()
        if self.kind == "double" and x.dtype is torch.float64:
            raise OwnError("not in double")
        if self.kind == "range" and not tracing and float(x.abs().max()) > 20:
            raise OwnError("too large")
        if self.kind == "batch" and not tracing and x.shape[0] > 2:
            raise OwnError("too many")
        return y @ torch.from_numpy(self.table) if self.kind == "numpy" else y


@pytest.mark.parametrize("kind", ["range", "batch", "numpy"])
def test_a_forward_that_refuses_other_numbers_or_holds_numpys_is_proven_without_them(kind: str) -> None:
    assert translator.convert(Particular(kind), torch.randn(2, 6)).report.verdict is Verdict.EQUAL


def test_a_forward_that_fails_in_the_proof_alone_is_said_with_its_line() -> None:
    with pytest.raises(InputError) as caught:
        translator.convert(Particular("double"), torch.randn(2, 6))
    assert "Particular runs on its example, but raised in the proof: " in str(caught.value)
    assert "OwnError: not in double" in str(caught.value)
    assert re.search(r"test_source_refusals\.py, line \d+, in forward$", caught.value.where.source)


def test_a_fault_of_the_judges_own_is_not_said_to_be_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(Watch, "leave", broken)
    with pytest.raises(KeyError, match="a bug"):
        translator.convert(nn.Linear(6, 6), torch.randn(2, 6))
