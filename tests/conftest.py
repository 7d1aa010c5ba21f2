"""What every test shares: frameworks loaded in an order that works, and random numbers that belong to the test."""

from __future__ import annotations

import importlib.util
import os
import random
import sys
import zlib
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np
import pytest
import torch
from hypothesis import settings

# torch's triton and TensorFlow carry two LLVMs: triton has to be there first, or the process aborts later.
if importlib.util.find_spec("triton") is not None:
    import triton._C.libtriton  # noqa: F401

# An example may wait for two busy cores. Each run asks the same questions; --hypothesis-profile=new asks others.
settings.register_profile("new", deadline=None)
settings.register_profile("same", deadline=None, derandomize=True)
settings.load_profile("same")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest file first, so that no worker waits for it in the end. No slow tests, unless --slow, a marker
    expression or a test id asks for them."""
    items.sort(key=lambda item: item.path.name != "test_readme.py")
    if config.getoption("--slow") or config.getoption("-m") or any("::" in arg for arg in config.args):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A number of the test's own: the same in each run, whatever ran before."""
    return zlib.crc32(request.node.nodeid.encode())


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    """The test's own numpy generator."""
    return np.random.default_rng(seed)


@pytest.fixture(autouse=True)
def own_random_numbers(seed: int) -> Iterator[None]:
    """Random initial weights are the test's own, and the frameworks' global state is given back afterwards."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.manual_seed(seed)
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(seed)
    else:
        np.random.seed(seed)
        random.seed(seed)
    yield
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])
