"""What every certifier promises: nothing that it says is contradicted by a member of the set."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import attacks, threats
from robustgen.core import FALSIFIED, UNKNOWN, VERIFIED
from robustgen.spread import example_keys

Y = jnp.asarray([0, 1, 2, 0, 1, 2, 0, 1], jnp.int32)


@functools.cache
def measured(certifier_case, threat_at):
    """(net, x, eps, key) -> (Certificate, least margin of 1000 members and PGD's, project(x, counterexample))."""

    @jax.jit
    def measure(model, x, eps, key):
        threat = threat_at(eps)
        found = certifier_case.build(threat)(model, x, Y, key)
        pgd = attacks.pgd(threat, objective=attacks.margin, step_size=eps / 4, num_steps=20, judge=attacks.margin)
        least = -attacks.margin(model(pgd(model, x, Y, key)), Y)

        def lower(_, carry):
            key, least = carry
            key, drawn = jax.random.split(key)
            member = threat.sample(x, example_keys(drawn, len(x)))
            return key, jnp.minimum(least, -attacks.margin(model(member), Y))

        _, least = jax.lax.fori_loop(0, 1000, lower, (key, least))
        return found, least, x if found.x_adv is None else threat.project(x, found.x_adv)

    return measure


@pytest.mark.parametrize("threat_at", [threats.linf, threats.l2])
@pytest.mark.parametrize("eps", [0.0, 0.02, 0.3])
def test_no_member_contradicts_it(certifier_case, inputs, net, key, threat_at, eps):
    x, model = inputs((8, 2, 2, 1)), net()
    found, least, again = measured(certifier_case, threat_at)(model, x, jnp.float32(eps), key)
    assert found.status.shape == found.margin_lower.shape == (8,) and found.status.dtype == jnp.int32
    assert set(np.unique(found.status)) <= {VERIFIED, UNKNOWN, FALSIFIED}
    assert np.all(found.margin_lower <= least)
    assert np.all(found.status[found.margin_lower > 0] == VERIFIED)
    assert np.all(least[found.status == VERIFIED] > 0)
    falsified = np.asarray(found.status == FALSIFIED)
    if found.x_adv is not None:
        assert np.all(jnp.argmax(model(found.x_adv), 1)[falsified] != Y[falsified])
        np.testing.assert_allclose(again[falsified], found.x_adv[falsified], rtol=0, atol=1e-6)
    if eps == 0:
        np.testing.assert_allclose(found.margin_lower, -attacks.margin(model(x), Y), rtol=1e-4, atol=1e-4)


def test_compiled_is_eager(certifier_case, inputs, net, key):
    certifier, x, model = certifier_case.build(threats.linf(0.02)), inputs((8, 2, 2, 1)), net()
    compiled, eager = jax.jit(certifier)(model, x, Y, key), certifier(model, x, Y, key)
    np.testing.assert_array_equal(compiled.status, eager.status)
    np.testing.assert_allclose(compiled.margin_lower, eager.margin_lower, rtol=1e-5, atol=1e-5)
