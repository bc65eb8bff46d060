"""The README's code runs, its loss trains, and its commands name files and flags that exist."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np

from robustgen import attacks, models, threats
from robustgen.core import Batch

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_new_loss_is_about_twenty_lines_and_trains():
    code = next(block for block in _blocks("python") if "def alp" in block)
    lines = [line for line in code[code.index("@checked") :].splitlines() if line.strip()]
    assert len(lines) <= 20
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    attack = attacks.pgd(threats.linf(0.1), objective=attacks.cross_entropy, step_size=0.05, num_steps=2)
    net = models.init(models.mlp(hidden=(8,), num_classes=3), (4,), jax.random.key(0))
    batch = Batch(jnp.linspace(0, 1, 24).reshape(6, 4), jnp.arange(6) % 3)
    plain, paired = (names["alp"](attack, weight=weight)(net, batch, jax.random.key(1)) for weight in (0.0, 2.0))
    np.testing.assert_allclose(paired[0] - plain[0], 2.0 * paired[1].metrics["pairing"], rtol=1e-5)


def test_training_on_your_data_runs_and_learns():
    code = next(block for block in _blocks("python") if "data.arrays" in block)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    losses = names["metrics"]["loss"]
    assert losses.shape == (50,) and losses[-5:].mean() < losses[:5].mean()
    assert names["x_adv"].shape == (100, 20)


def test_any_function_can_be_attacked_in_three_lines():
    code = next(block for block in _blocks("python") if "cascade.evaluate" in block)
    x = np.random.default_rng(0).uniform(size=(3, 5)).astype(np.float32)
    weights = jnp.asarray([[1.0, -1], [2, 0], [0, 1], [-1, 1], [0, 0]])
    margins = np.asarray(x @ (weights[:, 0] - weights[:, 1]))
    names = {"net": lambda z: z @ weights, "x": x, "y": (margins < 0).astype(np.int32)}
    exec(compile(code, "README.md", "exec"), names)
    reach = 8 / 255 * np.abs(weights[:, 0] - weights[:, 1]).sum()  # where no pixel is clipped
    np.testing.assert_array_equal(names["found"].columns["robust:AutoAttack"], np.abs(margins) > reach)


def test_any_function_can_be_certified_in_five_lines():
    code = next(block for block in _blocks("python") if "certify.alpha_crown" in block)
    x = np.random.default_rng(0).uniform(0.2, 0.8, size=(40, 5)).astype(np.float32)
    weights = jnp.asarray([[1.0, -1], [2, 0], [0, 1], [-1, 1], [0, 0]])
    margins = np.asarray(x @ (weights[:, 0] - weights[:, 1]))
    names = {"net": lambda z: jax.nn.relu(z) @ weights, "x": x, "y": (margins < 0).astype(np.int32), "jax": jax}
    exec(compile(code, "README.md", "exec"), names)
    reach = 0.01 * np.abs(weights[:, 0] - weights[:, 1]).sum()
    np.testing.assert_array_equal(names["found"].status == 1, np.abs(margins) > reach)
    np.testing.assert_allclose(names["found"].margin_lower, np.abs(margins) - reach, atol=1e-5)


def test_commands_name_what_exists():
    commands = [line for block in _blocks("bash") for line in block.splitlines()]
    for path in re.findall(r"(?:experiments|configs)/\w+\.py", "\n".join(commands)):
        assert (ROOT / path).is_file(), path
    assert any(line.startswith("python3 -m venv") and line.endswith("-m pytest") for line in commands)
