"""Square attacks: schedule, moves against NumPy, membership in float64, and linear nets with a known optimum."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen.attacks import square
from robustgen.attacks.search import Item, as_attack
from robustgen.attacks.square_l2 import _moved, bumps, square_l2
from robustgen.knobs import KnobError
from robustgen.spread import example_keys

EPS, STEPS = 0.25, 260
FACTORIES = {"linf": square.square_linf, "l2": square_l2}
CASES = {  # shape of one input, classes, clip, batch
    "square image": ((8, 8, 1), 3, (0.0, 1.0), 4),
    "tall image of channels, two classes": ((9, 6, 3), 2, (-1.0, 1.0), 3),
    "wide image without channels": ((5, 11), 3, (0.0, 1.0), 1),
    "features": ((12,), 3, (0.0, 1.0), 2),
}


def make(norm, clip=(0.0, 1.0), num_queries=STEPS):
    return FACTORIES[norm](eps=EPS, clip=clip, p_init=0.8, num_queries=num_queries, num_restarts=1)


def items(shape, classes, clip, batch, seed=0):
    """Pixels at both ends of the box among them; every other label is wrong from the start."""
    draw = np.random.default_rng(seed)
    x = draw.uniform(clip[0] - 0.2, clip[1] + 0.2, (batch, *shape)).clip(*clip).astype(np.float32)
    weights = draw.standard_normal((int(np.prod(shape)), classes)).astype(np.float32)
    y = np.asarray(jnp.argmax(x.reshape(batch, -1) @ weights, -1)) + np.arange(batch) % 2
    y = jnp.asarray(y % classes, jnp.int32)
    return Item(jnp.asarray(x), y, y, jnp.zeros_like(y), example_keys(jax.random.key(seed), batch)), weights


def linear(weights):
    """Row by row the same numbers, whatever the batch."""
    return lambda x: jnp.sum(x.reshape(len(x), -1)[:, :, None] * weights, 1)


@functools.cache
def walk(norm, case):
    """item, weights, points tried [T, B, ...], memories after each step: one compiled run for several tests."""
    shape, classes, clip, batch = CASES[case]
    item, weights = items(shape, classes, clip, batch)
    return item, weights, *trajectory(make(norm, clip), linear(weights), item, STEPS + 1)


def trajectory(search, net, item, steps):
    def step(memory, t):
        memory, tried = search.step(net, item, jnp.full(item.y.shape, t), memory)
        return memory, (tried.x, memory._replace(fixed=()))

    scan = jax.jit(lambda item: jax.lax.scan(step, search.begin(item), jnp.arange(steps))[1])
    return jax.tree.map(np.asarray, scan(item))


def sureness(x, weights, y):
    """logit_y - max other at x [T, B, ...], in float64."""
    z = np.asarray(x, np.float64).reshape(*x.shape[:2], -1) @ np.asarray(weights, np.float64)
    own = np.eye(z.shape[-1])[np.asarray(y)] > 0
    return np.sum(z * own, -1) - np.max(np.where(own, -np.inf, z), -1)


def published_share(iteration):
    """AutoAttack's `p_selection` without rescaling, for p_init = 0.8."""
    return 0.8 / 2 ** sum(iteration > after for after in (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000))


@pytest.mark.parametrize(
    ("side", "published"), [(28, [25, 18, 13, 9, 6, 4, 3, 2]), (32, [29, 20, 14, 10, 7, 5, 4, 3])]
)
def test_sides_are_the_published_ones(side, published):
    assert square.sizes(0.8, side, side)[:8].tolist() == [[s, s] for s in published]


def test_sizes_change_when_they_should():
    t = np.arange(1, 9003)
    sides = square.sizes(0.8, 28, 28)[np.asarray(square.level(jnp.asarray(t))), 0]
    assert sides.tolist() == [max(round(math.sqrt(published_share(i) * 784)), 1) for i in t - 1]


@pytest.mark.parametrize(("height", "width"), [(9, 6), (5, 11), (40, 1), (1, 7)])
def test_windows_fit_and_cover_the_share_of_other_images(height, width):
    table = square.sizes(0.8, height, width)
    assert np.all(table >= 1) and np.all(table <= [height, width])
    wanted = np.maximum([0.8 / 2**k * height * width for k in range(10)], 1)
    assert np.all(np.abs(table.prod(1) - wanted) <= 0.5 + np.sqrt(wanted))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("norm", FACTORIES)
