"""Checkpoints: what is understood is said, what doesn't fit is listed, and no file ever runs code."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from translator.capture.checkpoint import load_into, read_checkpoint
from translator.errors import CheckpointError


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))


def saved(path: Path, content: Any, **settings: Any) -> Path:
    torch.save(content, path, **settings)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert caught.value.exit_status == 2
    return str(caught.value)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return network().state_dict()


def assert_same(got: Any, want: Any) -> None:
    assert sorted(got) == sorted(want)
    for name, tensor in want.items():
        assert got[name].dtype == tensor.dtype
        assert torch.equal(got[name], tensor), name


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.ckpt", "a.bin", "no suffix"])
def test_a_state_dict_is_read_whatever_its_suffix(tmp_path: Path, state: dict[str, torch.Tensor], name: str) -> None:
    checkpoint = read_checkpoint(saved(tmp_path / name, state))
    assert_same(checkpoint.tensors, state)
    assert checkpoint.notes == ()


def test_a_file_of_pytorch_before_1_6_is_read(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    path = saved(tmp_path / "old.pth", state, _use_new_zipfile_serialization=False)
    assert_same(read_checkpoint(path).tensors, state)


def test_safetensors_are_read(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    assert_same(read_checkpoint(tmp_path / "a.safetensors").tensors, state)


@pytest.mark.parametrize(
    ("wrap", "key"),
    [
        (lambda s: {"state_dict": s, "epoch": 3}, "state_dict"),
        (lambda s: {"model_state_dict": s, "optimizer": {"state": {0: {"m": torch.ones(1)}}}}, "model_state_dict"),
        (lambda s: {"model": {"state_dict": s}}, "model.state_dict"),
        (lambda s: {"net": s, "acc": 93.2}, "net"),
        (lambda s: {"generator": s, "optimizer": {"state": {0: torch.ones(1)}}}, "generator"),
        (lambda s: {"state_dict": s, "ema": s}, "state_dict"),
    ],
)  # fmt: skip
def test_a_wrapped_state_dict_is_found_and_said(tmp_path: Path, state: Any, wrap: Any, key: str) -> None:
    checkpoint = read_checkpoint(saved(tmp_path / "a.pt", wrap(state)))
    assert_same(checkpoint.tensors, state)
    assert f"under the key `{key}`" in checkpoint.notes[0]


def test_an_averaged_copy_that_is_left_out_is_said(tmp_path: Path, state: Any) -> None:
    assert "(ema left out)" in read_checkpoint(saved(tmp_path / "a.pt", {"state_dict": state, "ema": state})).notes[0]


def test_two_unknown_state_dicts_are_refused_by_name(tmp_path: Path, state: Any) -> None:
    message = refusal(saved(tmp_path / "gan.pt", {"G": state, "D": state}))
    assert "holds several state dicts: G, D" in message


@pytest.mark.parametrize(
    ("rename", "said"),
    [
        (lambda n: f"module.{n}", "the prefix `module.`"),
        (lambda n: f"_orig_mod.{n}", "`_orig_mod.`"),
        (lambda n: f"module._orig_mod.{n}", "`_orig_mod.`"),
        (lambda n: f"_orig_mod.module.{n}", "`module.`"),
        (lambda n: n.replace(".", "._orig_mod.", 1), "`_orig_mod.`"),
        (lambda n: f"_fsdp_wrapped_module.{n}", "`_fsdp_wrapped_module.`"),
    ],
)
def test_prefixes_of_wrappers_are_taken_off_and_said(tmp_path: Path, state: Any, rename: Any, said: str) -> None:
    checkpoint = read_checkpoint(saved(tmp_path / "a.pt", {rename(n): t for n, t in state.items()}))
    assert_same(checkpoint.tensors, state)
    assert any(said in note for note in checkpoint.notes)


def test_the_counter_of_an_averaged_model_is_left_out(tmp_path: Path, state: Any) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(network())
    checkpoint = read_checkpoint(saved(tmp_path / "a.pt", averaged.state_dict()))
    assert sorted(checkpoint.tensors) == sorted(state)


@pytest.mark.parametrize("prefix", ["model.", "net.backbone.", "module.model."])
def test_a_prefix_that_all_names_share_is_taken_off_where_the_names_fit_then(
    tmp_path: Path, state: Any, prefix: str
) -> None:
    module = network()
    notes = load_into(module, read_checkpoint(saved(tmp_path / "a.ckpt", {prefix + n: t for n, t in state.items()})))
    assert_same(module.state_dict(), state)
    assert notes == (f"the prefix `{prefix.removeprefix('module.')}` was taken off all names",)


def test_a_prefix_that_the_model_has_and_the_file_lacks_is_put_before_the_names(tmp_path: Path, state: Any) -> None:
    wrapper = nn.ModuleDict({"model": network()})
    notes = load_into(wrapper, read_checkpoint(saved(tmp_path / "a.pt", state)))
    assert_same(wrapper["model"].state_dict(), state)
    assert notes == ("the prefix `model.` was put before all names",)


def test_missing_unexpected_and_misshaped_tensors_are_listed_with_their_shapes(tmp_path: Path, state: Any) -> None:
    del state["0.bias"], state["3.weight"]
    state |= {"head.weight": torch.ones(2, 3), "1.weight": torch.ones(7), "1.num_batches_tracked": torch.tensor(2.0)}
    module = network()
    before = {n: t.clone() for n, t in module.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_into(module, read_checkpoint(saved(tmp_path / "a.pt", state)))
    assert str(caught.value).splitlines() == [
        f"{tmp_path / 'a.pt'}: does not fit the model",
        "  2 missing from the file:",
        "    0.bias (4,)",
        "    3.weight (5, 16)",
        "  1 not in the model:",
        "    head.weight (2, 3)",
        "  1 of another shape:",
        "    1.weight: file (7,), model (4,)",
        "  1 of another kind:",
        "    1.num_batches_tracked: file torch.float32, model torch.int64",
        "  fix:     give the checkpoint of this architecture, or the factory's arguments",
    ]
    assert sorted(before) == sorted(module.state_dict())


def test_a_long_list_of_names_is_cut_with_its_count(tmp_path: Path) -> None:
    many = {f"x{i}": torch.ones(1) for i in range(30)}
    with pytest.raises(CheckpointError, match=r"(?s)30 not in the model:.*… and 10 more"):
        load_into(network(), read_checkpoint(saved(tmp_path / "a.pt", many)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_noted_and_kept_exactly(tmp_path: Path, state: Any, dtype: torch.dtype) -> None:
    half = {n: t.to(dtype) if t.is_floating_point() else t for n, t in state.items()}
    module = network()
    checkpoint = read_checkpoint(saved(tmp_path / "a.pt", half))
    notes = (*checkpoint.notes, *load_into(module, checkpoint))
    name = str(dtype).removeprefix("torch.")
    assert notes == (f"holds {name} values", f"values were converted {name} → float32")
    for key, tensor in module.state_dict().items():
        assert torch.equal(tensor.double(), half[key].double())


def test_a_tied_tensor_that_a_file_holds_once_is_filled_and_said() -> None:
    tied = nn.ModuleDict({"embed": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=False)})
    tied["head"].weight = tied["embed"].weight
    from translator.capture.checkpoint import Checkpoint

    weight = torch.arange(15.0).reshape(5, 3)
    notes = load_into(tied, Checkpoint(path="a", tensors={"embed.weight": weight}))
    assert notes == ("head.weight is tied to embed.weight, which the file holds",)
    assert torch.equal(tied["head"].weight, weight)


def test_batchnorm_counters_may_be_missing_altogether_but_not_one_of_them(tmp_path: Path) -> None:
    module = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    state = module.state_dict()
    old = {n: t for n, t in state.items() if not n.endswith("num_batches_tracked")}
    assert "no num_batches_tracked" in load_into(module, read_checkpoint(saved(tmp_path / "old.pt", old)))[0]
    del state["1.num_batches_tracked"]
    with pytest.raises(CheckpointError, match=r"1 missing from the file:\n    1\.num_batches_tracked"):
        load_into(module, read_checkpoint(saved(tmp_path / "cut.pt", state)))


def test_a_model_that_renames_keys_of_its_older_versions_may_do_so(tmp_path: Path) -> None:
    class Renamed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.new = nn.Linear(2, 2)

        def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
            for key in [k for k in state_dict if k.startswith(prefix + "old.")]:
                state_dict[key.replace("old.", "new.")] = state_dict.pop(key)
            super()._load_from_state_dict(state_dict, prefix, *args)

    module = Renamed()
    old = {n.replace("new.", "old."): t + 1 for n, t in module.state_dict().items()}
    notes = load_into(module, read_checkpoint(saved(tmp_path / "a.pt", old)))
    assert notes == ("the model's own loading code took the names of an older version",)
    assert torch.equal(module.new.weight, old["old.weight"])


class Bomb:
    """Unpickling it creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.target),))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrap", [lambda b, s: b, lambda b, s: {"state_dict": s, "extra": b}])
