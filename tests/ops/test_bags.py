"""Bags of rows of a table: of one size, cut by offsets, with padding, with weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import translator
from tests.ops.proving import Case, assert_proven, case
from translator.errors import UnsupportedError

pytestmark = pytest.mark.op

_INDICES = torch.tensor([[2, 2, 2], [1, 2, 3], [8, 5, 6]])
_ROW, _OFFSETS = torch.tensor([1, 8, 3, 8, 8, 2, 3]), torch.tensor([0, 3, 3, 5])


class Weighted(nn.EmbeddingBag):
    def forward(self, x: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return super().forward(x, per_sample_weights=shares)


CASES: tuple[Case, ...] = (
    *(case(f"{m}", lambda m=m: nn.EmbeddingBag(9, 4, mode=m), _INDICES) for m in ("sum", "mean", "max")),
    *(case(f"{m}, padded", lambda m=m: nn.EmbeddingBag(9, 4, mode=m, padding_idx=2), _INDICES)
      for m in ("sum", "mean", "max")),
    case("weighted", lambda: Weighted(9, 4, mode="sum"), _INDICES, (3, 3)),
)  # fmt: skip

CUT: tuple[Case, ...] = (
    *(case(f"{m}, an empty bag", lambda m=m: nn.EmbeddingBag(9, 4, mode=m), _ROW, _OFFSETS)
      for m in ("sum", "mean", "max")),
    *(case(f"{m}, padded", lambda m=m: nn.EmbeddingBag(9, 4, mode=m, padding_idx=-1), _ROW, torch.tensor([0, 3, 5, 6]))
      for m in ("sum", "mean", "max")),
    case("closed", lambda: nn.EmbeddingBag(9, 4, include_last_offset=True), _ROW, torch.tensor([0, 3, 5, 7])),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_bags_of_one_size_are_proven(case: Case) -> None:
    assert_proven(CASES, case)


@pytest.mark.parametrize("case", CUT, ids=lambda c: c.name)
def test_bags_that_offsets_cut_are_proven(case: Case) -> None:
    assert_proven((case,), case)


def test_the_file_of_bags_that_offsets_cut_is_asked_with_more_of_them_in_order(tmp_path: Path) -> None:
    """Other numbers of rows keep what is sorted sorted: to offsets that fall, PyTorch has no right answer."""
    done = translator.convert(nn.EmbeddingBag(9, 4), (_ROW, _OFFSETS))
    artifact = done.save(tmp_path / "bags.keras").artifact
    assert artifact is not None
    assert artifact.error == ""


def test_a_bag_is_an_embedding_and_one_reduction() -> None:
    done = translator.convert(nn.Sequential(nn.EmbeddingBag(9, 4, mode="sum"), nn.Linear(4, 2)), _INDICES)
    kinds = [type(operation).__name__ for operation in done.model.operations]
    assert kinds == ["InputLayer", "Embedding", "Sum", "Dense"]


def test_rows_shortened_in_the_table_are_refused() -> None:
    with pytest.raises(UnsupportedError) as caught:
        translator.convert(nn.Sequential(nn.EmbeddingBag(9, 4, max_norm=1.0)), _INDICES)
    assert caught.value.where.module == "0"