def test_every_point_is_inside_and_the_margin_never_rises(norm, case):
    item, weights, tried, memory = walk(norm, case)
    low, high = CASES[case][2]
    change = (tried.astype(np.float64) - np.asarray(item.x, np.float64)).reshape(*tried.shape[:2], -1)
    size = np.abs(change).max(-1) if norm == "linf" else np.sqrt((change**2).sum(-1))
    assert np.all(size <= EPS) and np.all((tried >= low) & (tried <= high))
    assert np.all(np.diff(memory.loss, axis=0) <= 0) and np.all(memory.loss[-1] < memory.loss[0])
    np.testing.assert_allclose(memory.loss, sureness(memory.x, weights, item.y), atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_linf_paints_one_window_of_each_channel_with_one_bound(case):
    item, _, tried, memory = walk("linf", case)
    low, high = CASES[case][2]
    x, tried = (np.asarray(square.image(z)) for z in (item.x, tried.reshape(-1, *item.x.shape[1:])))
    tried = tried.reshape(STEPS + 1, *x.shape)
    before = memory.x[:-1].reshape(STEPS, *x.shape)
    up, down = (np.abs(tried - np.clip(x + e, low, high)) < 1e-6 for e in (EPS, -EPS))
    assert np.all(up | down)
    stripes = up[0].all(1) | down[0].all(1)
    assert stripes.all()
    table = square.sizes(0.8, *x.shape[1:3])
    for t, row in np.ndindex(STEPS, len(x)):
        at = np.argwhere(tried[t + 1, row] != before[t, row])
        halvings = round(math.log2(0.8 / published_share(t)))
        assert not len(at) or np.all(np.ptp(at, axis=0)[:2] < table[halvings])
        for channel in set(at[:, 2]):
            rows, columns, _ = at[at[:, 2] == channel].T
            assert up[t + 1, row, rows, columns, channel].all() or down[t + 1, row, rows, columns, channel].all()


def test_l2_spends_the_whole_radius():
    item, weights = items((8, 8, 2), 3, (0.0, 1.0), 3)
    tried, _ = trajectory(make("l2", None), linear(weights), item, 100)
    change = (tried.astype(np.float64) - np.asarray(item.x, np.float64)).reshape(100, 3, -1)
    np.testing.assert_allclose(np.sqrt((change**2).sum(-1)), EPS, rtol=3e-5)


def rectangle(height, width):
    """Equation 2 as squares that grow around the centre, laid upon each other."""
    eta = np.zeros((height, width))
    for k in range(max(height, width) // 2 + 1):
        rows, columns = (slice(max(n // 2 - k, 0), n // 2 + k + 1) for n in (height, width))
        eta[rows, columns] += 1 / (k + 1) ** 2
    return eta / max(np.linalg.norm(eta), 1e-30)


def bump(height, width):
    eta = np.concatenate([rectangle(height // 2, width), -rectangle(height - height // 2, width)])
    return eta / np.linalg.norm(eta)


@pytest.mark.parametrize("size", [(3, 3), (9, 9), (4, 7), (1, 5), (6, 1)])
def test_bumps_are_those_of_equation_2(size):
    first, both = jnp.array([[2, 1], [2, 1]]), jnp.array([size, size])
    found = jax.jit(bumps, static_argnums=0)((2, 12, 11, 1), first, both, jnp.array([False, True]))
    expected = np.zeros((2, 12, 11))
    expected[:, 2 : 2 + size[0], 1 : 1 + size[1]] = bump(*size), bump(*size[::-1]).T
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_l2_moves_as_algorithm_3_says():
    draw = np.random.default_rng(3)
    change, sign = draw.standard_normal((2, 9, 9, 2)) * 0.01, draw.choice([-1.0, 1.0], (2, 2))
    first, second = np.array([[1, 2], [4, 0]]), np.array([[3, 3], [0, 6]])
    size = np.full((2, 2), 3)
    draw_bumps = jax.jit(bumps, static_argnums=0)
    eta = draw_bumps((2, 9, 9, 2), jnp.asarray(first), jnp.asarray(size), jnp.array([False, False]))
    masks = [square.window((2, 9, 9, 2), jnp.asarray(at), jnp.asarray(size)) for at in (first, second)]
    found = jax.jit(_moved)(jnp.float32(change), jnp.float32(sign)[:, None, None] * eta[..., None], *masks, EPS)

    expected = change.copy()
    for row, channel in np.ndindex(2, 2):
        (r, c), (r2, c2) = first[row], second[row]
        old, union = change[row, r : r + 3, c : c + 3, channel], np.zeros((9, 9), bool)
        union[r : r + 3, c : c + 3] = union[r2 : r2 + 3, c2 : c2 + 3] = True
        unused = max(EPS**2 - np.sum(change[row] ** 2), 0)
        mixed = sign[row, channel] * bump(3, 3) + old / np.linalg.norm(old)
        available = np.sqrt(np.sum(change[row, ..., channel][union] ** 2) + unused / 2)
        expected[row, r2 : r2 + 3, c2 : c2 + 3, channel] = 0
        expected[row, r : r + 3, c : c + 3, channel] = mixed / np.linalg.norm(mixed) * available
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("norm", FACTORIES)
def test_a_row_depends_on_no_other_row_and_on_no_place(norm):
    case = "square image"
    item, weights, tried, memory = walk(norm, case)
    order = np.array([2, 0])
    x, others = trajectory(make(norm), linear(weights), jax.tree.map(lambda a: a[order], item), 40)
    np.testing.assert_array_equal(x, tried[:40, order])
    np.testing.assert_array_equal(others.loss, memory.loss[:40, order])


@pytest.mark.parametrize("norm", FACTORIES)
def test_rows_may_be_at_different_steps(norm):
    item, weights, tried, memory = walk(norm, "square image")
    search, t = make(norm), np.array([0, 12, 60, 230])
    at = lambda trail: np.stack([trail[max(s - 1, 0), row] for row, s in enumerate(t)])  # noqa: E731
    mixed = jax.jit(search.begin)(item)
    loss = np.where(t > 0, at(memory.loss), np.inf).astype(np.float32)
    x = np.where((t > 0)[:, None, None, None], at(memory.x), mixed.x)
    _, found = jax.jit(lambda m: search.step(linear(weights), item, jnp.asarray(t), m))(mixed._replace(x=x, loss=loss))
    np.testing.assert_allclose(found.x, tried[t, np.arange(4)], atol=1e-6)  # another program, rounded in other places


@pytest.mark.parametrize("shape", [(4, 4, 1), (16,)])
def test_linf_reaches_the_optimum_of_linear_nets(shape):
    """logit_y - logit_other falls by eps * |w_y - w_other|_1 at most; windows of one pixel find it, coordinate-wise."""
    item, weights = items(shape, 2, (0.0, 1.0), 4)
    item = item._replace(x=0.3 + 0.4 * item.x)  # the box cuts nothing off
    _, memory = trajectory(make("linf"), linear(weights), item, 701)
    x, slope = np.asarray(item.x, np.float64).reshape(4, -1), weights[:, 0] - weights[:, 1]
    sign = np.where(np.asarray(item.y) == 0, 1, -1)
    np.testing.assert_allclose(memory.loss[-1], sign * (x @ slope) - EPS * np.abs(slope).sum(), rtol=1e-4, atol=1e-4)


def test_l2_comes_near_the_optimum_of_a_linear_net():
    """The optimum is eps * |w|; a random direction reaches eps * |w| / sqrt(64) in 64 dimensions."""
    item, weights = items((8, 8, 1), 2, (0.0, 1.0), 4)
    _, memory = trajectory(make("l2", None), linear(weights), item, 1001)
    x, slope = np.asarray(item.x, np.float64).reshape(4, -1), weights[:, 0] - weights[:, 1]
    fall = np.where(np.asarray(item.y) == 0, 1, -1) * (x @ slope) - memory.loss[-1]
    share = fall / (EPS * np.linalg.norm(slope))
    assert np.all(share <= 1 + 1e-5) and np.all(share > 0.6), share


def test_corners_are_uniform_and_coins_fair():
    numbers = jax.random.bits(jax.random.key(5), (20000, 2))
    counts = np.bincount(np.asarray(square.corner(numbers[:, 0], jnp.int32(4))), minlength=5)
    assert len(counts) == 5 and np.all(np.abs(counts - 4000) < 5 * np.sqrt(4000))
    flips = np.asarray(square.coins(numbers, 40))[:, 0, 0].mean(0)
    assert len(flips) == 40 and np.all(np.abs(flips - 0.5) < 5 * 0.5 / np.sqrt(20000))


@pytest.mark.parametrize("norm", FACTORIES)
def test_as_an_attack_it_fools_a_linear_net_and_keeps_what_is_fooled(norm):
    item, weights = items((6, 6, 1), 3, (0.0, 1.0), 4)
    adversarial = jax.jit(lambda x, y, key: as_attack(make(norm, num_queries=60))(linear(weights), x, y, key))
    x_adv = adversarial(item.x, item.y, jax.random.key(1))
    before, after = (sureness(z[None], weights, item.y)[0] for z in (item.x, x_adv))
    assert np.all(after < before) and np.all(after[1::2] < 0)


def test_what_is_refused():
    with pytest.raises(KnobError, match="p_init"):
        square.square_linf(eps=0.1, clip=None, p_init=0.0, num_queries=5, num_restarts=1)
    item, _ = items((2, 2, 2, 2), 3, (0.0, 1.0), 1)
    with pytest.raises(ValueError, match="images"):
        make("linf").begin(item)
