"""SOURCE is an ONNX file: ONNX Runtime is the truth, and each layer of the graph is judged like a module."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import save_file
from torch import nn

import translator
from tests.models import onnx_examples as examples
from tests.models.onnx_examples import FLOAT, INT64, saved
from translator.cli import cli
from translator.errors import UnsupportedError
from translator.verdict import Report, Verdict

pytestmark = pytest.mark.model
SOUND = (Verdict.EQUAL, Verdict.EXPLAINED)


def proven(report: Report) -> bool:
    return report.verdict in SOUND and report.balance.unexplained == 0 and report.numerics["float64"].max_rel < 1e-12


@pytest.mark.parametrize(
    "make",
    [
        examples.two_inputs_and_outputs, examples.shared_weight, examples.tokens, examples.sizes_in_the_graph,
        examples.no_double_kernels, examples.old, examples.half, examples.odd_names, examples.several_outputs_of_a_node,
        examples.float64_inside, examples.lstm, lambda: examples.branch(known=True),
    ],
)  # fmt: skip
def test_a_file_is_proven_node_by_node(make: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    report = translator.convert(saved(make(), tmp_path)).report
    assert proven(report), report.checks


class Small(nn.Module):
    """A bit of everything that the exporters write differently."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.SiLU())
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.features(x).flatten(2).transpose(1, 2))
        return self.head((x + self.attention(x, x, x, need_weights=False)[0]).mean(1))


