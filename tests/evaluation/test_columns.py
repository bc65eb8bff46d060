"""Columns against NumPy in float64, and that nothing depends on how examples are batched."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen.core import VERIFIED, Certificate, Net
from robustgen.evaluation.columns import ContradictionError, OutsideError, columns, contradictions, evaluator, unstack
from robustgen.evaluation.curves import curve
from robustgen.knobs import KnobError
from robustgen.threats import l2, linf

from .conftest import EPS, interval_certifier, linear, noise, strongest


def everything(threat):
    return evaluator(
        attacks={"corner": strongest(threat), "noise": noise(threat)},
        certifiers={"exact": interval_certifier(threat)},
        threat=threat,
    )


def one(net: Net, i: int) -> Net:
    return jax.tree.map(lambda leaf: leaf[i], net)


def margins(net: Net, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    logits = x.reshape(len(x), -1).astype(np.float64) @ np.asarray(net.params["w"], np.float64)
    return logits[np.arange(len(y)), y] - logits[np.arange(len(y)), 1 - y]


def worst_margins(net: Net, x: np.ndarray, y: np.ndarray, eps: float) -> np.ndarray:
    """Minimum over all corners of box and ball, one by one."""
    flat = x.reshape(len(x), -1).astype(np.float64)
    lower, upper = np.maximum(flat - eps, 0), np.minimum(flat + eps, 1)
    bits = (np.arange(2 ** flat.shape[1])[:, None] >> np.arange(flat.shape[1])) & 1
    return np.min([margins(net, np.where(corner, upper, lower), y) for corner in bits], 0)


def test_against_brute_force(population, data, threat, key):
    found = columns(everything(threat), population, *data, key=key, batch_size=16, num_nets=2)
    for i, rows in enumerate(unstack(found, 2)):
        margin, worst = margins(one(population, i), *data), worst_margins(one(population, i), *data, EPS)
        assert np.abs(worst).min() > 1e-5  # no example so close that rounding decides
        np.testing.assert_array_equal(rows["clean"], margin > 0)
        np.testing.assert_array_equal(rows["robust:corner"], worst > 0)
        np.testing.assert_array_equal(rows["certified:exact"], worst > 1e-4)
        np.testing.assert_array_equal(rows["falsified:exact"], worst < 0)
        np.testing.assert_allclose(rows["margin"], margin, atol=1e-5)
        np.testing.assert_allclose(rows["margin:corner"], worst, atol=1e-5)
        np.testing.assert_array_equal(rows["prediction"] == data[1], margin > 0)
        assert rows["distance_linf:corner"].dtype == np.float64 and (rows["distance_linf:corner"] <= EPS).all()
        assert 0 < rows["clean"].mean() < 1 and 0 < rows["robust:corner"].mean() < rows["clean"].mean()
        assert not (rows["robust:corner"] & ~rows["clean"]).any()
        contradictions(rows)


def test_padding_order_and_population_change_nothing(population, data, threat, key):
    check, (x, y) = everything(threat), data
    reference = columns(check, one(population, 1), x, y, key=key, batch_size=32)
    order = np.random.default_rng(5).permutation(41)
    shuffled = columns(check, one(population, 1), x[order], y[order], key=key, batch_size=32, index=order)
    others = [
        columns(check, one(population, 1), x, y, key=key, batch_size=7),
        unstack(columns(check, population, x, y, key=key, batch_size=32, num_nets=2), 2)[1],
        {name: value[np.argsort(order)] for name, value in shuffled.items()},
    ]
    for other in others:
        assert other.keys() == reference.keys()
        for name, value in reference.items():
            assert value.shape == (41,)
            np.testing.assert_allclose(other[name], value, atol=1e-6, err_msg=name)


def test_keys_are_the_examples_own_and_the_attacks_own(population, data, threat, key):
    net, (x, y) = one(population, 0), data
    x, y = np.repeat(x[:1], 6, 0), np.repeat(y[:1], 6)
    twice = evaluator(attacks={"a": noise(threat), "b": noise(threat)}, certifiers={}, threat=threat)
    alone = evaluator(attacks={"b": noise(threat)}, certifiers={}, threat=threat)
    both = columns(twice, net, x, y, key=key, batch_size=4)
    assert len(np.unique(both["margin:a"])) == 6
    assert not np.any(both["margin:a"] == both["margin:b"])
    np.testing.assert_array_equal(both["margin:b"], columns(alone, net, x, y, key=key, batch_size=4)["margin:b"])


def test_one_compile_and_progress(population, data, threat, key):
    check, seen = everything(threat), []
    traced = check._replace(batch=chex.assert_max_traces(check.batch, n=1))
    for rows in (slice(0, 41), slice(5, 30)):
        x, y = data[0][rows], data[1][rows]
        columns(traced, one(population, 0), x, y, key=key, batch_size=16, progress=lambda *at: seen.append(at))
    assert seen == [(16, 41), (32, 41), (41, 41), (16, 25), (25, 25)]


def test_non_finite_logits_are_wrong(data, threat, key):
    found = columns(
        evaluator(attacks={"noise": noise(threat)}, certifiers={}, threat=threat),
        lambda x: jnp.full((x.shape[0], 2), jnp.nan), *data, key=key, batch_size=41,
    )  # fmt: skip
    assert not found["clean"].any() and not found["robust:noise"].any() and (found["prediction"] == -1).all()


@pytest.mark.parametrize("outside", [
    lambda x: x + jnp.float32(EPS) * 1.0001,
    lambda x: (x + jnp.float32(8 / 255)).at[3].add(1.0),
    lambda x: x * jnp.nan,
])  # fmt: skip
def test_an_attack_outside_the_set_is_refused(population, data, threat, key, outside):
    bad = evaluator(attacks={"bad": lambda f, x, y, k: outside(x)}, certifiers={}, threat=threat)
    with pytest.raises(OutsideError, match="bad left the threat set"):
        columns(bad, one(population, 0), *data, key=key, batch_size=41)


def test_membership_is_checked_in_float64(threat):
    """Pixels k/255 plus 8/255 in float32, clipped: the usual idiom leaves the real ball by 1e-8; our sets do not."""
    x = (np.arange(256, dtype=np.float32) / np.float32(255))[:, None]
    idiom = np.clip(x + np.float32(8 / 255), 0, 1)
    for tight in (linf(8 / 255), l2(8 / 255)):
        check = evaluator(attacks={}, certifiers={}, threat=tight)
        assert (check.excess(x, idiom) > 1e-10).mean() > 0.05
        assert check.excess(x, np.asarray(tight.project(x, idiom))).max() < 1e-12


def test_contradictions_name_index_attack_and_certifier(population, data, threat, key):
    def liar(logits_fn, x, y, key):
        return Certificate(jnp.full(len(y), VERIFIED), jnp.ones(len(y)))

    check = evaluator(attacks={"corner": strongest(threat)}, certifiers={"liar": liar}, threat=threat)
    found = columns(check, population, *data, key=key, batch_size=41, num_nets=2, index=np.arange(100, 141))
    wrong = np.flatnonzero(~found["clean"][0])[0]
    with pytest.raises(ContradictionError, match=rf"certified by liar.*clean.*index {100 + wrong}\b"):
        contradictions(found)
    found["clean"][:] = True
    with pytest.raises(ContradictionError, match="liar and yet broken .attack corner.: index 1"):
        contradictions(found)
    found["robust:corner"][:] = True
    contradictions(found)
    with pytest.raises(ContradictionError, match="falsifier liar"):
        contradictions({**found, "falsified:liar": found["clean"]})


def test_a_counterexample_that_is_none_does_not_count(population, data, threat, key):
    net = one(population, 0)

    def wishful(logits_fn, x, y, key):
        return Certificate(jnp.full(len(y), -1), -jnp.ones(len(y)), None, x)

    found = columns(evaluator(attacks={}, certifiers={"w": wishful}, threat=threat), net, *data, key=key, batch_size=41)
    np.testing.assert_array_equal(found["falsified:w"], ~found["clean"])


def test_curve(population, data, key):
    eps = [0.0, 0.03, 0.1, 0.3, 1.0]
    traces = []

    def attack_at(radius):
        traces.append(radius)
        return strongest(linf(radius))

    found = curve(
        population, *data, attack_at=attack_at, certifier_at=lambda r: interval_certifier(linf(r)), eps=eps,
        key=key, batch_size=16, num_nets=2,
    )  # fmt: skip
    assert len(traces) == 1 and found.robust.shape == (2, 5, 41)
    for i in range(2):
        worst = np.stack([worst_margins(one(population, i), *data, e) for e in eps])
        np.testing.assert_array_equal(found.robust[i], worst > 0)
        np.testing.assert_array_equal(found.certified[i], worst > 1e-4)
    assert (np.diff(found.robust.astype(int), axis=-2) <= 0).all() and not found.robust[:, -1].all()


def test_curve_is_monotone_and_contradiction_free(data, key):
    """An attack that only succeeds at the middle radius: what it broke there stays broken."""
    net = Net({"w": jnp.zeros((6, 2)).at[:, 1].set(1.0)}, {}, linear)
    x, y = np.full((4, 6), 0.01, np.float32), np.ones(4, np.int32)

    def attack_at(radius):
        return lambda f, x, y, k: jnp.where((radius > 0.15) & (radius < 0.25), -x, x)

    def certifier_at(radius):
        return lambda f, x, y, k: Certificate(jnp.where(radius < 0.25, jnp.ones(4, int), 0), jnp.ones(4))

    found = curve(net, x, y, attack_at=attack_at, certifier_at=None, eps=[0.1, 0.2, 0.3], key=key, batch_size=4)
    np.testing.assert_array_equal(found.robust[:, 0], [True, False, False])
    assert found.certified is None
    with pytest.raises(ContradictionError, match="eps 0.2, index 0"):
        curve(net, x, y, attack_at=attack_at, certifier_at=certifier_at, eps=[0.1, 0.2, 0.3], key=key, batch_size=4)
    for eps in ([], [0.2, 0.1], [-1.0, 0.0], [0.0, float("inf")]):
        with pytest.raises(KnobError, match="eps"):
            curve(net, x, y, attack_at=attack_at, certifier_at=None, eps=eps, key=key, batch_size=4)
