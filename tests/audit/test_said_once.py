"""A difference is said once, by its name: what is wrong only because of it isn't said again as numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from keras import layers, ops
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer
from torch import nn

from tests.audit.building import Build, audited, chain, conv, norm, telling

pytestmark = pytest.mark.audit


class NormAct(nn.BatchNorm2d):
    """A norm that acts, with modules of its own inside."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.drop(super().forward(x)))


class Features(nn.Module):
    """Features in a module of their own, and a head that ends in nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(144, 5), nn.Identity())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x))


def features(*, front: tuple[Build, ...] = (), activation: str | None = None) -> Build:
    head = (layers.Flatten(), layers.Dense(5, activation=activation))
    return chain(*front, conv(4), norm(), layers.ReLU(), *head)


def kinds(module: nn.Module, build: Build) -> list[str]:
    return sorted(d.kind for d in telling(audited(module, build, (8, 8, 3))))


def test_the_parts_of_a_norm_that_acts_are_not_named_beside_its_epsilon() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), NormAct(4))
    assert kinds(module, chain(conv(4), norm(), layers.ReLU())) == []
    assert kinds(module, chain(conv(4), norm(epsilon=1e-3), layers.ReLU())) == ["epsilon"]


def test_what_reads_the_preprocessed_image_is_not_named_beside_the_preprocessing() -> None:
    """The module around the first layer reads another image, too."""
    assert kinds(Features(), features()) == []
    rescaling = layers.Rescaling(1 / 127.5, offset=-1.0)
    assert kinds(Features(), features(front=(rescaling,))) == ["preprocessing"]


def test_modules_that_end_with_the_model_are_not_named_beside_its_head() -> None:
    assert kinds(Features(), features(activation="softmax")) == ["head"]


class Residual(nn.Module):
    """Two blocks that add half of what they compute."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for branch in self.branches:
            x = torch.relu(x + 0.5 * branch(x))
        return x


def test_a_sum_that_is_another_kind_of_layer_reads_what_it_reads() -> None:
    def build(x: Any) -> Any:
        for _ in range(2):
            x = layers.ReLU()(CustomScaleLayer(0.5)([x, layers.Conv2D(3, 1)(x)]))
        return x

    assert kinds(Residual(), build) == []


def test_what_a_module_with_a_named_difference_reads_is_still_judged() -> None:
    """Another epsilon inside doesn't excuse what comes in."""
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)))
    halved = chain(layers.Conv2D(4, 1), lambda x: x * 0.5, conv(4), norm(epsilon=1e-3))
    assert kinds(module, halved) == ["epsilon", "numbers"]


def test_a_fault_beside_a_named_difference_is_still_named() -> None:
    rescaling = layers.Rescaling(1 / 127.5, offset=-1.0)
    wrong = chain(rescaling, conv(4), norm(epsilon=1e-3), layers.ReLU(), layers.Flatten(), layers.Dense(5, "tanh"))
    assert kinds(Features(), wrong) == ["epsilon", "extra-activation", "preprocessing"]


class Shuffle(nn.Module):
    """Channels of two branches, mixed."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        both = torch.cat([self.a(x), self.b(x)], dim=1)
        n, c, h, w = both.shape
        return self.last(both.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_parts_of_one_value_put_together_again_are_no_layer(order: tuple[int, int]) -> None:
    """Mixed by a stack in Keras; in another order it is another function, by its numbers."""

    def build(x: Any) -> Any:
        both = ops.concatenate([layers.Conv2D(4, 1)(x), layers.Conv2D(4, 1)(x)], axis=-1)
        halves = both[..., :4], both[..., 4:]
        mixed = ops.stack([halves[i] for i in order], axis=-1)
        return layers.Conv2D(2, 1)(ops.reshape(mixed, (-1, 8, 8, 8)))

    report = audited(Shuffle(), build, (8, 8, 3))
    assert [d.kind for d in telling(report)] == ([] if order == (0, 1) else ["numbers"])
    assert report.first_wrong == ("" if order == (0, 1) else "last")
