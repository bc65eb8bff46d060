"""The CROWN-IBP loss against float64 NumPy, with the linear bound written by hand, and its ends."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from robustgen import losses, threats
from robustgen.core import Batch, Net

DRAW = np.random.default_rng(5)
U, W, V = DRAW.standard_normal((5, 7)), DRAW.standard_normal((7, 6)), DRAW.standard_normal((6, 3))
X, Y = DRAW.uniform(0, 1, (6, 5)), np.asarray([0, 1, 2, 0, 1, 2])
EPS = 0.1


def apply_fn(variables, x, train, mutable=(), rngs=None):
    p = variables["params"]
    logits = jax.nn.relu(jax.nn.relu(x @ p["u"]) @ p["w"]) @ p["v"]
    return (logits, {}) if train else logits


def params(dtype=jnp.float64):
    return {"u": jnp.asarray(U, dtype), "w": jnp.asarray(W, dtype), "v": jnp.asarray(V, dtype)}


def batch(dtype=jnp.float64) -> Batch:
    return Batch(jnp.asarray(X, dtype), jnp.asarray(Y, jnp.int32))


def intervals(row, eps):
    """The input's box, and interval bounds of what both relus are given."""
    found = [(np.clip(row - eps, 0, 1), np.clip(row + eps, 0, 1))]
    low, high = found[0]
    for kernel in (U, W):
        centre, radius = (low + high) / 2 @ kernel, (high - low) / 2 @ np.abs(kernel)
        found.append((centre - radius, centre + radius))
        low, high = np.maximum(found[-1][0], 0), np.maximum(found[-1][1], 0)
    return found


def ibp_margin(row, d, eps):
    low, high = (np.maximum(end, 0) for end in intervals(row, eps)[2])
    return (low + high) / 2 @ d - (high - low) / 2 @ np.abs(d)


def crown_margin(row, d, eps):
    """Backward through both relus: chord above, the nearer of 0 and identity below; then the corner of the box."""
    box, *hidden = intervals(row, eps)
    slopes, offset = d, 0.0
    for (low, high), kernel in zip(hidden[::-1], (W, U), strict=True):
        chord = np.where(low >= 0, 1.0, np.where(high <= 0, 0.0, high / np.where(high > low, high - low, 1.0)))
        below = np.where(low >= 0, 1.0, np.where(high <= 0, 0.0, (chord > 0.5).astype(float)))
        unstable = (low < 0) & (high > 0)
        offset += np.sum(np.minimum(slopes, 0) * np.where(unstable, -chord * low, 0.0))
        slopes = kernel @ np.where(slopes > 0, slopes * below, slopes * chord)
    return offset + np.sum(np.where(slopes > 0, slopes * box[0], slopes * box[1]))


def oracle(kappa, beta, eps):
    values = []
    for row, y in zip(X, Y, strict=True):
        rows = (V[:, [y]] - V).T
        mixed = [beta * crown_margin(row, d, eps) + (1 - beta) * ibp_margin(row, d, eps) for d in rows]
        logits = np.maximum(np.maximum(row @ U, 0) @ W, 0) @ V
        clean = np.log(np.sum(np.exp(logits - logits[y])))
        values.append(kappa * clean + (1 - kappa) * np.log(np.sum(np.exp(-np.asarray(mixed)))))
    return np.mean(values)


def test_value_and_gradient_against_numpy_and_without_a_set(key, x64):
    @jax.jit
    def step(p, kappa, beta, eps):
        loss = losses.crown_ibp(threats.linf(eps), kappa=kappa, beta=beta)
        return jax.value_and_grad(lambda p: loss(Net(p, {}, apply_fn), batch(), key), has_aux=True)(p)

    for kappa, beta, eps in [(0.0, 1.0, EPS), (0.5, 0.3, EPS), (0.2, 0.0, EPS), (0.0, 1.0, 0.4)]:
        (value, aux), gradient = step(params(), kappa, beta, eps)
        np.testing.assert_allclose(value, oracle(kappa, beta, eps), rtol=1e-9)
        assert 0 <= aux.metrics["certified_accuracy"] <= aux.metrics["clean_accuracy"]
        along = {name: np.cos(np.arange(p.size)).reshape(p.shape) for name, p in params().items()}
        moved = [{n: p + h * along[n] for n, p in params().items()} for h in (1e-6, -1e-6)]
        ends = [step(p, kappa, beta, eps)[0][0] for p in moved]
        slope = sum(np.sum(gradient[n] * along[n]) for n in along)
        np.testing.assert_allclose((ends[0] - ends[1]) / 2e-6, slope, rtol=1e-6)
    clean = jax.grad(lambda p: losses.standard()(Net(p, {}, apply_fn), batch(), key)[0])(params())
    for beta in (1.0, 0.5):
        chex.assert_trees_all_close(step(params(), 0.1, beta, 0.0)[1], clean, rtol=1e-6, atol=1e-9)


def test_where_beta_is_zero_it_is_ibp(key):
    model, data = Net(params(jnp.float32), {}, apply_fn), batch(jnp.float32)
    found = losses.crown_ibp(threats.linf(EPS), kappa=0.3, beta=0.0)(model, data, key)
    expected = losses.ibp(threats.linf(EPS), kappa=0.3)(model, data, key)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
