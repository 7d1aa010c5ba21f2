"""A random small network, written twice: in PyTorch and in Keras, by code that knows nothing of the translator.

A net is a list of nodes. Each framework reads the list in its own way; how the Keras side writes a padding or an
activation is drawn, too. `mutation` makes one node of the Keras side wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
import torch
from keras import layers, ops
from torch import nn

Rng = np.random.Generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operation. settings: by name; what they mean depends on `op`."""

    name: str
    op: str
    inputs: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """A network: nodes in order; the first reads "image", the last is the result."""

    image: tuple[int, int, int]
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomPair:
    """The same network in both frameworks, with the same weights, but for the mutation."""

    net: Net
    module: nn.Module
    model: keras.Model
    inputs: tuple[torch.Tensor, ...]


ACTIVATIONS: dict[str, tuple[Callable[[], nn.Module], Callable[[Any], Any]]] = {
    "relu": (nn.ReLU, ops.relu),
    "relu6": (nn.ReLU6, ops.relu6),
    "leaky": (lambda: nn.LeakyReLU(0.1), lambda x: ops.leaky_relu(x, negative_slope=0.1)),
    "gelu": (nn.GELU, lambda x: ops.gelu(x, approximate=False)),
    "silu": (nn.SiLU, ops.silu),
    "tanh": (nn.Tanh, ops.tanh),
    "elu": (nn.ELU, ops.elu),
    "hardswish": (nn.Hardswish, ops.hard_silu),
}


class _Drawing:
    """Draws a net, keeping track of the sizes."""

    def __init__(self, rng: Rng) -> None:
        self.rng = rng
        size = int(rng.choice([12, 13, 16]))
        self.image = (size, int(rng.choice([size, size + 3])), int(rng.choice([2, 3])))
        self.nodes: list[Node] = []
        self.shapes: dict[str, tuple[int, int, int]] = {"image": self.image}

    def add(self, op: str, inputs: tuple[str, ...], shape: tuple[int, int, int], **settings: Any) -> str:
        name = f"n{len(self.nodes)}"
        self.nodes.append(Node(name=name, op=op, inputs=inputs, settings=settings))
        self.shapes[name] = shape
        return name

    def conv(self, x: str, *, filters: int | None = None, stride: int | None = None) -> str:
        height, width, channels = self.shapes[x]
        kernel = int(self.rng.choice([1, 3, 5]))
        stride = int(self.rng.choice([1, 1, 2])) if stride is None else stride
        filters = filters or int(self.rng.choice([4, 6, 8]))
        groups = 2 if channels % 2 == 0 and filters % 2 == 0 and self.rng.random() < 0.2 else 1
        padding = kernel // 2
        shape = (_after(height, kernel, stride, padding), _after(width, kernel, stride, padding), filters)
        return self.add(
            "conv", (x,), shape, filters=filters, channels=channels, kernel=kernel, stride=stride, padding=padding,
            groups=groups, bias=bool(self.rng.random() < 0.5), same=bool(self.rng.random() < 0.5),
        )  # fmt: skip

    def norm(self, x: str) -> str:
        epsilon, momentum = float(self.rng.choice([1e-5, 1e-3])), float(self.rng.choice([0.1, 0.03]))
        return self.add("norm", (x,), self.shapes[x], channels=self.shapes[x][-1], epsilon=epsilon, momentum=momentum)

    def activation(self, x: str) -> str:
        kind = str(self.rng.choice(list(ACTIVATIONS)))
        inside = self.nodes[-1].op == "conv" and self.nodes[-1].name == x and bool(self.rng.random() < 0.4)
        return self.add("act", (x,), self.shapes[x], kind=kind, inside=inside)

    def pool(self, x: str) -> str:
        height, width, channels = self.shapes[x]
        kind, padding = str(self.rng.choice(["max", "average"])), int(self.rng.choice([0, 1]))
        shape = (_after(height, 3, 2, padding), _after(width, 3, 2, padding), channels)
        return self.add("pool", (x,), shape, kind=kind, kernel=3, stride=2, padding=padding)

    def residual(self, x: str) -> str:
        filters = self.shapes[x][-1]
        y = self.activation(self.norm(self.conv(x, filters=filters, stride=1)))
        y = self.conv(y, filters=filters, stride=1)
        return self.add("add", (y, x), self.shapes[x])

    def branches(self, x: str) -> str:
        a = self.activation(self.conv(x, stride=1))
        b = self.norm(self.conv(x, stride=1))
        height, width = self.shapes[x][:2]
        return self.add("concat", (a, b), (height, width, self.shapes[a][-1] + self.shapes[b][-1]))

    def head(self, x: str) -> str:
        height, width, channels = self.shapes[x]
        if self.rng.random() < 0.5:
            x = self.add("mean", (x,), (1, 1, channels))
            features = channels
        else:
            x = self.add("flatten", (x,), (1, 1, height * width * channels))
            features = height * width * channels
        if self.rng.random() < 0.5:
            x = self.add("dropout", (x,), self.shapes[x], rate=0.3)
        x = self.add("dense", (x,), (1, 1, 7), features=features, units=7, bias=True)
        x = self.add("act", (x,), (1, 1, 7), kind="relu", inside=False)
        return self.add("dense", (x,), (1, 1, 5), features=7, units=5, bias=bool(self.rng.random() < 0.5))


