"""A module of the user's own, given in Python: it is left as it was, and its example becomes a good one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
import transformers
from torch import nn

import translator
from translator.capture.source import load_source
from translator.errors import InputError
from translator.verdict import Verdict

pytestmark = pytest.mark.model


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())


def test_each_part_keeps_its_own_mode_and_its_statistics() -> None:
    module = network().train()
    module[1].eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    translator.convert(module, torch.randn(2, 3, 8, 8), proof=False)
    assert [part.training for part in module] == [True, False, True]
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_an_example_of_one_image_still_gives_a_model_for_any_batch() -> None:
    done = translator.convert(network(), torch.randn(1, 3, 8, 8))
    assert done.model.input_shape == (None, 8, 8, 3)
    assert "the batch of the example is 2, not 1" in " ".join(done.report.notes)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_translated_through_an_exact_copy(dtype: torch.dtype) -> None:
    module = network().to(dtype)
    done = translator.convert(module, torch.randn(2, 3, 8, 8, dtype=dtype))
    assert done.report.verdict is Verdict.EXPLAINED
    assert module[0].weight.dtype is dtype
    kernel = torch.from_numpy(done.state_dict()["0.weight"])
    assert torch.equal(kernel, module[0].weight.float())


def test_a_wrapper_is_looked_through() -> None:
    done = translator.convert(torch.nn.DataParallel(network()), torch.randn(2, 3, 8, 8), proof=False)
    assert set(done.state_dict()) >= {"0.weight", "1.running_mean"}


def test_inputs_that_the_model_does_not_take_are_named() -> None:
    with pytest.raises(InputError, match=r"can't be run on float32 \(2, 5, 8, 8\).*\n  module:  0 \(Conv2d\)"):
        translator.convert(network(), torch.randn(2, 5, 8, 8))


class Scored(nn.Module):
    """Two numbers for every feature, with a mask on the way that is sometimes given."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None, y: torch.Tensor, *, scale: torch.Tensor) -> Any:
        z = self.linear(x) - y * scale
        return z if mask is None else z + mask


class MaskedWhileTraced(nn.Module):
    """Hands its part a mask of zeros while it is traced and none otherwise, as transformers' decoders do."""

    def __init__(self) -> None:
        super().__init__()
        self.scored = Scored()

    def forward(self, x: torch.Tensor) -> Any:
        mask = (x > 1e30).float() if torch.compiler.is_exporting() else None
        return self.scored(x.tanh(), mask, x.relu(), scale=x.sigmoid())


def test_an_input_that_is_there_only_while_traced_moves_no_other() -> None:
    report = translator.convert(MaskedWhileTraced(), torch.randn(2, 4)).report
    assert report.verdict is Verdict.EQUAL, [d.values for d in report.differences]


def test_a_model_that_keeps_a_cache_is_translated_without_it() -> None:
    config = transformers.GPT2Config(
        n_embd=16, n_layer=1, n_head=2, vocab_size=20, n_positions=8, bos_token_id=1, eos_token_id=2
    )
    module = transformers.GPT2Model(config)
    report = translator.convert(module, torch.randint(0, 20, (2, 6))).report
    assert report.verdict is Verdict.EXPLAINED, [d.values for d in report.differences]
    assert any("config.use_cache" in note for note in report.notes)
    assert module.config.use_cache


