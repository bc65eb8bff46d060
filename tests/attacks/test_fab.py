"""FAB against closed forms on linear models, and step by step against its formula in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen.attacks import norms
from robustgen.attacks.fab import fab, fab_t
from robustgen.attacks.objectives import margin
from robustgen.attacks.search import Item, as_attack, targets
from robustgen.spread import example_keys

DRAW = np.random.default_rng(0)
X = jnp.asarray(DRAW.uniform(0.3, 0.7, (6, 5)), jnp.float32)
W, V = (jnp.asarray(DRAW.standard_normal(shape), jnp.float32) for shape in ((5, 3), (3, 3)))
Y = jnp.argmax(X @ W, -1).astype(jnp.int32)
NORMS = (norms.linf, norms.l2, norms.l1)
KNOBS = {"num_steps": 25, "num_restarts": 1, "alpha_max": 0.1, "eta": 1.05, "beta": 0.9}
by_norm = pytest.mark.parametrize("norm", NORMS, ids=lambda norm: norm.name)


def linear(x):
    return x @ W


def curved(x):
    return jnp.tanh(2 * x @ W) @ V


def item(x=X, y=Y, target=None, restart=0):
    keys = example_keys(jax.random.key(0), len(x))
    return Item(x, y, y if target is None else target, jnp.full(len(x), restart, jnp.int32), keys)


def nearest(search, logits_fn, work):
    """Distance [B] of the nearest misclassified point that was tried, float64."""

    @jax.jit
    def run():
        begin = search.begin(work)
        t = jnp.arange(search.num_steps)[:, None].repeat(len(work.x), 1)
        return jax.lax.scan(lambda memory, t: search.step(logits_fn, work, t, memory), begin, t)[1]

    tried = run()
    shift = np.asarray(tried.x, np.float64) - np.asarray(work.x, np.float64)
    order = {"Linf": np.inf, "L2": 2, "L1": 1}[search.settings["norm"]]
    broken = np.asarray(jax.vmap(margin, (0, None))(tried.logits, work.y)) > 0
    return np.min(np.where(broken, np.linalg.norm(shift, order, axis=-1), np.inf), 0)


def closed_form(dual, classes):
    """|lead| / dual norm of its gradient, for each of the classes [n, B], without a box."""
    logits, weights, row = *(np.asarray(a, np.float64) for a in (X @ W, W)), np.arange(len(X))
    leads = [logits[row, k] - logits[row, Y] for k in classes]
    sizes = [np.linalg.norm(weights[:, k] - weights[:, Y], dual, axis=0) for k in classes]
    return np.abs(leads) / sizes


DUAL = {"Linf": 1, "L2": 2, "L1": np.inf}


@by_norm
def test_reaches_the_closed_form_distance_of_a_linear_model(norm):
    """From above: the boundary is overshot by eta, so that a step after which beta is taken ends 0.5 % beyond it."""
    knobs = {**KNOBS, "eps": 9.0, "clip": None}
    classes = np.asarray(targets(linear(X), Y))
    one = closed_form(DUAL[norm.name], [classes[:, 2]])[0]
    found = nearest(fab_t(norm, num_targets=2, **knobs), linear, item(target=classes[:, 2]))
    any_class = closed_form(DUAL[norm.name], classes.T[1:]).min(0)
    assert np.all(found >= any_class * (1 - 1e-5)) and np.all(found <= one * 1.006)
    found = nearest(fab(norm, **knobs), linear, item())
    assert np.all(found >= any_class * (1 - 1e-5)) and np.all(found <= any_class * 1.006)


def test_two_classes_one_example_and_a_box():
    """With two classes the one other is the target, for both forms; a box can only lengthen the way."""
    norm = norms.l2
    two, y = lambda x: x @ W[:, :2], jnp.argmax(X @ W[:, :2], -1)[:1].astype(jnp.int32)
    work = item(X[:1], y, 1 - y)
    gap = np.abs(np.diff(np.asarray(two(X[:1]), np.float64)))[0]
    free = gap / np.linalg.norm(np.asarray(W[:, 0] - W[:, 1], np.float64), DUAL[norm.name])
    forms = (functools.partial(fab_t, num_targets=9), fab)
    distances = [nearest(form(norm, eps=9.0, clip=None, **KNOBS), two, work) for form in forms]
    np.testing.assert_allclose(distances[0], distances[1], rtol=1e-5)
    assert free * (1 - 1e-5) <= distances[0] <= free * 1.006
    boxed = nearest(fab_t(norm, num_targets=9, eps=9.0, clip=(0.25, 0.75), **KNOBS), two, work)
    assert boxed >= free * (1 - 1e-5)


def shift_linf(z, w, lead):
    """min(t, room) where w decides, by bisection on t."""
    down = (w > 0) == (lead >= 0)
    room, low, high = np.where(down, z, 1 - z), 0.0, 1.0
    for _ in range(80):
        t = (low + high) / 2
        low, high = (t, high) if np.abs(w) @ np.minimum(t, room) < abs(lead) else (low, t)
    return np.where(down, -1, 1) * np.minimum(high, room)


def test_steps_follow_the_formula():
    """Three steps on a curved model, Linf, each row in float64; steps with and without a broken example among them."""
    search = fab_t(norms.linf, num_targets=2, eps=1.0, clip=(0.0, 1.0), **KNOBS)
    y = jnp.argmax(curved(X), -1).astype(jnp.int32)
    target = targets(curved(X), y)[:, 1]
    work = item(X, y, target)
    lead = jax.jit(jax.value_and_grad(lambda z, y, t: curved(z[None])[0, t] - curved(z[None])[0, y]))
    step, memory, broke = jax.jit(functools.partial(search.step, curved)), search.begin(work), []
    for t in range(3):
        before = np.asarray(memory, np.float64)
        memory, tried = step(work, jnp.full(len(X), t), memory)
        broke += [np.asarray(margin(tried.logits, y)) > 0]
        for i, (z, x) in enumerate(zip(before, np.asarray(X, np.float64), strict=True)):
            value, w = (np.asarray(a, np.float64) for a in lead(jnp.asarray(z, jnp.float32), y[i], target[i]))
            d1, d2 = shift_linf(z, w, value), shift_linf(x, w, value + w @ (x - z))
            a1, a2 = (max(np.abs(d).max(), 1e-8) for d in (d1, d2))
            alpha = min(a1 / (a1 + a2), 0.1)
            moved = np.clip((z + 1.05 * d1) * (1 - alpha) + (x + 1.05 * d2) * alpha, 0, 1)
            np.testing.assert_allclose(tried.x[i], moved, atol=2e-5)
            np.testing.assert_allclose(memory[i], x + 0.9 * (moved - x) if broke[t][i] else moved, atol=2e-5)
    assert np.any(broke) and not np.all(broke)


@pytest.mark.parametrize(
    ("norm", "order", "eps"),
    [(norms.linf, np.inf, 0.1), (norms.l2, 2, 0.2), (norms.l1, 1, 0.3)],
    ids=["Linf", "L2", "L1"],
)
def test_what_it_returns_is_a_member_in_float64(norm, order, eps, key):
    """Also where all examples are misclassified at the start, and where the net gives NaN for one of them."""
    x = jnp.asarray(np.random.default_rng(1).integers(0, 256, (8, 5)) / np.float32(255), jnp.float32)
    attack = as_attack(fab_t(norm, num_targets=2, eps=eps, clip=(0.0, 1.0), **{**KNOBS, "num_restarts": 2}))
    run = jax.jit(lambda y, spoilt: attack(lambda z: curved(z) + spoilt[:, None], x, y, key))
    right = jnp.argmax(curved(x), -1).astype(jnp.int32)
    broken = {}
    for name, y, spoilt in (("right", right, 0.0), ("wrong", (right + 1) % 3, 0.0), ("nan", right, np.nan)):
        x_adv = run(y, jnp.where(jnp.arange(8) == 2, spoilt, 0.0))
        shift = np.asarray(x_adv, np.float64) - np.asarray(x, np.float64)
        assert np.all(np.linalg.norm(shift, order, axis=1) <= eps) and jnp.all((x_adv >= 0) & (x_adv <= 1))
        broken[name] = np.asarray(margin(curved(x_adv), y)) > 0
    assert np.all(broken["wrong"]) and np.any(broken["right"]) and not np.all(broken["right"])
    np.testing.assert_array_equal(np.delete(broken["nan"], 2), np.delete(broken["right"], 2))


@by_norm
def test_what_rounding_keeps_outside_is_moved_in_and_nothing_else_is(norm):
    eps, x = 0.1, jnp.asarray(np.random.default_rng(2).uniform(0.2, 0.8, (200, 784)), jnp.float32)
    shift = norm.direction(example_keys(jax.random.key(1), len(x)), x)
    outside = jnp.arange(len(x)) % 2 == 0
    asked = x + shift * jnp.where(outside, eps * 1.001, eps)[:, None]
    z, inside = jax.jit(norm.member, static_argnums=(2, 3))(x, asked, eps, (0.0, 1.0))
    order = {"Linf": np.inf, "L2": 2, "L1": 1}[norm.name]
    sizes = np.linalg.norm(np.asarray(z, np.float64) - np.asarray(x, np.float64), order, axis=1)
    np.testing.assert_array_equal(z[outside], asked[outside])
    assert not np.any(inside[outside]) and np.all(sizes[np.asarray(inside)] <= eps)
    assert np.mean(inside[~outside]) > 0.5 and np.all(sizes[~outside] > eps * (1 - 1e-3))


@by_norm
def test_the_first_run_starts_at_x_and_others_half_a_radius_away(norm):
    search = fab(norm, eps=0.1, clip=(0.0, 1.0), **KNOBS)
    np.testing.assert_array_equal(search.begin(item()), X)
    start = search.begin(item(restart=1))
    np.testing.assert_allclose(norm.size(start - X), 0.05, rtol=1e-4)
    np.testing.assert_array_equal(search.begin(jax.tree.map(lambda a: a[2:3], item(restart=1)))[0], start[2])
