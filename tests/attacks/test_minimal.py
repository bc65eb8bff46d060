"""Minimal-norm attacks step by step: every iterate against NumPy in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen.attacks import minimal
from robustgen.attacks.minimal import norms
from robustgen.knobs import KnobError

DRAW = np.random.default_rng(0)
W3, _ = DRAW.standard_normal((2, 6, 3)), DRAW.standard_normal((20, 2))  # the second of each: test_minimal_linear.py
X3, _ = DRAW.uniform(0.1, 0.9, (8, 6)), DRAW.uniform(-0.5, 0.5, (8, 20))
FMN = {"step_size": 1.0, "final_step_size": 0.01, "gamma": 0.05, "final_gamma": 0.001, "overshoot": 0.05}
DDN = {"step_size": 1.0, "final_step_size": 0.01, "init_eps": 1.0, "gamma": 0.05}
SIGMA = {"step_size": 1.0, "final_step_size": 0.1, "sigma": 1e-3, "threshold": 0.3, "threshold_step": 0.01}
CW = {"confidence": 0.0, "learning_rate": 0.01, "num_searches": 9, "num_checks": 10, "init_c": 1e-3}


def three_classes(x):
    """tanh of a linear map: gradients that change with x."""
    return jnp.tanh(x @ jnp.asarray(W3[0], x.dtype)) + x @ jnp.asarray(W3[1], x.dtype)


def logits(x):
    return np.tanh(x @ W3[0]) + x @ W3[1]


Y3 = logits(X3).argmax(1)


def pull(x, direction):
    """Gradient with respect to x [6] of <direction, logits(x)>."""
    return W3[0] @ (direction * (1 - np.tanh(x @ W3[0]) ** 2)) + W3[1] @ direction


def margin(x, y):
    """Of x [6], as attacks have it (positive where misclassified), with its gradient."""
    z, one = logits(x), np.eye(3)[y]
    other = np.argmax(np.where(one > 0, -np.inf, z))
    return z[other] - z[y], pull(x, np.eye(3)[other] - one)


def cosine(first, last, i, num_steps):
    return last + (first - last) * (1 + np.cos(np.pi * i / num_steps)) / 2


def run(attack, f, x, y, dtype=np.float32):
    return np.asarray(jax.jit(attack, static_argnums=0)(f, jnp.asarray(x, dtype), jnp.asarray(y), jax.random.key(0)))


@pytest.mark.parametrize(("num_steps", "levels"), [(2, 8), (30, None), (30, 8)])
def test_ddn_step_by_step(num_steps, levels, x64):
    expected = np.array([ddn_oracle(x, y, num_steps, levels) for x, y in zip(X3, Y3, strict=True)])
    attack = minimal.ddn(num_steps=num_steps, **DDN, levels=levels)
    np.testing.assert_allclose(run(attack, three_classes, X3, Y3, np.float64), expected, atol=1e-9)
    assert num_steps < 30 or np.all(np.any(expected != X3, 1))


def ddn_oracle(x, y, num_steps, levels):
    """Rony et al. 2019, algorithm 1, one example."""
    delta, eps, best, best_size = np.zeros(6), 1.0, x, np.inf
    furthest = np.linalg.norm(np.maximum(x, 1 - x))
    for i in range(num_steps):
        z = logits(x + delta)
        broken, size = z.argmax() != y, np.linalg.norm(delta)
        if broken and size < best_size:
            best, best_size = x + delta, size
        p = np.exp(z - z.max())
        g = pull(x + delta, p / p.sum() - np.eye(3)[y])
        delta = delta + cosine(1.0, 0.01, i, num_steps) * g / np.linalg.norm(g)
        eps = min(eps * (0.95 if broken else 1.05), furthest)
        point = np.clip(x + delta * eps / np.linalg.norm(delta), 0, 1)
        delta = (point if levels is None else np.round(point * (levels - 1)) / (levels - 1)) - x
    return best


@pytest.mark.parametrize("name", ["L2", "LINF", "L0"])
def test_fmn_step_by_step(name, x64):
    expected = np.array([fmn_oracle(name, x, y, 40) for x, y in zip(X3, Y3, strict=True)])
    norm = getattr(norms, name)
    found = run(minimal.fmn(norm, num_steps=40, **FMN), three_classes, X3, Y3, np.float64)
    np.testing.assert_allclose(norm.size(found - X3), norm.size(expected - X3), atol=1e-12)
    same = np.all(np.abs(found - expected) < 1e-12, 1)  # of two points on the sphere of the best, rounding chooses
    assert np.mean(same) >= 0.5 and np.all(np.abs(found - expected) < 1e-3)
    assert np.all(np.any(expected != X3, 1))


def fmn_oracle(name, x, y, num_steps):
    """Pintor et al. 2021, algorithm 1, one example."""
    order, dual = {"L2": (2, 2), "LINF": (np.inf, 1), "L0": (0, None)}[name]
    delta, eps, best, nearest = np.zeros(6), 1.0 if name == "L0" else np.inf, x, np.inf
    for i in range(num_steps):
        rate, gamma = cosine(1.0, 0.01, i, num_steps), cosine(0.05, 0.001, i, num_steps)
        gap, g = margin(x + delta, y)
        size = np.linalg.norm(delta, order)
        if gap > 0 and size < nearest:
            best, nearest = x + delta, size
        if gap > 0:
            eps = min(max(min(eps - 1, eps * (1 - gamma) // 1), 0) if name == "L0" else eps * (1 - gamma), nearest)
        elif name == "L0":
            eps = max(eps + 1, eps * (1 + gamma) // 1)
        elif np.isfinite(nearest):
            eps = eps * (1 + gamma)
        else:
            eps = (size - gap / np.linalg.norm(g, dual)) * 1.05
        eps = min(eps, np.linalg.norm(np.maximum(x, 1 - x), order))
        delta = delta + rate * g / np.linalg.norm(g)
        if name == "L2":
            delta = delta * min(1, eps / np.linalg.norm(delta))
        elif name == "LINF":
            delta = np.clip(delta, -eps, eps)
        else:
            delta = np.where(np.argsort(np.argsort(-np.abs(delta))) < eps, delta, 0)
        delta = np.clip(x + delta, 0, 1) - x
    return best


def test_sigma_zero_step_by_step(x64):
    """Forty examples: where features meet the box, a gradient that is cut there misleads a few of them. Twice as wide a
    box with everything in it twice as large changes nothing: L0 has no scale."""
    x = np.random.default_rng(32).uniform(0.1, 0.9, (40, 6))
    y = logits(x).argmax(1)
    expected = np.array([sigma_zero_oracle(*example, 60) for example in zip(x, y, strict=True)])
    found = run(minimal.sigma_zero(num_steps=60, **SIGMA), three_classes, x, y, np.float64)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert np.all(np.any(expected != x, 1)) and np.any(np.sum(expected != x, 1) == 1)
    assert np.sum(np.any((expected <= 0) | (expected >= 1), 1)) >= 10
    attack = minimal.sigma_zero(num_steps=60, **SIGMA, clip=(-1.0, 1.0))
    wide = run(attack, lambda x: three_classes((x + 1) / 2), 2 * x - 1, y, np.float64)
    np.testing.assert_allclose((wide + 1) / 2, expected, atol=1e-9)


def sigma_zero_oracle(x, y, num_steps):
    """Cina et al. 2024, algorithm 1, one example, with Adam as Kingma and Ba 2015 have it."""
    delta, m, v, tau, best, fewest = np.zeros(6), np.zeros(6), np.zeros(6), 0.3, x, np.inf
    for i in range(num_steps):
        gap, g = margin(x + delta, y)
        if gap > 0 and np.sum(delta != 0) < fewest:
            best, fewest = x + delta, np.sum(delta != 0)
        gradient = (gap <= 0) * -g + 2 * delta * 1e-3 / (delta**2 + 1e-3) ** 2 / 6
        gradient = gradient / max(np.abs(gradient).max(), 1e-12)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        direction = m / (1 - 0.9 ** (i + 1)) / (np.sqrt(v / (1 - 0.999 ** (i + 1))) + 1e-8)
        delta = np.clip(x + delta - cosine(1.0, 0.1, i, num_steps) * direction, 0, 1) - x
        tau = np.clip(tau + 0.01 * cosine(1.0, 0.1, i + 1, num_steps) * (1 if gap > 0 else -1), 0, 1)
        delta = np.where(np.abs(delta) < tau, 0, delta)
    return best


@pytest.mark.parametrize(("confidence", "num_searches", "num_steps"), [(0.0, 4, 60), (0.2, 10, 25), (0.0, 1, 8)])
def test_cw_step_by_step(confidence, num_searches, num_steps, x64):
    knobs = CW | {"confidence": confidence, "num_searches": num_searches, "init_c": 0.05, "learning_rate": 0.1}
    found = run(minimal.cw_l2(**knobs, num_steps=num_steps), three_classes, X3, Y3, np.float64)
    shape = confidence, num_searches, num_steps
    expected = np.array([cw_oracle(x, y, *shape) for x, y in zip(X3, Y3, strict=True)])
    np.testing.assert_allclose(found, expected, atol=1e-8)
    assert num_searches == 1 or np.all(np.any(expected != X3, 1))


def cw_oracle(x, y, confidence, num_searches, num_steps):
    """Carlini & Wagner 2017 as their code runs it, one example, in [0, 1] instead of [-0.5, 0.5]."""
    w = np.arctanh((2 * x - 1) * 0.9999995)
    near_x, best, best_squared = (1 + np.tanh(w)) / 2, x, np.inf
    c, lower, upper = 0.05, 0.0, 1e10
    for search in range(num_searches):
        c = upper if num_searches >= 10 and search == num_searches - 1 else c
        shift, m, v, before, found = np.zeros(6), np.zeros(6), np.zeros(6), np.inf, False
        for i in range(num_steps):
            z = (1 + np.tanh(w + shift)) / 2
            gap, g = margin(z, y)
            squared = np.sum((z - near_x) ** 2)
            loss = squared + c * max(confidence - gap, 0)
            if i % max(num_steps // 10, 1) == 0:
                if loss > 0.9999 * before:
                    break
                before = loss
            found = found or gap > confidence
            if gap > confidence and squared < best_squared:
                best, best_squared = z, squared
            gradient = (2 * (z - near_x) - c * (gap < confidence) * g) * (1 - np.tanh(w + shift) ** 2) / 2
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            shift = shift - 0.1 * np.sqrt(1 - 0.999 ** (i + 1)) / (1 - 0.9 ** (i + 1)) * m / (np.sqrt(v) + 1e-8)
        lower, upper = (lower, min(upper, c)) if found else (max(lower, c), upper)
        c = (lower + upper) / 2 if upper < 1e9 else 10 * c
    return best


def test_confidence_is_a_margin():
    x_adv = run(minimal.cw_l2(**CW | {"confidence": 0.5}, num_steps=300), three_classes, X3, Y3)
    gaps = np.array([margin(x, y)[0] for x, y in zip(x_adv.astype(np.float64), Y3, strict=True)])
    assert np.all(gaps > 0.5 - 1e-5) and np.all(gaps < 0.6)


@pytest.mark.parametrize("name", ["L0", "L1", "L2", "LINF"])
def test_projections_are_the_nearest_members(name):
    """Against two hundred members each; and the paths from 0 to a point grow."""
    norm, delta = getattr(norms, name), DRAW.standard_normal((4, 3, 2))

    def size(d):
        return np.asarray(norm.size(np.float32(d)))

    eps = np.array([2, 1, 4, 0]) if name == "L0" else np.array([0.5, 0.1, 100, 0.0]) * size(delta) / 2
    project = jax.jit(norm.project)
    nearest = np.asarray(project(jnp.float32(delta), jnp.float32(eps)))
    assert np.all(size(nearest) <= eps * (1 + 1e-5))
    np.testing.assert_array_equal(project(jnp.float32(delta), jnp.full(4, jnp.inf)), np.float32(delta))
    for _ in range(200):
        other = DRAW.standard_normal(delta.shape)
        if name == "L0":
            other = np.where(DRAW.random(delta.shape) < 0.5, delta, 0)
        member = other * np.minimum(1, eps / np.maximum(size(other), 1e-9))[:, None, None]
        member = np.where((size(other) <= eps)[:, None, None], other, 0) if name == "L0" else member
        assert np.all(np.sum((nearest - delta) ** 2, (1, 2)) <= np.sum((member - delta) ** 2, (1, 2)) + 1e-5)
    between = jax.jit(norm.between)
    path = [between(jnp.float32(delta), jnp.full(4, t)) for t in (0.0, 0.3, 0.7, 1.0)]
    np.testing.assert_array_equal(path[0], np.zeros_like(delta))
    np.testing.assert_allclose(path[3], delta, rtol=1e-6)
    assert np.all(np.diff([size(d) for d in path], axis=0) >= 0)


def test_levels_need_a_box():
    with pytest.raises(KnobError, match="levels"):
        minimal.ddn(num_steps=2, **DDN, levels=256, clip=None)