def draw(rng: Rng) -> Net:
    """A random net of a dozen layers or two."""
    drawing = _Drawing(rng)
    x = drawing.activation(drawing.norm(drawing.conv("image")))
    for _ in range(int(rng.integers(1, 4))):
        step = rng.choice(["conv", "residual", "branches", "pool"])
        if step == "conv":
            x = drawing.activation(drawing.conv(x))
        elif step == "pool" and min(drawing.shapes[x][:2]) > 4:
            x = drawing.pool(x)
        else:
            x = drawing.residual(x) if step == "residual" else drawing.branches(x)
    drawing.head(x)
    return Net(image=drawing.image, nodes=tuple(drawing.nodes))


def _after(size: int, kernel: int, stride: int, padding: int) -> int:
    return (size + 2 * padding - kernel) // stride + 1


class TorchNet(nn.Module):
    """The net in PyTorch: layers that hold something as modules, the rest as functions."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net
        self.parts = nn.ModuleDict({n.name: made for n in net.nodes if (made := _torch_layer(n)) is not None})

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → (N, 5)."""
        values = {"image": image}
        for node in self.net.nodes:
            given = [values[i] for i in node.inputs]
            values[node.name] = self._compute(node, given)
        return values[self.net.nodes[-1].name]

    def _compute(self, node: Node, given: list[torch.Tensor]) -> torch.Tensor:
        if node.name in self.parts:
            return self.parts[node.name](given[0])
        if node.op == "add":
            return given[0] + given[1]
        if node.op == "concat":
            return torch.cat(given, dim=1)
        return given[0].mean(dim=(2, 3)) if node.op == "mean" else given[0].flatten(1)


def _torch_layer(node: Node) -> nn.Module | None:
    s = node.settings
    match node.op:
        case "conv":
            return nn.Conv2d(
                s["channels"], s["filters"], s["kernel"], s["stride"], s["padding"], groups=s["groups"], bias=s["bias"]
            )
        case "norm":
            return nn.BatchNorm2d(s["channels"], eps=s["epsilon"], momentum=s["momentum"])
        case "act":
            return ACTIVATIONS[s["kind"]][0]()
        case "pool":
            cls = nn.MaxPool2d if s["kind"] == "max" else nn.AvgPool2d
            return cls(s["kernel"], s["stride"], s["padding"])
        case "dense":
            return nn.Linear(s["features"], s["units"], bias=s["bias"])
        case "dropout":
            return nn.Dropout(s["rate"])
    return None


def keras_net(net: Net) -> keras.Model:
    """The net in Keras' functional style."""
    image = keras.Input(net.image)
    values = {"image": image}
    inside = {n.inputs[0]: n.settings["kind"] for n in net.nodes if n.op == "act" and n.settings["inside"]}
    for node in net.nodes:
        given = [values[i] for i in node.inputs]
        values[node.name] = _keras_value(node, given, inside.get(node.name))
    return keras.Model(image, values[net.nodes[-1].name])


def _keras_value(node: Node, given: list[Any], activation: str | None) -> Any:
    s, x = node.settings, given[0]
    match node.op:
        case "conv":
            return _keras_conv(node, x, activation)
        case "norm":
            return layers.BatchNormalization(
                epsilon=s["epsilon"], momentum=1 - s["momentum"], name=node.name
            )(x)  # fmt: skip
        case "act":
            if s["inside"]:
                return x
            return ops.relu(x) if s["kind"] == "relu" else ACTIVATIONS[s["kind"]][1](x)
        case "pool":
            pads = [[0, 0], [s["padding"]] * 2, [s["padding"]] * 2, [0, 0]]
            if s["padding"]:
                x = ops.pad(x, pads, constant_values=-np.inf if s["kind"] == "max" else 0.0)
            cls = layers.MaxPooling2D if s["kind"] == "max" else layers.AveragePooling2D
            return cls(s["kernel"], s["stride"], name=node.name)(x)
        case "dense":
            return layers.Dense(s["units"], use_bias=s["bias"], name=node.name)(x)
        case "dropout":
            return layers.Dropout(s["rate"], name=node.name)(x)
        case "add":
            return (layers.Multiply if s.get("multiplied") else layers.Add)(name=node.name)(given)
        case "concat":
            return layers.Concatenate(name=node.name)(given[::-1] if s.get("turned") else given)
        case "mean":
            return layers.GlobalAveragePooling2D(name=node.name)(x)
    return layers.Flatten(name=node.name)(x)


