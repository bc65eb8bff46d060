"""SABR, MTL-IBP, CC-IBP and Exp-IBP against float64 NumPy with interval bounds written by hand, and their ends."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import losses, threats
from robustgen.certify import margins_lower
from robustgen.core import Batch, Net
from robustgen.knobs import KnobError
from robustgen.losses import certified

DRAW = np.random.default_rng(0)
PARAMS = {"u": DRAW.standard_normal((5, 7)), "w": DRAW.standard_normal((7, 6)), "v": DRAW.standard_normal((6, 3))}
X, Y = DRAW.uniform(0, 1, (8, 5)), np.asarray([0, 1, 2, 0, 1, 2, 0, 1])
X[0, 0], X[1, 1] = 0.0, 1.0  # where the clip takes half of the set away
STEP = DRAW.uniform(-1, 1, X.shape)
EPS = 0.15


def apply_fn(variables, x, train, mutable=(), rngs=None):
    p = variables["params"]
    logits = jax.nn.relu(jax.nn.relu(x @ p["u"]) @ p["w"]) @ p["v"]
    return (logits, {}) if train else logits


def net(dtype=jnp.float64) -> Net:
    return Net({name: jnp.asarray(p, dtype) for name, p in PARAMS.items()}, {}, apply_fn)


def batch(dtype=jnp.float64) -> Batch:
    return Batch(jnp.asarray(X, dtype), jnp.asarray(Y, jnp.int32))


def known(eps):
    """An attack whose answer is known: the same share of eps in each feature, whatever the model."""
    return lambda logits_fn, x, target, key: jnp.clip(x + eps * jnp.asarray(STEP, x.dtype), 0, 1)


def logits_of(x):
    return np.maximum(np.maximum(x @ PARAMS["u"], 0) @ PARAMS["w"], 0) @ PARAMS["v"]


def margins_of(low, high):
    """Interval bounds by hand, the last layer composed with the differences of logits."""
    for name in ("u", "w"):
        centre, radius = (low + high) / 2 @ PARAMS[name], (high - low) / 2 @ np.abs(PARAMS[name])
        low, high = np.maximum(centre - radius, 0), np.maximum(centre + radius, 0)
    rows = [PARAMS["v"][:, [y]] - PARAMS["v"] for y in Y]
    pairs = zip((low + high) / 2, (high - low) / 2, rows, strict=True)
    return np.stack([c @ d - r @ np.abs(d) for c, r, d in pairs])


def ball(x, eps):
    return np.clip(x - eps, 0, 1), np.clip(x + eps, 0, 1)


def ce(logits, y=Y):
    """-log softmax, [B]."""
    return np.log(np.sum(np.exp(logits - logits[np.arange(8), y][:, None]), 1))


def adversarial(eps):
    return logits_of(np.clip(X + eps * STEP, 0, 1))


def at(logits):
    """Margins [B, K]."""
    return logits[np.arange(8), Y][:, None] - logits


ORACLES = {
    losses.mtl_ibp: lambda a, m, s: np.mean((1 - s) * ce(a) + s * ce(-m)),
    losses.cc_ibp: lambda a, m, s: np.mean(ce(-((1 - s) * at(a) + s * m))),
    losses.exp_ibp: lambda a, m, s: np.mean(ce(a)) ** (1 - s) * np.mean(ce(-m)) ** s,
}


@pytest.mark.parametrize("factory", ORACLES, ids=lambda f: f.__name__)
def test_expressive_losses_against_numpy_and_from_the_attack_to_the_bound(factory, key, x64):
    """Compiled once: alpha may be a tracer."""

    @jax.jit
    def loss(alpha, attack_eps):
        return factory(threats.linf(EPS), known(attack_eps), alpha=alpha)(net(), batch(), key)

    margins, others = margins_of(*ball(X, EPS)), np.arange(3) != Y[:, None]
    for alpha, attack_eps in [(0.0, EPS), (0.3, EPS), (0.3, 2 * EPS), (1.0, EPS)]:
        value, aux = loss(alpha, attack_eps)
        np.testing.assert_allclose(value, ORACLES[factory](adversarial(attack_eps), margins, alpha), rtol=1e-9)
        np.testing.assert_allclose(aux.metrics["certified_accuracy"], np.mean(np.all((margins > 0) | ~others, 1)))
        np.testing.assert_allclose(aux.metrics["adv_accuracy"], np.mean(adversarial(attack_eps).argmax(1) == Y))
    along = [float(loss(alpha, EPS)[0]) for alpha in np.linspace(0, 1, 7)]
    assert np.all(np.diff(along) > 0)
    ends = np.mean(ce(adversarial(EPS))), np.mean(ce(-margins))
    np.testing.assert_allclose([along[0], along[-1]], ends, rtol=1e-9)


def official_small_box(x, x_adv, eps, tau):
    """As eth-sri/SABR, adv_whitebox with shift and dimwise_scaling, then clamp_image."""
    low, high = ball(x, eps)
    radius = np.minimum((high - low) / 2, tau * eps)
    centre = np.clip(x_adv, low + radius, high - radius)
    return np.maximum(centre - radius, 0), np.minimum(centre + radius, 1)


def test_sabr_against_numpy_and_from_the_attack_to_the_bound_of_the_whole_set(key, x64):
    @jax.jit
    def loss(tau, kappa):
        return losses.sabr(threats.linf(EPS), known(EPS), tau=tau, kappa=kappa)(net(), batch(), key)

    others = np.arange(3) != Y[:, None]
    for tau, kappa in [(0.0, 0.0), (0.4, 0.0), (0.7, 0.3), (1.0, 0.0)]:
        value, aux = loss(tau, kappa)
        margins = margins_of(*official_small_box(X, np.clip(X + EPS * STEP, 0, 1), EPS, tau))
        expected = kappa * np.mean(ce(logits_of(X))) + (1 - kappa) * np.mean(ce(-margins))
        np.testing.assert_allclose(value, expected, rtol=1e-9)
        np.testing.assert_allclose(aux.metrics["small_box_accuracy"], np.mean(np.all((margins > 0) | ~others, 1)))
    along = [float(loss(tau, 0.0)[0]) for tau in (0.0, 0.5, 1.0)]
    ends = np.mean(ce(adversarial(EPS))), np.mean(ce(-margins_of(*ball(X, EPS))))
    np.testing.assert_allclose([along[0], along[-1]], ends, rtol=1e-9)
    assert along[0] < along[1] < along[2]


@pytest.mark.parametrize("tau", [0.0, 0.3, 0.9, 1.0])
def test_the_small_box_lies_in_the_set_has_its_radius_and_holds_the_point_where_it_can(tau):
    x, step = jnp.asarray(X, jnp.float32), jnp.asarray(STEP, jnp.float32)
    threat = threats.linf(EPS)
    lower, upper = threat.bounds(x)
    x_adv = jnp.clip(x + EPS * step, lower, upper)
    low, high = certified._small_box(threat, x, x_adv, tau).bounds(x)
    assert jnp.all((lower <= low) & (low <= high) & (high <= upper))
    assert jnp.all((low <= x_adv + 1e-6) & (x_adv - 1e-6 <= high))
    wide = (upper - lower) >= 2 * tau * EPS
    np.testing.assert_allclose((high - low)[wide], 2 * tau * EPS, atol=1e-6)
    np.testing.assert_allclose((high - low)[~wide], (upper - lower)[~wide], atol=1e-6)


ALL = {name: getattr(losses, name) for name in ("sabr", "mtl_ibp", "cc_ibp", "exp_ibp")}
KNOBS = {"sabr": {"tau": 0.5, "kappa": 0.2}, "mtl_ibp": {"alpha": 0.5}, "cc_ibp": {"alpha": 0.5},
         "exp_ibp": {"alpha": 0.5}}  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_gradient_against_differences_and_finite_at_eps_zero(name, key, x64):
    @jax.jit
    def value_and_gradient(params, eps):
        loss = ALL[name](threats.linf(eps), known(eps), **KNOBS[name])
        return jax.value_and_grad(lambda p: loss(Net(p, {}, apply_fn), batch(), key)[0])(params)

    params, direction = net().params, {name: np.cos(np.arange(p.size)).reshape(p.shape) for name, p in PARAMS.items()}
    ends = [value_and_gradient({n: params[n] + h * direction[n] for n in params}, EPS)[0] for h in (1e-6, -1e-6)]
    slope = sum(np.sum(value_and_gradient(params, EPS)[1][n] * direction[n]) for n in params)
    np.testing.assert_allclose((ends[0] - ends[1]) / 2e-6, slope, rtol=1e-6)
    gradient = value_and_gradient(params, 0.0)[1]
    clean = jax.grad(lambda p: losses.standard()(Net(p, {}, apply_fn), batch(), key)[0])(net().params)
    chex.assert_trees_all_close(gradient, clean, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_the_bound_is_a_knob(name, key):
    """A constant in place of bounds: the loss is log K there, and no other bound is taken."""
    said = []

    def constant(logits_fn, x, y, threat):
        said.append(threat.bounds(x))
        return jnp.zeros((8, 3))

    knobs = {**KNOBS[name], **({"kappa": 0.0} if name == "sabr" else {"alpha": 1.0})}
    loss = ALL[name](threats.linf(EPS), known(EPS), bounds=constant, **knobs)
    value, _ = loss(net(jnp.float32), batch(jnp.float32), key)
    np.testing.assert_allclose(value, np.log(3), rtol=1e-6)
    assert len(said) == 1


def test_a_blend_is_between_its_bounds_and_computes_no_more_than_it_needs(x64):
    model, data, threat = net(), batch(), threats.linf(EPS)
    looser = lambda *args: margins_lower(*args) - 1.0  # noqa: E731
    nothing = lambda *args: jnp.full((8, 3), jnp.nan)  # noqa: E731
    tight = margins_lower(model, data.x, data.y, threat)
    blended = jax.jit(lambda weight: certified.blend(looser, margins_lower, weight)(model, data.x, data.y, threat))
    for weight in (0.0, 0.25, 1.0):
        np.testing.assert_allclose(blended(weight), tight - weight, rtol=1e-12)
    ends = [certified.blend(nothing, margins_lower, 0.0), certified.blend(margins_lower, nothing, 1.0)]
    for end in ends:
        np.testing.assert_array_equal(end(model, data.x, data.y, threat), tight)


def centred_apply(variables, x, train, mutable=None, rngs=None):
    """A net that subtracts the mean of its hidden layer: that of the batch, or the running one."""
    p, running = variables["params"], variables["batch_stats"]["mean"]
    hidden = x @ p["u"][:, :6]
    mean = hidden.mean(0) if train else running
    logits = jax.nn.relu(hidden - mean) @ p["v"]
    return logits if mutable is None else (logits, {"batch_stats": {"mean": 0.5 * running + 0.5 * mean}})


@pytest.mark.parametrize("name", ALL)
def test_batch_statistics(name, key, x64):
    """SABR moves them by the clean batch, the others by the adversarial one; bounds use them so moved."""
    seen = X if name == "sabr" else np.clip(X + EPS * STEP, 0, 1)
    moved = 0.5 * 0.3 + 0.5 * (seen @ PARAMS["u"][:, :6]).mean(0)
    model = Net(net().params, {"batch_stats": {"mean": jnp.full(6, 0.3)}}, centred_apply)
    said = []

    def bounds(logits_fn, x, y, threat):
        said.append(logits_fn(batch().x))
        return jnp.zeros((8, 3))

    _, aux = ALL[name](threats.linf(EPS), known(EPS), bounds=bounds, **KNOBS[name])(model, batch(), key)
    np.testing.assert_allclose(aux.state["batch_stats"]["mean"], moved, rtol=1e-12)
    expected = np.maximum(X @ PARAMS["u"][:, :6] - moved, 0) @ PARAMS["v"]
    np.testing.assert_allclose(said[0], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_knobs_are_checked(name):
    for knob, value in KNOBS[name].items():
        with pytest.raises(KnobError, match=knob):
            ALL[name](threats.linf(EPS), known(EPS), **{**KNOBS[name], knob: value + 1})