class InPlace(nn.Module):
    """A module inside changes what it is given, and others read that before and after."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.unread = nn.Linear(5, 4), nn.Linear(5, 3)
        self.second = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(5, 4))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.unread(x)
        return self.first(x), self.second(x), x


def test_a_module_that_changes_its_input_in_place_is_run_on_copies() -> None:
    example = torch.randn(2, 5)
    before = example.clone()
    done = translator.convert(InPlace().eval(), example)
    assert torch.equal(example, before)
    assert done.report.verdict is Verdict.EXPLAINED
    assert "PyTorch's model changes x in place; the Keras model leaves its inputs alone" in done.report.notes
    assert "unread (Linear) has no twin: the result does not depend on it" in done.report.notes


def test_a_module_in_float64_gives_a_model_in_float64(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = network().double().eval()
    example = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    done = translator.convert(module, example)
    assert done.report.verdict in (Verdict.EQUAL, Verdict.EXPLAINED)
    assert {weight.dtype for weight in done.model.weights} == {"float64"}
    report = done.save(tmp_path / "double.keras")
    assert report.artifact is not None
    assert report.artifact.reloaded
    assert report.artifact.max_rel is not None
    assert report.artifact.max_rel < 1e-12


def test_the_example_of_a_network_in_float64_is_made_in_float64(tmp_path: Path) -> None:
    path = tmp_path / "double.py"
    path.write_text(
        "from torch import nn\n\n\ndef net():\n    return nn.Sequential(nn.Linear(4, 3), nn.Tanh()).double()\n"
    )
    loaded = load_source(f"{path}:net", input_shapes=[[2, 4]])
    assert loaded.example_inputs[0].dtype is torch.float64


class Rotary(nn.Module):
    """Rotary positions as complex numbers, as Llama's own code has them."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        turns = torch.polar(torch.ones(5, 4), torch.outer(torch.arange(5.0), 10 ** (-torch.arange(4) / 4)))
        if kind == "buffer":
            self.register_buffer("turns", turns)
        else:
            self.turns = nn.Parameter(turns) if kind == "parameter" else turns

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pairs = torch.view_as_complex(self.linear(x).reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * self.turns[: x.shape[1]]).flatten(2)


@pytest.mark.parametrize("kind", ["attribute", "buffer"])
@pytest.mark.parametrize("length", [3, 5])
def test_complex_numbers_of_no_parameter_are_part_of_the_function(kind: str, length: int) -> None:
    report = translator.convert(Rotary(kind), torch.randn(2, length, 8)).report
    assert report.verdict is (Verdict.EXPLAINED if kind == "buffer" else Verdict.EQUAL)
    assert report.balance.unexplained == 0


def test_a_complex_parameter_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"the parameter 1\.turns is complex") as caught:
        translator.convert(nn.Sequential(nn.Identity(), Rotary("parameter")), torch.randn(2, 5, 8))
    assert caught.value.where.module == "1"


def test_a_number_read_from_a_tensor_is_computed() -> None:
    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * x.max().item()

    assert translator.convert(Scaled(), torch.randn(2, 6)).report.verdict is Verdict.EQUAL


class Masked(nn.Conv2d):
    """PixelCNN's convolution, which writes its mask into its weight each time it is called."""

    def __init__(self, how: str) -> None:
        super().__init__(3, 4, 3)
        self.how = how
        self.register_buffer("mask", torch.ones_like(self.weight))
        self.mask[:, :, 1, 1:] = self.mask[:, :, 2] = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "in place":
            self.weight.data *= self.mask
        else:
            self.weight.data = self.weight.data * self.mask
        return super().forward(x)


@pytest.mark.parametrize("how", ["in place", "anew"])
def test_a_weight_that_the_forward_masks_is_masked_in_keras_each_time(how: str) -> None:
    module = nn.Sequential(Masked(how), nn.ReLU())
    example = torch.randn(2, 3, 8, 8)
    done = translator.convert(module, example)
    assert done.report.verdict is Verdict.EXPLAINED
    (weight,) = [w for w in done.model.trainable_weights if math.prod(w.shape) == module[0].weight.numel()]
    weight.assign(weight + 1)
    with torch.no_grad():
        module[0].weight += 1
    want = module(example).detach().numpy()
    got = keras.ops.convert_to_numpy(done.model(np.moveaxis(example.numpy(), 1, -1)))
    assert np.allclose(np.moveaxis(got, -1, 1), want, rtol=1e-5, atol=1e-5)
