"""The minimiser against scipy's, and what a dropped pixel may tell."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from robustgen import defences
from robustgen.defences.total_variation import minimise_tv, tv_objective
from robustgen.spread import example_keys

DRAW = np.random.default_rng(0)
X = jnp.asarray(DRAW.uniform(size=(2, 5, 6, 2)), jnp.float32)
KEPT = jnp.asarray(DRAW.uniform(size=X.shape) < 0.6, jnp.float32)
WEIGHT = 0.1


def objective_by_hand(z, x, kept, weight):
    """Row by row and column by column, in float64."""
    z, x, kept = (np.asarray(a, np.float64) for a in (z, x, kept))
    total = np.sum(kept * (z - x) ** 2) / 2
    for channel in range(z.shape[-1]):
        image = z[..., channel]
        total += weight * sum(np.linalg.norm(image[i] - image[i - 1]) for i in range(1, len(image)))
        total += weight * sum(np.linalg.norm(image[:, j] - image[:, j - 1]) for j in range(1, image.shape[1]))
    return total


def test_objective_is_the_papers():
    found = tv_objective(X[::-1], X, KEPT, weight=WEIGHT)
    expected = [objective_by_hand(z, x, k, WEIGHT) for z, x, k in zip(X[::-1], X, KEPT, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_approaches_the_minimum_and_more_steps_get_nearer():
    """scipy smooths the norms by 1e-5 to have derivatives everywhere."""

    def smoothed(flat, x, kept):
        z = flat.reshape(x.shape)
        down, right = z[1:] - z[:-1], z[:, 1:] - z[:, :-1]
        norms = jnp.sqrt(jnp.sum(down**2, 1) + 1e-10).sum() + jnp.sqrt(jnp.sum(right**2, 0) + 1e-10).sum()
        return jnp.sum(kept * (z - x) ** 2) / 2 + WEIGHT * norms

    with jax.enable_x64(True):
        x, kept = (jnp.asarray(np.asarray(a[0]), jnp.float64) for a in (X, KEPT))
        value = jax.jit(jax.value_and_grad(smoothed))
        least = scipy.optimize.minimize(
            lambda flat: tuple(map(np.asarray, value(flat, x, kept))), np.full(x.size, 0.5), jac=True,
            method="L-BFGS-B", options={"maxiter": 5000, "maxfun": 20000, "ftol": 1e-14, "gtol": 1e-9},
        ).fun  # fmt: skip
    start = float(tv_objective(jnp.where(KEPT > 0, X, 0.5), X, KEPT, weight=WEIGHT)[0])
    excess = []
    for num_steps in (2, 10, 300):
        z = minimise_tv(X, KEPT, weight=WEIGHT, num_steps=num_steps)
        assert jnp.all((z >= 0) & (z <= 1))
        excess.append(objective_by_hand(z[0], X[0], KEPT[0], WEIGHT) - least)
    assert -1e-4 < excess[2] < 1e-3 < excess[1] < excess[0] < start - least


def test_a_dropped_pixel_is_never_read():
    other = jnp.where(KEPT > 0, X, 1 - X)
    a, b = (minimise_tv(x, KEPT, weight=WEIGHT, num_steps=20) for x in (X, other))
    np.testing.assert_array_equal(a, b)
    gradient = jax.grad(lambda x: jnp.sum(minimise_tv(x, KEPT, weight=WEIGHT, num_steps=20) ** 2))(X)
    assert not np.any(np.where(KEPT > 0, 0, gradient)) and np.any(gradient)


def test_drops_its_rate_and_nothing_at_zero(key):
    x = jnp.asarray(DRAW.uniform(size=(64, 8, 8, 1)), jnp.float32)
    keys = example_keys(key, 64)
    out = defences.tv_minimisation(drop_rate=0.3, weight=1e-6, num_steps=3)(x, keys)
    touched = np.mean(np.abs(out - x) > 1e-4)
    assert abs(touched - 0.3) < 4 * np.sqrt(0.3 * 0.7 / x.size)
    np.testing.assert_allclose(defences.tv_minimisation(drop_rate=0, weight=1e-6, num_steps=3)(x, keys), x, atol=1e-4)