def _keras_conv(node: Node, x: Any, activation: str | None) -> Any:
    s = node.settings
    padding = "valid"
    if s["padding"] and s["same"] and s["stride"] == 1 and not s.get("shifted"):
        padding = "same"
    elif s["padding"]:
        p = s["padding"]
        x = layers.ZeroPadding2D(((p + 1, p - 1), (p, p)) if s.get("shifted") else p)(x)
    function = None if activation is None else _inner(activation)
    return layers.Conv2D(
        s["filters"], s["kernel"], s["stride"], padding=padding, groups=s["groups"], use_bias=s["bias"],
        activation=function, name=node.name,
    )(x)  # fmt: skip


def _inner(kind: str) -> Any:
    plain = {"relu": "relu", "relu6": "relu6", "silu": "silu", "tanh": "tanh", "elu": "elu", "gelu": "gelu"}
    return plain.get(kind, ACTIVATIONS[kind][1])


def copy_weights(net: Net, module: TorchNet, model: keras.Model) -> None:
    """PyTorch's weights into Keras, by the nodes' names."""
    shapes = _image_shapes(net)
    for node in net.nodes:
        if node.op not in ("conv", "norm", "dense"):
            continue
        part, layer = module.parts[node.name], model.get_layer(node.name)
        state = {k: v.detach().numpy() for k, v in part.state_dict().items()}
        if node.op == "norm":
            layer.set_weights([state[k] for k in ("weight", "bias", "running_mean", "running_var")])
            continue
        kernel = state["weight"]
        if node.op == "conv":
            kernel = kernel.transpose(2, 3, 1, 0)
        else:
            kernel = _rows(node, kernel, shapes)
        layer.set_weights([kernel, state["bias"]] if "bias" in state else [kernel])


def _rows(node: Node, kernel: np.ndarray, shapes: dict[str, tuple[int, int, int] | None]) -> np.ndarray:
    image = shapes.get(node.inputs[0])
    if image is None:
        return kernel.T
    height, width, channels = image
    return kernel.reshape(-1, channels, height, width).transpose(2, 3, 1, 0).reshape(height * width * channels, -1)


def _image_shapes(net: Net) -> dict[str, tuple[int, int, int] | None]:
    """For each flattened value the image that it was."""
    model = keras_net(net)
    found: dict[str, tuple[int, int, int] | None] = {}
    for node in net.nodes:
        if node.op == "flatten":
            found[node.name] = tuple(model.get_layer(node.name).input.shape[1:])
        elif node.op == "dropout":
            found[node.name] = found.get(node.inputs[0])
    return found


def settled(module: nn.Module, rng: Rng) -> nn.Module:
    """Statistics and vectors away from what they start with, drawn from `rng`."""
    with torch.no_grad():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if not tensor.is_floating_point():
                continue
            value = rng.standard_normal(tuple(tensor.shape)).astype(np.float32)
            if name.endswith("running_var"):
                value = np.abs(value) + 0.5
            elif tensor.ndim > 1:
                value = value / np.sqrt(max(tensor[0].numel(), 1))
            tensor.copy_(torch.from_numpy(np.asarray(value)))
    return module.eval()


def random_pair(rng: Rng, *, change: Callable[[Net], Net] | None = None) -> RandomPair:
    """A pair with equal weights. change: makes another net for the Keras side, of the same weights' shapes."""
    net = draw(rng)
    module = TorchNet(net)
    settled(module, rng)
    model = keras_net(change(net) if change is not None else net)
    copy_weights(net, module, model)
    height, width, channels = net.image
    image = rng.standard_normal((2, channels, height, width)).astype(np.float32)
    return RandomPair(net=net, module=module, model=model, inputs=(torch.from_numpy(image),))


def with_node(net: Net, name: str, **settings: Any) -> Net:
    """The net with other settings in one node."""
    nodes = tuple(replace(n, settings={**n.settings, **settings}) if n.name == name else n for n in net.nodes)
    return replace(net, nodes=nodes)