def test_a_checkpoint_that_needs_code_is_refused_and_never_run(
    tmp_path: Path, state: Any, wrap: Any, *, zipped: bool
) -> None:
    planted = tmp_path / "planted"
    path = saved(tmp_path / "evil.pt", wrap(Bomb(planted), state), _use_new_zipfile_serialization=zipped)
    message = refusal(path)
    assert not planted.exists()
    assert "refused" in message
    assert "mkdir" in message


def test_a_plain_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path = tmp_path / f"evil{protocol}.ckpt"
        path.write_bytes(pickle.dumps(Bomb(planted), protocol=protocol))
        refusal(path)
    assert not planted.exists()


def test_a_whole_model_is_refused_with_the_classes_it_needs_and_the_fix(tmp_path: Path) -> None:
    message = refusal(saved(tmp_path / "whole.ckpt", network()))
    assert "holds more than tensors: loading it would run code of" in message
    assert "torch.nn.modules" in message
    assert "torch.save(model.state_dict(), 'weights.pt')" in message


def test_a_torchscript_archive_is_refused(tmp_path: Path) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(network().eval(), torch.ones(1, 3, 4, 4)), tmp_path / "a.pt")
    assert "a TorchScript archive: it holds code" in refusal(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds no tensors"),
        ({"epoch": 3, "note": "x"}, "holds no tensors (it has epoch, note)"),
        ([torch.ones(1)], "it is a list, not a state dict"),
        (torch.ones(3), "it is a Tensor, not a state dict"),
    ],
)
def test_a_file_without_a_state_dict_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    assert message in refusal(saved(tmp_path / "a.pt", content))


