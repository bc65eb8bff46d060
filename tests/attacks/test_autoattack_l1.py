"""AutoAttack in the L1 ball: Square's moves in float64 NumPy, the official versions, the cascade on a linear net."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen.attacks import autoattack
from robustgen.attacks.search import Item
from robustgen.attacks.square import window
from robustgen.attacks.square_l1 import _moved, bumps, square_l1
from robustgen.cascade import STANDING, evaluate
from robustgen.spread import example_keys

EPS, D = 1.5, 24


def test_square_moves_as_the_official_one_does():
    draw = np.random.default_rng(3)
    shape, size = (2, 9, 9, 2), jnp.full((2, 2), 5)
    change, sign = draw.standard_normal(shape) * 0.01, draw.choice([-1.0, 1.0], (2, 2))
    first, second = np.array([[1, 2], [4, 0]]), np.array([[3, 3], [0, 4]])
    eta = jax.jit(bumps, static_argnums=0)(shape, jnp.asarray(first), size, jnp.array([False, False]))
    masks = [window(shape, jnp.asarray(at), size) for at in (first, second)]
    found = jax.jit(_moved)(jnp.float32(change), jnp.float32(sign)[:, None, None] * eta[..., None], *masks, EPS)

    expected = change.copy()
    for row, channel in np.ndindex(2, 2):
        (r, c), (r2, c2) = first[row], second[row]
        union = np.zeros((9, 9), bool)
        union[r : r + 5, c : c + 5] = union[r2 : r2 + 5, c2 : c2 + 5] = True
        old = change[row, r : r + 5, c : c + 5, channel]
        unused = max(EPS - np.abs(change[row]).sum(), 0)
        mixed = sign[row, channel] * stacked(5) + old / np.abs(old).sum()
        available = (unused / 2 + np.abs(change[row, ..., channel][union]).sum()) * 2
        expected[row, r2 : r2 + 5, c2 : c2 + 5, channel] = 0
        expected[row, r : r + 5, c : c + 5, channel] = mixed / np.abs(mixed).sum() * available
    np.testing.assert_allclose(found, expected, atol=1e-6)


def stacked(side):
    """Two rectangles of squares that grow around the centre, each of L1 norm 1 / 2."""
    halves = []
    for height in (side // 2, side - side // 2):
        eta = np.zeros((height, side))
        for k in range(max(height, side) // 2 + 1):
            rows, columns = (slice(max(n // 2 - k, 0), n // 2 + k + 1) for n in (height, side))
            eta[rows, columns] += 1 / (k + 1) ** 4
        halves.append(eta / eta.sum() / 2)
    return np.concatenate([halves[0], -halves[1]])


@pytest.mark.parametrize("shape", [(10, 10, 2), (12,)])
def test_square_stays_inside_and_lowers_the_margin(shape):
    draw = np.random.default_rng(2)
    x = jnp.asarray(draw.uniform(-0.2, 1.2, (3, *shape)).clip(0, 1), jnp.float32)
    w = jnp.asarray(draw.standard_normal((math.prod(shape), 3)), jnp.float32)
    y = jnp.argmax(x.reshape(3, -1) @ w, -1).astype(jnp.int32)
    item = Item(x, y, y, jnp.zeros_like(y), example_keys(jax.random.key(0), 3))
    search = square_l1(eps=EPS, clip=(0.0, 1.0), p_init=0.8, num_queries=200, num_restarts=1)

    def step(memory, t):
        memory, tried = search.step(lambda z: z.reshape(3, -1) @ w, item, jnp.full((3,), t), memory)
        return memory, (tried.x, memory.loss)

    tried, loss = jax.jit(lambda: jax.lax.scan(step, search.begin(item), jnp.arange(201))[1])()
    size = np.abs(np.asarray(tried, np.float64) - np.asarray(x, np.float64)).reshape(201, 3, -1).sum(-1)
    assert size.max() <= EPS and np.median(size) > 0.99 * EPS and tried.min() >= 0 and tried.max() <= 1
    assert np.all(np.diff(loss, axis=0) <= 0) and np.all(loss[-1] < loss[0])


def test_versions_are_the_official_ones():
    versions = autoattack.standard, autoattack.plus, autoattack.rand
    standard, plus, rand = (version(autoattack.L1, eps=EPS) for version in versions)
    counts = [(s.name, s.num_targets, s.num_restarts) for s in standard.searches]
    assert counts == [("apgd-ce", 0, 5), ("apgd-t", 5, 1), ("fab-t", 9, 1), ("square", 0, 1)]
    counts = [(s.name, s.num_targets, s.num_restarts) for s in plus.searches]
    assert counts == [
        ("apgd-ce", 0, 5), ("apgd-dlr", 0, 5), ("fab", 0, 5), ("square", 0, 1), ("apgd-t", 9, 1), ("fab-t", 9, 1)
    ]  # fmt: skip
    assert [(s.name, s.num_restarts) for s in rand.searches] == [("apgd-ce", 1), ("apgd-dlr", 1)]
    assert [s.num_steps for s in standard.searches] == [103, 103, 100, 5001]
    assert [s.num_steps for s in (*rand.searches, plus.searches[4])] == [101, 101, 101]


def test_the_cascade_breaks_what_can_be_broken_and_stays_inside():
    """A linear net of two classes: an example falls exactly if the steepest features, moved as far as the box lets,
    reach the boundary within eps."""
    draw = np.random.default_rng(4)
    x, slope = draw.uniform(0, 1, (48, D)).astype(np.float32), draw.standard_normal(D)
    score = x @ slope.astype(np.float32) - np.float32(0.5 * slope.sum())
    net = lambda z: jnp.stack([jnp.zeros(len(z)), (z - 0.5) @ jnp.asarray(slope, jnp.float32)], -1)  # noqa: E731
    y = (score > 0).astype(np.int32)
    cascade = autoattack.standard(autoattack.L1, eps=0.4)
    quick = cascade._replace(searches=cascade.searches[:3])
    found = evaluate(quick, net, x, y, seed=0, width=32, devices=jax.devices()[:1])
    downhill = -np.sign(score)[:, None] * slope
    room = np.where(downhill > 0, 1.0 - x, x)
    fall = np.array([spent(np.abs(slope), r, 0.4) for r in room])
    gap = np.abs(score.astype(np.float64)) - fall
    sure = np.abs(gap) > 1e-3
    np.testing.assert_array_equal((found.columns["broken_by:AutoAttack"] == STANDING)[sure], gap[sure] > 0)
    assert 5 < (gap > 0).sum() < 43
    assert np.all(np.abs(found.x_adv.astype(np.float64) - x).sum(-1) <= 0.4)


def spent(reward, room, left):
    """What the most rewarding features, moved as far as there is room, give."""
    total = 0.0
    for i in np.argsort(-reward):
        total += reward[i] * min(room[i], left)
        left -= min(room[i], left)
    return total
