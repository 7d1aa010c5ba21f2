"""Training goes on in the other framework as if it had never left: weights, optimizer state, schedule."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import torch
from torch import nn

from translator.bindings import Permute, Piece, WeightBinding, to_torch
from translator.errors import InputError
from translator.training.float64 import trains_in_float64
from translator.training.keras_side import KerasSide, numbers
from translator.training.losses import map_loss
from translator.training.mapped import exact_in_float64
from translator.training.optimizer_state import state_to_keras, state_to_torch
from translator.training.optimizers import map_optimizer
from translator.verify.training import Link

pytestmark = [pytest.mark.train]
MAKERS = {
    "sgd": lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9),
    "sgd-decay": lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01),
    "adam": lambda m: torch.optim.Adam(m.parameters(), lr=0.01, amsgrad=True),
    "adamw": lambda m: torch.optim.AdamW(m.parameters(), lr=0.01),
    "rmsprop": lambda m: torch.optim.RMSprop(m.parameters(), lr=0.01, momentum=0.9, centered=True),
}


def pair():
    module = nn.Linear(3, 4)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(4, name="fc")(inputs))
    layer = model.get_layer("fc")
    kernel = WeightBinding(
        variable="kernel", shape=(3, 4), pieces=(Piece(tensor="weight"),), steps=(Permute(axes=(1, 0)),)
    )
    bias = WeightBinding(variable="bias", shape=(4,), pieces=(Piece(tensor="bias"),))
    links = [Link(variable=layer.kernel, binding=kernel), Link(variable=layer.bias, binding=bias)]
    layer.set_weights([module.weight.detach().numpy().T, module.bias.detach().numpy()])
    return module.double(), model, links


def torch_step(module, optimizer, batch):
    optimizer.zero_grad()
    nn.functional.cross_entropy(module(torch.tensor(batch[0])), torch.tensor(batch[1])).backward()
    optimizer.step()


@pytest.mark.parametrize("name", MAKERS)
def test_five_steps_here_five_there_and_five_back_are_fifteen_in_pytorch(name, rng):
    batches = [(rng.normal(size=(6, 3)), rng.integers(0, 4, size=6)) for _ in range(15)]
    module, model, links = pair()
    alone = nn.Linear(3, 4).double()
    alone.load_state_dict(module.state_dict())
    straight = MAKERS[name](alone)
    for batch in batches:
        torch_step(alone, straight, batch)
    first = MAKERS[name](module)
    for batch in batches[:5]:
        torch_step(module, first, batch)
    with trains_in_float64(model):
        for link in links:
            state = {k: v.numpy() for k, v in module.state_dict().items()}
            link.variable.assign(state["weight"].T if link.binding.variable == "kernel" else state["bias"])
        optimizer = exact_in_float64(map_optimizer(first).keras)
        side = KerasSide(model, map_loss(nn.CrossEntropyLoss()).keras, optimizer)
        state_to_keras(links, module, first, optimizer, steps=5)
        for images, labels in batches[5:10]:
            side.step(images, labels)
        assert int(optimizer.iterations) == 10
        second = MAKERS[name](module)
        assert state_to_torch(links, module, second, optimizer) == 10
        values = to_torch([(link.binding, numbers(link.variable)) for link in links], {"weight": (4, 3), "bias": (4,)})
        module.load_state_dict({k: torch.tensor(v) for k, v in values.items()})
    for batch in batches[10:]:
        torch_step(module, second, batch)
    for got, want in zip(module.parameters(), alone.parameters(), strict=True):
        np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), rtol=1e-11)


def test_the_state_of_a_sum_of_parameters_is_refused(rng):
    module, model, links = pair()
    both = WeightBinding(variable="bias", shape=(4,), pieces=(Piece(tensor="bias"), Piece(tensor="bias")), join="sum")
    summed = [Link(variable=links[1].variable, binding=both)]
    first = MAKERS["adam"](module)
    torch_step(module, first, (rng.normal(size=(6, 3)), rng.integers(0, 4, size=6)))
    optimizer = map_optimizer(first).keras
    optimizer.build(model.trainable_variables)
    with pytest.raises(InputError, match="fc/bias is the sum of bias: its state can't be carried over"):
        state_to_keras(summed, module, first, optimizer, steps=1)
    with pytest.raises(InputError, match="its state can't be carried over"):
        state_to_torch(summed, module, first, optimizer)