def test_what_is_no_checkpoint_is_refused_by_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "empty.pt").touch()
    (tmp_path / "text.pt").write_text("hello, world, this is no checkpoint")
    (tmp_path / "keras.pt").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    (tmp_path / "text.safetensors").write_text("hello, world, this is no checkpoint")
    np.savez(tmp_path / "arrays.npz", a=np.ones(3))
    assert "no such file" in refusal(tmp_path / "absent.pt")
    assert "is a folder" in refusal(tmp_path)
    assert "the file is empty" in refusal(tmp_path / "empty.pt")
    assert "not a checkpoint" in refusal(tmp_path / "text.pt")
    assert "an HDF5 file (Keras weights)" in refusal(tmp_path / "keras.pt")
    assert "not a whole safetensors file" in refusal(tmp_path / "text.safetensors")
    assert "not one that torch.save writes" in refusal(tmp_path / "arrays.npz")


def file_bytes(kind: str) -> bytes:
    state = network().state_dict()
    if kind == "safetensors":
        return safetensors.torch.save(state)
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=kind == "zip")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["zip", "pickle", "safetensors"])
def test_a_truncated_file_is_refused_wherever_it_was_cut(tmp_path: Path, kind: str) -> None:
    whole = file_bytes(kind)
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pt")
    for share in (0.02, 0.3, 0.5, 0.8, 0.97):
        path.write_bytes(whole[: int(len(whole) * share)])
        refusal(path)


@pytest.mark.parametrize("kind", ["zip", "pickle", "safetensors"])
def test_a_damaged_file_is_read_or_refused_but_never_crashes(tmp_path_factory: Any, kind: str) -> None:
    whole = file_bytes(kind)
    path = tmp_path_factory.mktemp("damaged") / ("a.safetensors" if kind == "safetensors" else "a.pt")

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(position=st.integers(0, len(whole) - 1), value=st.binary(min_size=1, max_size=8))
    def damage(position: int, value: bytes) -> None:
        path.write_bytes(whole[:position] + value + whole[position + len(value) :])
        with contextlib.suppress(CheckpointError):
            read_checkpoint(path)

    damage()
