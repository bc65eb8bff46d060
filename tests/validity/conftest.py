"""Nets are trained once a session."""

import functools

import numpy as np
import pytest

from .nets import NETS, split

COUNT = 100


@pytest.fixture(scope="session")
def honest():
    """honest(name) -> Net, trained at the first call."""
    return functools.cache(lambda name: NETS[name]())


@pytest.fixture(scope="session")
def examples() -> tuple[np.ndarray, np.ndarray]:
    x, y = split("test")
    return x[:COUNT], y[:COUNT]
