"""Branch and bound as a certifier: convolutions, pooling, smooth activations, balls; and the largest radius."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import threats
from robustgen.certify import crown, ibp
from robustgen.certify.alpha import ascent
from robustgen.certify.branch import branch_and_bound, descents, neurons, prover
from robustgen.certify.radius import largest_radius
from robustgen.core import FALSIFIED, UNKNOWN, VERIFIED

STEPS = ascent(num_steps=5, learning_rate=0.3, decay=0.98)


def certifier(threat, timeout=600.0):
    method = neurons(threat, between=STEPS, first=STEPS, each=STEPS, tilt_scale=1.0, num_candidates=2, lot=8)
    asked = prover(
        threat,
        method,
        descents(threat, num_steps=20, step_size=0.25),
        batch=16,
        num_restarts=10,
        memory=1e8,
        rounding=2**-20,
    )
    return branch_and_bound(asked, timeout=timeout)


def conv(weights, x):
    """A residual convolution, a maximum over overlapping windows, an average over all."""
    kernel, bias, again, last = weights
    same = ("NHWC", "HWIO", "NHWC")
    x = jax.nn.relu(jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=same) + bias)
    x = jax.nn.relu(x + jax.lax.conv_general_dilated(x, again, (1, 1), "SAME", dimension_numbers=same))
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 1, 1, 1), "VALID")
    return x.mean((1, 2)) @ last


def smooth(weights, x):
    (w, v) = weights
    return jnp.tanh(x.reshape(x.shape[0], -1) @ w) @ v


def made(apply, shapes, seed=0):
    draw = np.random.default_rng(seed)
    return jax.tree_util.Partial(apply, [jnp.asarray(draw.normal(size=s), jnp.float32) for s in shapes])


NETS = {
    "conv": (made(conv, [(2, 2, 1, 2), (2,), (2, 2, 2, 2), (2, 3)], 1), threats.linf(0.05)),
    "smooth": (made(smooth, [(9, 3), (3, 3)], 2), threats.linf(0.15)),
    "ball": (made(smooth, [(9, 3), (3, 3)], 3), threats.l2(0.1)),
}


@pytest.mark.parametrize("name", NETS)
def test_no_member_contradicts_it(name, key):
    """Each verdict against the least margin of random members and of counterexamples; most are decided."""
    fn, threat = NETS[name]
    x = jax.random.uniform(key, (8, 3, 3, 1))
    y = jnp.argmax(fn(x), 1)
    y = y.at[0].set((y[0] + 1) % 3)
    found = certifier(threat, 30.0 if name == "ball" else 600.0)(fn, x, y, key)
    drawn = jax.vmap(lambda k: threat.sample(x, jax.random.split(k, 8)))(jax.random.split(key, 500))
    logits = np.stack([np.asarray(fn(v)) for v in drawn])
    own = np.take_along_axis(logits, np.asarray(y)[None, :, None], 2)
    rest = np.where(np.arange(3) == np.asarray(y)[None, :, None], -np.inf, logits)
    least = (own[..., 0] - rest.max(2)).min(0)
    assert np.all(found.margin_lower <= least + 1e-6)
    assert np.all(least[found.status == VERIFIED] > 0)
    refuted = found.status == FALSIFIED
    assert np.all(np.argmax(fn(found.x_adv), 1)[refuted] != y[refuted])
    np.testing.assert_allclose(threat.project(x, found.x_adv), found.x_adv, rtol=0, atol=1e-6)
    assert FALSIFIED in found.status
    assert name == "ball" or UNKNOWN not in found.status  # over balls nothing is solved exactly


def test_it_says_that_it_cannot_be_traced(key):
    fn, threat = NETS["smooth"]
    with pytest.raises(TypeError, match="outside of jit"):
        jax.jit(certifier(threat))(fn, jnp.zeros((2, 3, 3, 1)), jnp.zeros(2, int), key)


def test_largest_radius_of_a_linear_classifier(key):
    """|margin| / dual norm, in closed form; one compilation for all radii."""
    w = jax.random.normal(key, (4, 2))
    x = jax.random.uniform(key, (6, 4))
    y = jnp.argmax(x @ w, 1).at[5].add(1) % 2
    margin = (jnp.take_along_axis(x @ w, y[:, None], 1) - jnp.take_along_axis(x @ w, 1 - y[:, None], 1))[:, 0]
    for threat_at, norm in ((threats.linf, 1), (threats.l2, 2)):
        exact = jnp.clip(margin / jnp.linalg.norm(w[:, 0] - w[:, 1], norm), 0, 1)

        def at(eps, threat_at=threat_at):
            return crown(threat_at(eps, clip=None))

        found = largest_radius(at, lambda v: v @ w, x, y, key, largest=1.0, num_steps=15)
        assert np.all(found <= exact) and np.all(found >= exact - 1e-4)


def test_largest_radius_was_certified(key):
    fn, _ = NETS["smooth"]
    x = jax.random.uniform(key, (4, 3, 3, 1))
    y = jnp.argmax(fn(x), 1)
    radius = largest_radius(lambda eps: ibp(threats.linf(eps)), fn, x, y, key, largest=0.5, num_steps=10)
    assert np.any(radius > 0)
    for i in range(4):
        for eps, wanted in ((radius[i], VERIFIED), (radius[i] + 1e-3, UNKNOWN)):
            if 0 < eps < 0.5:
                status = ibp(threats.linf(float(eps)))(fn, x[i : i + 1], y[i : i + 1], key).status[0]
                assert status == wanted
