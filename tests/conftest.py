"""Strict surroundings for every test: eight host devices, no rank promotion, compiled code kept between runs."""

import os
import pathlib
import tempfile

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(tempfile.gettempdir(), "robustgen-test-cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

import hypothesis
import jax
import pytest

hypothesis.settings.register_profile("robustgen", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("robustgen")

SHARED = pathlib.Path(os.environ.get("ROBUSTGEN_SHARED", pathlib.Path(__file__).parents[2] / "shared"))


@pytest.fixture
def key() -> jax.Array:
    """The one source of randomness of a test."""
    return jax.random.key(0)


@pytest.fixture
def shared() -> pathlib.Path:
    """Folder of prepared data and reference cases kept outside the repository; the test is skipped without it."""
    if not SHARED.is_dir():
        pytest.skip("needs the shared folder of prepared data: set ROBUSTGEN_SHARED to it")
    return SHARED


@pytest.fixture
def x64():
    """64-bit arithmetic for the length of one test."""
    with jax.enable_x64(True):
        yield
