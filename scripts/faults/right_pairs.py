"""Right translations: six for the faults, many for false alarms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from scripts.faults.planting import Right, homes
from scripts.faults.random_nets import random_pair


def _torchvision(name: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import torchvision

        module: nn.Module = torchvision.models.get_model(name, **options)
        return module

    return build


def _cifar() -> nn.Module:
    from models.cifar_resnet import resnet

    return resnet()


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "cifar": (_cifar, (2, 3, 32, 32)),
    "resnet18": (_torchvision("resnet18"), (2, 3, 64, 64)),
    "resnext50": (_torchvision("resnext50_32x4d"), (2, 3, 64, 64)),
    "mobilenet": (_torchvision("mobilenet_v2"), (2, 3, 64, 64)),
    "densenet": (_torchvision("densenet121"), (2, 3, 64, 64)),
    "vgg": (_torchvision("vgg11_bn"), (2, 3, 64, 64)),
}

_MORE = (
    "alexnet", "squeezenet1_0", "squeezenet1_1", "resnet34", "mobilenet_v3_small", "mobilenet_v3_large",
    "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "mnasnet0_5", "mnasnet1_0", "efficientnet_b0", "regnet_y_400mf",
    "regnet_x_400mf", "vgg11", "vgg13_bn", "resnet50", "wide_resnet50_2", "convnext_tiny", "googlenet",
)  # fmt: skip
_TIMM = (
    "resnet10t", "resnet14t", "resnet26", "resnet26d", "seresnet18", "ese_vovnet19b_slim", "mobilenetv2_050",
    "mobilenetv3_small_050", "efficientnet_lite0", "tf_efficientnetv2_b0", "ghostnet_050", "hardcorenas_a",
    "fbnetc_100", "lcnet_050", "spnasnet_100", "semnasnet_075", "repvgg_a0", "gernet_s", "convnext_atto", "resnet18d",
    "resnetv2_18", "rexnet_100", "tinynet_e", "cs3darknet_s", "regnetx_002", "regnety_002",
)  # fmt: skip


def settled(module: nn.Module, seed: int) -> nn.Module:
    """The module with BatchNorm statistics and vectors away from what they start with: a fault must be able to show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.1)
            elif name.endswith("running_var"):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return module.eval()


def translated(network: str, seed: int) -> Right:
    """One of the six, translated."""
    import translator

    build, shape = NETWORKS[network]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = settled(build(), seed)
    inputs = (torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)),)
    done = translator.convert(module, inputs, proof=False)
    home = homes(done.claims, done.model)
    return Right(name=network, module=module, model=done.model, claims=done.claims, inputs=inputs, home=home)


MakePair = Callable[[], tuple[nn.Module, Any, tuple[Any, ...]]]
"""Gives a PyTorch module, a Keras model that is the same, and example inputs."""


def right_pairs(seed: int) -> Iterator[tuple[str, MakePair]]:
    """Pairs that are right, made when they are asked for: the six, more networks, and small random nets without end."""
    builders: list[tuple[str, Callable[[], nn.Module], tuple[int, ...]]] = [
        (name, build, shape) for name, (build, shape) in NETWORKS.items()
    ]
    builders += [(name, _torchvision(name), (2, 3, 64, 64)) for name in _MORE]
    builders += [(name, _timm(name), (2, 3, 64, 64)) for name in _TIMM]
    for name, build, shape in builders:
        yield name, partial(_translated_pair, build, shape, seed)
    number = 0
    while True:
        yield f"random net {number}", partial(_written_pair, seed, number)
        number += 1


def _translated_pair(
    build: Callable[[], nn.Module], shape: tuple[int, ...], seed: int
) -> tuple[nn.Module, Any, tuple[Any, ...]]:
    import translator

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = settled(build(), seed)
    inputs = (torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)),)
    return module, translator.convert(module, inputs, proof=False).model, inputs


def _written_pair(seed: int, number: int) -> tuple[nn.Module, Any, tuple[Any, ...]]:
    pair = random_pair(np.random.default_rng([seed, number]))
    return pair.module, pair.model, pair.inputs


def _timm(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import timm

        module: nn.Module = timm.create_model(name)
        return module

    return build
