"""A user's network, and how its refusals are read."""

from __future__ import annotations

import pytest

from translator.capture.source import load_source
from translator.errors import InputError

NETWORK = """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, width: int = 4, kind: str = "plain") -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, width, 3)
            self.bn = nn.BatchNorm2d(width)
            self.kind = kind

        def forward(self, x):
            return self.bn(self.conv(x))

    def build(width=4):
        return Net(width)

    model = Net(6)
    number = 3
"""

SHAPE = [(2, 3, 8, 8)]


def refusal(spec: str, kind: type[InputError] = InputError, **settings) -> str:
    with pytest.raises(kind) as caught:
        load_source(spec, **settings)
    assert caught.value.exit_status == 2
    return str(caught.value)
