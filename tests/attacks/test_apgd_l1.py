"""APGD in the L1 ball, against a float64 NumPy account of the official one."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen.attacks import cross_entropy
from robustgen.attacks.apgd_l1 import ONE, SHRINKING, apgd_l1, apgd_l1_targeted
from robustgen.attacks.search import Item
from robustgen.spread import example_keys

EPS, D, B, HIDDEN = 1.5, 24, 4, 16
PHASES = {"one": (ONE, 60), "shrinking": (SHRINKING, 61)}


def weights(classes, seed=0):
    draw = np.random.default_rng(seed).standard_normal
    return draw((D, HIDDEN)) / 2, draw((HIDDEN, classes)) / 2


def mlp(u, v):
    return lambda x: jnp.tanh(x.reshape(len(x), -1) @ jnp.asarray(u, x.dtype)) @ jnp.asarray(v, x.dtype)


def items(classes, dtype, seed=1):
    x = np.random.default_rng(seed).uniform(-0.3, 1.3, (B, 4, 3, 2)).clip(0, 1).astype(dtype)
    y = jnp.arange(B, dtype=jnp.int32) % classes
    return Item(jnp.asarray(x), y, (y + 1) % classes, jnp.zeros_like(y), example_keys(jax.random.key(0), B))


def make(kind, phases, num_steps, eps=EPS):
    shared = {"eps": eps, "clip": (0.0, 1.0), "num_steps": num_steps, "num_restarts": 1, "phases": phases}
    if kind == "targeted":
        return apgd_l1_targeted(name="apgd-t", num_targets=2, **shared)
    return apgd_l1(name="apgd-ce", objective=cross_entropy, **shared)


@functools.cache
def walk(kind, phases, classes, double):
    """Item, points evaluated [T, B, ...] and whether they count, memories after each step."""
    with jax.enable_x64(double):
        item = items(classes, np.float64 if double else np.float32)
        phases, num_steps = PHASES[phases]
        search, net = make(kind, phases, num_steps), mlp(*weights(classes))

        def step(memory, t):
            memory, tried = search.step(net, item, jnp.full((B,), t, jnp.int32), memory)
            return memory, (tried, memory)

        scan = jax.jit(lambda item: jax.lax.scan(step, search.begin(item), jnp.arange(search.num_steps))[1])
        tried, memory = jax.tree.map(np.asarray, scan(item))
        return item._replace(x=np.asarray(item.x), y=np.asarray(item.y), target=np.asarray(item.target)), tried, memory


def goal(kind, u, v, item, row):
    """x [D] -> (loss, gradient), in float64, derivatives by hand."""
    y, target = item.y[row], item.target[row]

    def value(x):
        h = np.tanh(x @ u)
        z = h @ v
        if kind == "untargeted":
            p = np.exp(z - z.max())
            slope = p / p.sum()
            loss = math.log(p.sum()) + z.max() - z[y]
            slope[y] -= 1
        else:
            order = np.argsort(-z)
            loss, slope = z[target] - z[y], np.zeros_like(z)
            slope[target], slope[y] = 1, -1
            if len(z) > 2:
                rest = order[2:4]
                scale = z[order[0]] - z[rest].mean() + 1e-12
                drop = np.zeros_like(z)
                drop[order[0]] += 1
                drop[rest] -= 1 / len(rest)
                slope = slope / scale - loss / scale**2 * drop
                loss = loss / scale
        return loss, u @ ((v @ slope) * (1 - h**2))

    return value


def project(x, z, eps):
    """Onto the ball and [0, 1]: the level of the dual by bisection, 200 times."""
    wanted = z - x
    room = np.where(wanted > 0, 1 - x, x)
    kept = lambda level: np.clip(np.abs(wanted) - level, 0, room)  # noqa: E731
    low, high = 0.0, np.abs(wanted).max()
    if kept(0.0).sum() > eps:
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if kept(middle).sum() > eps else (low, middle)
        return x + np.sign(wanted) * kept(high)
    return x + np.sign(wanted) * kept(0.0)


def changed(x, z):
    return int(np.sum(np.abs(x - z) > 1e-13))


def run_phase(value, x, z, eps, num_steps, share):
    """The official `attack_single_run` for L1, one example: points evaluated, and the best of them."""
    n, points = len(x), [z]
    loss, gradient = value(z)
    best, best_gradient, best_loss = z, gradient, loss
    topk, before = (share, n) if share else (changed(x, z) / n / 1.5, changed(x, z))
    step, window = eps, max(int(0.04 * num_steps), 1)
    for i in range(num_steps):
        size = np.sort(np.abs(gradient))
        floor = size[int(np.clip((1 - topk) * n + 1e-9, 0, n - 1))]
        sign = np.sign(gradient) * (np.abs(gradient) >= floor)
        z = project(x, z + step * sign / (np.abs(sign).sum() + 1e-10), eps)
        points.append(z)
        loss, gradient = value(z)
        if loss > best_loss:
            best, best_gradient, best_loss = z, gradient, loss
        if (i + 1) % window == 0:
            now = changed(x, best)
            topk = now / n / 1.5
            if now / before < 0.95:
                step, z, gradient = eps, best, best_gradient
            else:
                step = max(step / 1.5, eps / 10)
            before = now
    return points, best


def oracle(kind, phases, classes, item, start):
    """Points evaluated by every row, [T, B, D], from where it started."""
    phases, num_steps = PHASES[phases]
    lengths, rows = [num_steps], []
    if len(phases.radii) == 3:
        first = math.ceil(0.3 * num_steps)
        lengths = [first, first, num_steps - 2 * first]
    for row in range(B):
        x, z, trail = item.x[row].ravel(), start[row].ravel(), []
        for factor, length in zip(phases.radii, lengths, strict=True):
            points, z = run_phase(
                goal(kind, *weights(classes), item, row), x, project(x, z, factor * EPS), factor * EPS, length,
                phases.first_share,
            )  # fmt: skip
            trail += points
        rows.append(trail)
    return np.swapaxes(np.array(rows), 0, 1)


CASES = [
    ("untargeted", "one", 3), ("untargeted", "shrinking", 3), ("targeted", "shrinking", 5), ("targeted", "one", 2)
]  # fmt: skip


@pytest.mark.parametrize(("kind", "phases", "classes"), CASES)
def test_apgd_goes_the_way_of_the_official_one(kind, phases, classes):
    item, tried, memory = walk(kind, phases, classes, double=True)
    expected = oracle(kind, phases, classes, item, tried.x[0])
    found = tried.x.reshape(expected.shape)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    steps = memory.step_size
    assert np.any(np.diff(steps, axis=0) < 0) and len(np.unique(memory.moved)) > 2


@pytest.mark.parametrize("phases", PHASES)
def test_points_that_count_are_inside(phases):
    item, tried, _ = walk("untargeted", phases, 3, double=False)
    change = (tried.x.astype(np.float64) - item.x).reshape(len(tried.x), B, -1)
    size, (radii, *_), steps = np.abs(change).sum(-1), PHASES[phases][0], PHASES[phases][1]
    assert tried.x.dtype == np.float32 and tried.x.min() >= 0 and tried.x.max() <= 1
    assert np.all(size[tried.inside] <= EPS)
    if phases == "one":
        assert tried.inside.all() and len(size) == steps + 1
    else:
        ends = np.cumsum([0, *(np.array([19, 19, 23]) + 1)])
        assert len(size) == ends[-1] and np.all(tried.inside == (np.arange(len(size)) >= ends[2])[:, None])
        for radius, begin, end in zip(radii, ends[:-1], ends[1:], strict=True):
            assert np.all(size[begin:end] <= radius * EPS) and size[begin:end].max() > 0.99 * radius * EPS


def test_a_phase_starts_at_the_best_point_of_the_last():
    item, tried, memory = walk("untargeted", "shrinking", 3, double=True)
    net = mlp(*weights(3))
    with jax.enable_x64(True):
        loss = np.stack([np.asarray(cross_entropy(net(jnp.asarray(x)), jnp.asarray(item.y))) for x in tried.x])
    for radius, begin, end in ((2, 0, 20), (1, 20, 40)):
        for row in range(B):
            best = tried.x[begin + loss[begin:end, row].argmax(), row].ravel()
            np.testing.assert_allclose(
                tried.x[end, row].ravel(), project(item.x[row].ravel(), best, radius * EPS), atol=1e-7
            )


def test_lengths_are_those_of_the_official_schedule():
    assert SHRINKING.lengths(100).tolist() == [30, 30, 40] and ONE.lengths(7).tolist() == [7]
    assert SHRINKING.lengths(7).tolist() == [3, 3, 1] and SHRINKING.lengths(1).tolist() == [1, 0, 0]
