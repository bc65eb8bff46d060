"""BPDA, expectation over transformation and transfer: derivatives against the mean of single ones and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import attacks, defences, threats
from robustgen.spread import example_keys

DRAW = np.random.default_rng(0)
X = jnp.asarray(DRAW.uniform(0.1, 0.9, (8, 4)), jnp.float32)
Y = jnp.asarray(DRAW.integers(0, 3, 8), jnp.int32)
W = jnp.asarray(DRAW.standard_normal((4, 3)), jnp.float32)


def steps(x):
    return jnp.round(8 * x) / 8


def linear(x):
    return x @ W


def noisy(x, key):
    draws = jax.vmap(lambda k, row: jax.random.normal(k, row.shape))(example_keys(key, len(x)), x)
    return jnp.sin(8 * (x + 0.1 * draws)) @ W


def test_bpda_has_the_value_of_one_and_the_derivative_of_the_other():
    """Under grad, jit, vmap and scan alike; a second call is the first."""

    def value(f, x):
        return jnp.sum(jnp.cos(f(x)) ** 2)

    through = attacks.bpda(steps, jnp.sin)
    np.testing.assert_array_equal(through(X), steps(X))
    assert not np.any(jax.grad(lambda x: value(steps, x))(X))
    outer = -2 * np.cos(steps(X)) * np.sin(steps(X))
    expected = outer * np.cos(X)
    gradient = jax.grad(lambda x: value(through, x))
    rows = jax.vmap(jax.grad(lambda row: value(through, row)))
    scanned = jax.lax.scan(lambda carry, row: (carry, gradient(row)), 0.0, X)[1]
    for found in (gradient(X), gradient(X), jax.jit(gradient)(X), rows(X), scanned):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    straight = jax.grad(lambda x: value(attacks.bpda(steps), x))(X)
    np.testing.assert_allclose(straight, outer, atol=1e-6)


def test_bpda_passes_keys_and_traced_settings(key):
    """Neither is differentiated; both may be batched."""

    @jax.jit
    def gradients(sizes):
        def one(size):
            through = attacks.bpda(lambda x, keys: jnp.round(x * size) + jax.random.uniform(keys[0]))
            return jax.grad(lambda x: jnp.sum(through(x, example_keys(key, 8)) ** 2))(X)

        return jax.vmap(one)(sizes)

    sizes = jnp.asarray([2.0, 5.0])
    expected = 2 * (jnp.round(X * sizes[:, None, None]) + jax.random.uniform(example_keys(key, 8)[0]))
    np.testing.assert_allclose(gradients(sizes), expected, rtol=1e-6)


def test_eot_gradient_is_the_mean_of_the_gradients_of_its_draws(key):
    """And not that of the objective of mean logits, or of the mean prediction."""
    sampled = attacks.eot(noisy, num_samples=5, key=key)

    def gradient(objective):
        return np.asarray(jax.jit(jax.grad(lambda x: jnp.sum(objective(x))))(X))

    mean = gradient(lambda x: attacks.expected(attacks.cross_entropy)(sampled(x), Y))
    one = jax.jit(jax.grad(lambda x, s: jnp.sum(attacks.cross_entropy(sampled(x)[:, s], Y))))
    draws = np.stack([one(X, s) for s in range(5)])
    np.testing.assert_allclose(mean, draws.mean(0), atol=1e-6)
    assert draws.std(0).mean() > 0.1
    prediction = attacks.mean_prediction(noisy, num_samples=5, key=key)
    assert np.abs(gradient(lambda x: attacks.cross_entropy(sampled(x).mean(1), Y)) - mean).max() > 0.05
    np.testing.assert_allclose(np.exp(prediction(X)), jax.nn.softmax(sampled(X)).mean(1), atol=1e-6)


def test_eot_estimates_the_gradient_of_the_expected_loss(key):
    """E cos(a (x + sigma n)) = exp(-(a sigma)^2 / 2) cos(a x), whose slope many draws approach."""

    def wave(x, keys):
        noise = jax.vmap(lambda k: jax.random.normal(k, (1,)))(keys)
        return jnp.cos(3 * (x + 0.4 * noise))

    x = jnp.linspace(0, 1, 7)[:, None]
    first = attacks.expected(lambda logits, target: logits[:, 0])
    sampled = attacks.eot(wave, num_samples=20_000, key=key)
    found = jax.grad(lambda x: jnp.sum(first(sampled(x), None)))(x)
    exact = -3 * np.exp(-((3 * 0.4) ** 2) / 2) * np.sin(3 * np.asarray(x))
    np.testing.assert_allclose(found, exact, atol=5 * 3 / np.sqrt(20_000))


def test_eot_draws_anew_for_another_x_and_alike_for_the_same(key):
    """Whatever else is in the batch, for keys of their own; jit changes nothing."""
    sampled = jax.jit(lambda x, keys: attacks.eot(noisy, num_samples=4, key=keys)(x))
    keys = example_keys(key, 8)
    logits = sampled(X, keys)
    assert logits.shape == (8, 4, 3)
    np.testing.assert_allclose(sampled(X[::-1], keys[::-1])[::-1], logits, atol=1e-5)
    one = attacks.eot(noisy, num_samples=4, key=key)  # the place in the batch does not count
    np.testing.assert_allclose(one(X[::-1])[::-1], one(X), atol=1e-5)
    seen = attacks.eot(lambda x, keys: jax.vmap(jax.random.uniform)(keys)[:, None], num_samples=4, key=keys)
    uniforms = [seen(x) for x in (X, X.at[:, 0].add(1e-6), X[:, ::-1], 2 * X)]
    assert len(np.unique(uniforms)) == 4 * 8 * 4


def test_against_undoes_a_step_function_and_noise(key):
    """A linear model behind steps: naively unharmed but for the start, adaptively at the optimum of the linear one."""
    threat = threats.linf(0.05)
    knobs = {"objective": attacks.expected(attacks.margin), "step_size": 0.02, "num_steps": 8}
    pgd = attacks.pgd(threat, start=attacks.starts.zero, **knobs)

    def crafted(transform, num_samples):
        attack = attacks.against(pgd, transform=transform, num_samples=num_samples)
        return jax.jit(lambda x: attack(linear, x, Y, key))(X)

    np.testing.assert_array_equal(crafted(lambda x, keys: steps(x), 1), X)
    x_adv = crafted(attacks.bpda(lambda x, keys: steps(x)), 1)
    assert np.mean(attacks.margin(linear(steps(x_adv)), Y) - attacks.margin(linear(steps(X)), Y)) > 0.05
    both = crafted(defences.noise(sigma=0.1), 16)
    best = X + 0.05 * jnp.sign(jax.grad(lambda x: jnp.sum(attacks.margin(linear(x), Y)))(X))
    assert np.mean(np.abs(both - best)) < 0.02


def test_transfer_asks_the_surrogate_alone(key):
    fgsm = attacks.fgsm(threats.linf(0.1), objective=attacks.margin, step_size=0.1)
    crafted = attacks.transfer(fgsm, surrogate=linear)(lambda x: jnp.full((8, 3), jnp.nan), X, Y, key)
    np.testing.assert_array_equal(crafted, fgsm(linear, X, Y, key))

    def opposite(x):
        return -linear(x)

    kept = attacks.transfer(fgsm, surrogate=linear, judge=attacks.margin)(opposite, X, Y, key)
    before, tried, after = (attacks.margin(opposite(z), Y) for z in (X, crafted, kept))
    np.testing.assert_allclose(after, np.maximum(before, tried), rtol=1e-6)
    assert np.any(tried < before)


@pytest.mark.parametrize("case", range(20))
def test_undetected_margin_is_positive_where_wrong_and_not_rejected(case):
    logits = jnp.asarray(np.random.default_rng(case).standard_normal((8, 4)), jnp.float32)
    won = np.argmax(np.asarray(logits), -1)
    np.testing.assert_array_equal(attacks.undetected_margin(logits, Y) > 0, (won != Y) & (won != 3))
