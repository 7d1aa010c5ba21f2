"""A second checkpoint through `OUT.weightmap.json`: converted and proven on the command line, without tracing."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import torch

from models import cifar_resnet
from tests.models.test_conversion import with_statistics
from translator.config import ConvertRequest, SourceRequest
from translator.errors import InputError
from translator.pipeline import convert_file
from translator.verdict import Verdict

pytestmark = pytest.mark.model


def request(spec: str, weights: Path | None, output: Path) -> ConvertRequest:
    return ConvertRequest(source=SourceRequest(spec=spec, weights=weights), output=output)


def test_a_second_checkpoint_is_converted_from_the_weight_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "first.keras", tmp_path / "second.keras"
    convert_file(request("models/cifar_resnet.py:resnet", None, first))
    assert (tmp_path / "first.weightmap.json").exists()
    module = with_statistics(cifar_resnet.resnet(), seed=7)
    torch.save(module.state_dict(), tmp_path / "second.pt")
    monkeypatch.setattr(torch.export, "export", None)
    monkeypatch.chdir(tmp_path)
    report = convert_file(request("first.weightmap.json", tmp_path / "second.pt", second))
    assert report.verdict is Verdict.EXPLAINED
    assert report.artifact is not None
    assert report.artifact.reloaded
    assert (tmp_path / "second.weightmap.json").exists()
    x = torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        want = module(x).numpy()
    model = keras.saving.load_model(second)
    got = keras.ops.convert_to_numpy(model(x.permute(0, 2, 3, 1).numpy()))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_a_weight_map_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    convert_file(request("models/cifar_resnet.py:resnet", None, tmp_path / "net.keras"))
    with pytest.raises(InputError, match=r"no checkpoint to convert\n  fix:     --weights FILE"):
        convert_file(request(str(tmp_path / "net.weightmap.json"), None, tmp_path / "other.keras"))


def test_a_damaged_weight_map_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.weightmap.json").write_text("{")
    with pytest.raises(InputError, match="not a weight map"):
        convert_file(request(str(tmp_path / "net.weightmap.json"), tmp_path / "x.pt", tmp_path / "other.keras"))
