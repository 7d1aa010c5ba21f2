"""The two seed networks agree with their published summaries, row by row."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from models import cifar_resnet

GOLDEN = Path(__file__).parents[1] / "golden"


def rows(name: str) -> list[dict[str, str]]:
    with (GOLDEN / name).open(newline="") as file:
        return list(csv.DictReader(file))


def torch_rows(model: nn.Module) -> list[tuple[str, str, int]]:
    """Type, output shape with -1 for the batch, and own parameters of each call, in the order in which calls end."""
    found: list[tuple[str, str, int]] = []

    def record(module: nn.Module, _: object, output: torch.Tensor) -> None:
        shape = "x".join(["-1", *map(str, output.shape[1:])])
        own = sum(p.numel() for p in module.parameters(recurse=False))
        found.append((type(module).__name__, shape, own))

    for module in model.modules():
        if module is not model and not isinstance(module, nn.Sequential):
            module.register_forward_hook(record)
    with torch.no_grad():
        model.eval()(*cifar_resnet.example_inputs())
    return found


def without_counter(name: str) -> str:
    return re.sub(r"_\d+$", "", name)


def test_torch_network_agrees_with_each_of_the_51_rows() -> None:
    want = [(row["type"], row["output_shape"], int(row["params"])) for row in rows("torch_summary.csv")]
    got = torch_rows(cifar_resnet.resnet())
    assert len(want) == 51
    assert got == want
    assert sum(params for _, _, params in got) == 195_738


def test_torch_network_has_one_buffer_triple_for_each_of_15_batch_norms() -> None:
    buffers = dict(cifar_resnet.resnet().named_buffers())
    assert len(buffers) == 45
    assert sum(b.numel() for name, b in buffers.items() if not name.endswith("num_batches_tracked")) == 1_120
    assert sum(name.endswith("num_batches_tracked") for name in buffers) == 15


def test_torch_network_names_its_modules_as_the_article_does() -> None:
    model = cifar_resnet.resnet()
    assert [name for name, _ in model.named_children()] == [
        "conv", "bn", "relu", "layer1", "layer2", "layer3", "avg_pool", "fc",
    ]  # fmt: skip
    assert [name for name, _ in model.layer2[0].named_children()] == [
        "conv1", "bn1", "relu", "conv2", "bn2", "downsample",
    ]  # fmt: skip
    assert model.layer1[0].downsample is None
    assert model.layer2[0].downsample[0].kernel_size == (3, 3)
    assert all(m.inplace for m in model.modules() if isinstance(m, nn.ReLU))


@pytest.mark.parametrize(
    ("factory", "depth"),
    [("resnet20", 20), ("resnet32", 32), ("resnet44", 44), ("resnet56", 56), ("resnet110", 110), ("resnet1202", 1202)],
)
def test_cifar_family_has_the_depth_in_its_name(factory: str, depth: int) -> None:
    with torch.device("meta"):
        model = getattr(cifar_resnet, factory)()
    shortcuts = 2
    weighted = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(weighted) - shortcuts == depth
    assert {len(model.layer1), len(model.layer2), len(model.layer3)} == {(depth - 2) // 6}


def test_block_counts_come_as_numbers_or_as_text() -> None:
    with torch.device("meta"):
        for blocks in ("1,2,3", " 1, 2, 3", (1, 2, 3), [1, 2, 3]):
            model = cifar_resnet.resnet(blocks)
            assert [len(model.layer1), len(model.layer2), len(model.layer3)] == [1, 2, 3]
        assert cifar_resnet.resnet(num_classes=7).fc.out_features == 7


@pytest.mark.parametrize("blocks", ["2,2", "2,2,2,2", "a,b,c", "", (0, 2, 2), 3])
def test_other_block_counts_are_refused_by_name(blocks: object) -> None:
    with pytest.raises(ValueError, match="want three positive block counts such as 2,2,2, got"):
        cifar_resnet.resnet(blocks)


@pytest.mark.parametrize("depth", [2, 21, -4])
def test_other_depths_are_refused_by_name(depth: int) -> None:
    with pytest.raises(ValueError, match=f"want 6n \\+ 2 .*, got {depth}"):
        cifar_resnet.resnet_of_depth(depth)


def test_keras_network_agrees_with_each_of_the_53_rows() -> None:
    from models import cifar_resnet_keras

    want = rows("keras_summary.csv")
    model = cifar_resnet_keras.resnet()
    assert len(want) == len(model.layers) == 53
    twin = {row["name"]: layer.name for row, layer in zip(want, model.layers, strict=True)}
    for row, layer in zip(want, model.layers, strict=True):
        shape = "x".join(str(size) for size in layer.output.shape)
        assert (without_counter(layer.name), type(layer).__name__) == (without_counter(row["name"]), row["type"])
        assert (shape, layer.count_params()) == (row["output_shape"], int(row["params"])), layer.name
        assert sources(layer) == [twin[part.split("[")[0]] for part in row["connected_to"].split()], layer.name


def test_keras_network_numbers_its_layers_in_the_published_order() -> None:
    from models import cifar_resnet_keras

    def counters(names: list[str]) -> list[int]:
        numbers = [int(found[0]) if (found := re.findall(r"_(\d+)$", name)) else 0 for name in names]
        return [number - numbers[0] for number in numbers]

    model = cifar_resnet_keras.resnet()
    for kind in ("Conv2D", "BatchNormalization", "Activation", "Add"):
        want = [row["name"] for row in rows("keras_summary.csv") if row["type"] == kind]
        assert counters([la.name for la in model.layers if type(la).__name__ == kind]) == counters(want)


def test_keras_network_counts_197_418_parameters() -> None:
    from models import cifar_resnet_keras

    model = cifar_resnet_keras.resnet()
    assert model.count_params() == 197_418
    assert sum(weight.numpy().size for weight in model.trainable_weights) == 196_298
    assert sum(weight.numpy().size for weight in model.non_trainable_weights) == 1_120


def sources(layer: object) -> list[str]:
    """Names of the layers that feed this one, in the order of its arguments."""
    node = layer._inbound_nodes[0]
    return [tensor._keras_history.operation.name for tensor in node.input_tensors]
