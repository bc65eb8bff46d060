"""AutoAttack in the L1 ball: APGD against a float64 NumPy account of the official one, Square's moves, the cascade."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen.attacks import autoattack, cross_entropy
from robustgen.attacks.apgd_l1 import ONE, SHRINKING, apgd_l1, apgd_l1_targeted
from robustgen.attacks.search import Item
from robustgen.attacks.square import window
from robustgen.attacks.square_l1 import _moved, bumps, square_l1
from robustgen.cascade.whole import STANDING, evaluate
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
        for radius, begin, end in zip(radii, ends, ends[1:]):
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
    standard, plus, rand = (v(autoattack.L1, eps=EPS) for v in (autoattack.standard, autoattack.plus, autoattack.rand))
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
    """A linear net of two classes: an example falls exactly if the steepest features, moved as far as the box lets, reach
    the boundary within eps."""
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
