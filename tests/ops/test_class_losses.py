"""Losses of classes inside a model: every form that PyTorch has, with classes that are ignored and weights."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

import translator
from translator.capture.class_losses import cross_entropy, nll_loss
from translator.verdict import Verdict

CLASSES = 5
SHAPES = ((), (4,), (4, 3), (2, 3, 2))
WEIGHT = torch.tensor([0.5, 2.0, 0.0, 1.0, 0.3], dtype=torch.float64)


def drawn(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, classes (one of them ignored, where there are several) and probabilities."""
    torch.manual_seed(0)
    size = (shape[0], CLASSES, *shape[1:]) if shape else (CLASSES,)
    classes = torch.randint(0, CLASSES, shape)
    if shape:
        classes.view(-1)[1] = -100
    logits = torch.randn(size, dtype=torch.float64)
    return logits, classes, torch.randn(size, dtype=torch.float64).softmax(min(len(shape), 1))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_form_gives_pytorchs_numbers(shape: tuple[int, ...]) -> None:
    logits, classes, probabilities = drawn(shape)
    for reduction, weight, smoothing in itertools.product(("none", "mean", "sum"), (None, WEIGHT), (0.0, 0.2)):
        how = {"weight": weight, "reduction": reduction}
        for target in (classes, probabilities):
            ours = cross_entropy(logits, target, **how, label_smoothing=smoothing)
            want = functional.cross_entropy(logits, target, **how, label_smoothing=smoothing)
            torch.testing.assert_close(ours, want, rtol=1e-14, atol=1e-14)
        logs = logits.log_softmax(min(len(shape), 1))
        torch.testing.assert_close(
            nll_loss(logs, classes, **how), functional.nll_loss(logs, classes, **how), rtol=1e-14, atol=1e-14
        )


@pytest.mark.filterwarnings("ignore:size_average and reduce args will be deprecated")
def test_the_old_names_of_a_reduction_are_known() -> None:
    logits, classes, _ = drawn((4,))
    for how in ({"size_average": False}, {"reduce": False}, {"size_average": True, "reduce": True}):
        ours, want = cross_entropy(logits, classes, **how), functional.cross_entropy(logits, classes, **how)
        torch.testing.assert_close(ours, want, rtol=1e-14, atol=1e-14)


def test_an_ignored_class_of_no_probability_counts_nothing() -> None:
    logs, classes = torch.tensor([[-torch.inf, 0.0], [-0.5, -1.0]]), torch.tensor([7, 1])
    ours = nll_loss(logs, classes, ignore_index=7)
    assert ours.item() == functional.nll_loss(logs, classes, ignore_index=7).item() == 1.0


class Learning(nn.Module):
    """A classifier that gives its loss, of images and of their labels."""

    def __init__(self, **settings: object) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, CLASSES, 1)
        self.loss = nn.CrossEntropyLoss(**settings)  # type: ignore[arg-type]

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logits = self.head(self.stem(images).relu())
        pooled = logits.mean((2, 3))
        each = functional.nll_loss(pooled.log_softmax(1), labels[:, 0, 0], reduction="none")
        return logits, self.loss(logits, labels), functional.cross_entropy(pooled, labels[:, 1, 1]), each


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"weight": WEIGHT.float() + 0.1, "ignore_index": 3},
        {"label_smoothing": 0.1, "reduction": "sum"},
        {"weight": WEIGHT.float() + 0.1, "label_smoothing": 0.1, "reduction": "none"},
    ],
    ids=str,
)
def test_a_model_that_gives_its_loss_is_proven(settings: dict[str, object]) -> None:
    labels = torch.randint(0, CLASSES, (2, 6, 5))
    done = translator.convert(Learning(**settings).eval(), (torch.randn(2, 3, 8, 7), labels))
    assert done.report.verdict is not Verdict.DIFFERENT
    assert done.report.balance.unexplained == 0