def exported(folder: Path, *, dynamo: bool) -> str:
    torch.manual_seed(0)
    module = Small()
    for tensor in (*module.parameters(), *module.features[1].buffers()):
        if tensor.is_floating_point():
            tensor.data = torch.rand_like(tensor) + 0.1 if tensor.ndim == 1 else tensor.data
    path, x = folder / "small.onnx", torch.randn(2, 3, 8, 8)
    if dynamo:
        shapes = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(module.eval(), (x,), path, dynamo=True, dynamic_shapes=shapes, verbose=False)
    else:
        names: dict[str, Any] = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": {0: "batch"}}}
        torch.onnx.export(module.eval(), (x,), path, dynamo=False, **names)
    return str(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamo", [True, False])
def test_what_pytorch_exports_is_proven_and_any_batch_agrees_with_onnx_runtime(dynamo: bool, tmp_path: Path) -> None:
    path = exported(tmp_path, dynamo=dynamo)
    conversion = translator.convert(path)
    assert proven(conversion.report), conversion.report.checks
    session = onnxruntime.InferenceSession(path)
    for batch in (1, 2, 7):
        x = np.random.default_rng(batch).standard_normal((batch, 3, 8, 8)).astype(np.float32)
        (want,) = session.run(None, {session.get_inputs()[0].name: x})
        got = np.asarray(conversion.model(np.transpose(x, (0, 2, 3, 1))))
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    names = {row.torch: row for row in conversion.report.layers}
    conv = names["features.0"]
    assert (conv.keras, conv.params_torch, conv.params_keras) == ("features_0", 224, 224)


def test_the_command_writes_the_file_and_its_weight_map(tmp_path: Path) -> None:
    path, out = saved(examples.small(), tmp_path), tmp_path / "out.keras"
    done = CliRunner().invoke(cli, ["convert", path, "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert "EQUAL" in done.stdout
    assert "ONNX Runtime" in done.stdout
    assert "conv.weight" in (tmp_path / "out.weightmap.json").read_text()


def test_exchanged_weights_are_found_at_their_node(tmp_path: Path) -> None:
    from translator.verify.proof import Subject, prove

    conversion = translator.convert(saved(examples.two_inputs_and_outputs(), tmp_path))
    model = conversion.model
    kernel, bias = model.get_layer("Gemm_5").weights
    kernel.assign(np.asarray(kernel)[::-1])
    report = prove(conversion.module, conversion.example_inputs, Subject(keras_model=model, claims=conversion.claims))
    assert report.verdict is Verdict.DIFFERENT
    assert report.first_wrong == "Gemm_5"
    kernel.assign(np.asarray(kernel)[::-1])
    bias.assign(np.asarray(bias)[::-1])
    report = prove(conversion.module, conversion.example_inputs, Subject(keras_model=model, claims=conversion.claims))
    assert report.verdict is Verdict.DIFFERENT
    assert report.first_wrong == "Gemm_5"


def test_another_checkpoint_goes_by_the_names_in_the_file(tmp_path: Path) -> None:
    path = saved(examples.small(weight="W"), tmp_path)
    weights = {"W": examples.numbers(4, 3, 3, 3, seed=5), "b": examples.numbers(4, seed=6)}
    save_file(weights, tmp_path / "other.safetensors")
    conversion = translator.convert(path, weights=str(tmp_path / "other.safetensors"))
    assert proven(conversion.report)
    assert np.array_equal(conversion.state_dict()["first.W"], weights["W"])


def test_data_in_files_of_its_own_is_read(tmp_path: Path) -> None:
    onnx.save(
        examples.small(), tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0
    )
    assert (tmp_path / "net.data").is_file()
    assert proven(translator.convert(str(tmp_path / "net.onnx")).report)


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The message of a conversion that must be refused, without a trace in the folder."""
    monkeypatch.chdir(tmp_path)

    def run(path: str, *options: str) -> str:
        before = sorted(tmp_path.iterdir())
        done = CliRunner().invoke(cli, ["convert", path, "-o", "out.keras", *options])
        assert done.exit_code == 2, done.output
        assert "Traceback" not in done.output
        assert sorted(tmp_path.iterdir()) == before
        return done.stderr

    return run


@pytest.mark.parametrize("content", [b"", b"no model\n" * 40, b"{}", b"PK\x03\x04" + bytes(90), b"\x08\x09"])
def test_a_file_that_is_no_model_is_refused(content: bytes, refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(content)
    assert "bad.onnx: not an ONNX" in refused("bad.onnx")


def test_a_truncated_file_and_missing_data_are_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    path = Path(saved(examples.small(), tmp_path))
    path.write_bytes(path.read_bytes()[:300])
    assert "damaged" in refused("net.onnx")
    onnx.save(
        examples.small(), tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0
    )
    (tmp_path / "net.data").write_bytes(b"123")
    assert "its external data can't be read" in refused("net.onnx")
    (tmp_path / "net.data").unlink()
    assert "its external data can't be read" in refused("net.onnx")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: examples.small(inputs=[("x", FLOAT, ["batch", 3, "height", 6])]), "axis 2 of input x has the open"),
        (lambda: examples.one_op("Relu", [("x", FLOAT, None)]), "the rank of input x isn't declared"),
        (lambda: examples.one_op("Relu", [("x", onnx.TensorProto.DOUBLE, ["n", 3])]), "input x is of the type DOUBLE"),
        (lambda: examples.branch(known=False), "control flow in the graph"),
        (
            lambda: examples.one_op(
                "NonMaxSuppression", [("b", FLOAT, [1, 6, 4]), ("s", FLOAT, [1, 2, 6])], kind=INT64
            ),
            "NonMaxSuppression isn't supported",
        ),
        (lambda: examples.one_op("Foo", [("x", FLOAT, ["n", 3])], domain="my.ops"), "my.ops:Foo"),
    ],
)  # fmt: skip
def test_what_can_not_be_converted_is_refused_by_name(
    make: Callable[[], onnx.ModelProto], words: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    saved(make(), tmp_path)
    assert words in refused("net.onnx")


def test_sizes_and_types_that_do_not_suit_the_file_are_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    saved(examples.small(), tmp_path)
    assert "ONNX Runtime can't run it on x: float32 (2, 4, 6, 6)" in refused("net.onnx", "--input-shape", "2,4,6,6")
    assert "the inputs of net.onnx are float32" in refused("net.onnx", "--input-dtype", "int64")
    assert "2 times --input-shape for 1 inputs" in refused("net.onnx", *["--input-shape", "2,3,6,6"] * 2)
    assert "starts from a PyTorch model" in refused("net.onnx", "--engine", "onnx2keras")


@pytest.mark.parametrize("command", ["audit", "transfer"])
def test_commands_that_need_pytorch_say_so(command: str, tmp_path: Path) -> None:
    out = ["-o", str(tmp_path / "out.keras")] if command == "transfer" else []
    done = CliRunner().invoke(cli, [command, saved(examples.small(), tmp_path), "port.keras", *out])
    assert done.exit_code == 2
    assert "no PyTorch layers to align" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


def test_training_side_by_side_needs_pytorch(tmp_path: Path) -> None:
    from translator.config import ParityRequest, SourceRequest
    from translator.training.requested import parity_of

    request = ParityRequest(source=SourceRequest(spec=saved(examples.small(), tmp_path)))
    with pytest.raises(UnsupportedError, match="can't be trained in PyTorch"):
        parity_of(request, print)


def test_a_summary_lists_the_layers_and_their_weights(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["summary", saved(examples.small(), tmp_path)])
    assert done.exit_code == 0, done.output
    assert "Conv" in done.stdout
    assert "112 parameters" in done.stdout


def test_a_size_that_is_open_is_given_on_the_command_line(tmp_path: Path) -> None:
    from translator.capture.source import load_source

    proto = examples.one_op("Relu", [("x", FLOAT, ["batch", "length"])])
    loaded = load_source(saved(proto, tmp_path), input_shapes=[(3, 7)])
    assert [tuple(t.shape) for t in loaded.example_inputs] == [(3, 7)]


def test_a_layer_is_a_module_with_the_names_of_the_file(tmp_path: Path) -> None:
    from translator.capture.source import load_source

    module = load_source(saved(examples.old(), tmp_path)).module
    assert dict(module.named_buffers()).keys() == {"bn.running_mean", "bn.running_var"}
    assert dict(module.named_parameters()).keys() == {"conv.weight", "bn.weight", "bn.bias"}
    kinds = {path: type(part).__name__ for path, part in module.named_modules() if path}
    assert kinds["conv"] == "Conv"
    assert kinds["bn"] == "BatchNormalization"


def test_float64_that_onnx_runtime_does_not_confirm_is_our_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from translator.capture import onnx_kernels
    from translator.errors import InternalError

    wrong = {**onnx_kernels.BY_TORCH, "Conv": lambda node, values: [np.zeros((len(values[0]), 4, 4, 4))]}
    monkeypatch.setattr(onnx_kernels, "BY_TORCH", wrong)
    with pytest.raises(InternalError, match=r"Conv \(first\): float64 is"):
        translator.convert(saved(examples.small(), tmp_path))


def test_a_file_older_than_onnx_runtime_takes_is_held_to_onnx_own_reference(tmp_path: Path) -> None:
    report = translator.convert(saved(examples.small(opset=6), tmp_path)).report
    assert proven(report)
    assert any("ONNX' own reference, since ONNX Runtime doesn't take opset 6" in note for note in report.notes)


def test_a_batch_that_the_file_fixes_stays_as_it_is(tmp_path: Path) -> None:
    conversion = translator.convert(saved(examples.small(inputs=[("x", FLOAT, [1, 3, 6, 6])]), tmp_path))
    assert proven(conversion.report)
    assert conversion.model.input_shape == (1, 6, 6, 3)


def test_a_quantised_product_is_proven(tmp_path: Path) -> None:
    nodes = [examples.node("QLinearMatMul", ["x", "s", "z", "W", "s", "z", "s", "z"], ["y"])]
    weights = {"s": np.float32(0.05), "z": np.int8(3), "W": np.arange(-6, 6, dtype=np.int8).reshape(4, 3)}
    int8 = onnx.TensorProto.INT8
    proto = examples.model(nodes, [("x", int8, ["batch", 4])], [("y", int8, None)], weights)
    assert translator.convert(saved(proto, tmp_path)).report.verdict is Verdict.EQUAL
