"""What every threat set promises."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen.spread import example_keys

SHAPES = [(16, 5), (16, 2, 2, 1)]
OF_IMAGES = ("box", "l0_pixels")  # not of flat inputs: the sample box is one of images
NOT_CONVEX = ("l0", "l0_pixels")


@pytest.fixture(params=SHAPES, ids=str)
def x(request, inputs, threat_case):
    shape = request.param
    if threat_case.name in OF_IMAGES and len(shape) == 2:
        pytest.skip(f"{threat_case.name} is of images")
    return inputs(shape)


def far(x, key, scale=1.0):
    """Points outside."""
    return x + scale * jax.random.normal(key, x.shape)


@pytest.fixture
def members(threat_case, x):
    """Random members of the sample threat, [100, *x.shape]: drawn, and projected from outside onto the boundary."""
    return _members(threat_case, x.shape, np.asarray(x).tobytes())


@functools.cache
def _members(case, shape, pixels):
    x = jnp.asarray(np.frombuffer(pixels, np.float32).reshape(shape))
    threat = case.build()

    @jax.jit
    def draw(keys):
        drawn = jax.lax.map(lambda key: threat.sample(x, example_keys(key, len(x))), keys)
        return jnp.concatenate([drawn, jax.lax.map(lambda key: threat.project(x, far(x, key)), keys)])

    return np.asarray(draw(jax.random.split(jax.random.key(2), 50)))


def inner(A, z, ndim):
    """<A, z> over the axes of one example, in float64."""
    axes = tuple(range(-(ndim - 1), 0))
    return np.sum(np.asarray(A, np.float64) * np.asarray(z, np.float64), axes)


def test_nothing_it_returns_is_outside(threat_case, inside, x, members):
    assert all(inside(x, m) for m in members)
    assert members.dtype == x.dtype
    lower, upper = map(np.asarray, threat_case.build().bounds(x))
    assert np.all((lower <= members) & (members <= upper))
    assert np.ptp(members, axis=0).max() > 0.05  # not one and the same


def test_project_keeps_members_and_repeats_itself(threat_case, x, members):
    threat = threat_case.build()
    again = jax.jit(lambda m: jax.lax.map(lambda z: threat.project(x, z), m))(members)
    np.testing.assert_allclose(again, members, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(threat.project(x, x), x)


def test_project_is_the_nearest_member(threat_case, x, members, key):
    """None is nearer; and in a convex set <z - p, m - p> <= 0 for every member m, which characterizes it."""
    project = jax.jit(threat_case.build().project)
    for scale in (0.05, 1.0, 100.0):
        z = np.asarray(far(x, key, scale))
        p = np.asarray(project(x, z))
        assert np.all(inner(z - p, z - p, x.ndim) <= inner(z - members, z - members, x.ndim) + 1e-5 * scale**2)
        if threat_case.name not in NOT_CONVEX:
            assert np.all(inner(z - p, members - p, x.ndim) <= 1e-5 * scale)


def test_support_is_an_upper_bound(threat_case, x, members, key):
    A = jax.random.normal(key, (3, *x.shape[1:]))[:, None] * jnp.ones_like(x)
    support = np.asarray(jax.jit(threat_case.build().support)(A, x))
    assert support.shape == (3, len(x))
    for a, bound in zip(np.asarray(A), support, strict=True):
        assert np.all(inner(a, members, x.ndim) <= bound + 1e-5)


def test_support_is_attained_without_a_clip(threat_case, x, key):
    """The member nearest to a point far out along A is the one furthest along A."""
    threat = threat_case.build(**threat_case.unclipped())
    A = jax.random.normal(key, x.shape)
    reached = jax.jit(threat.project)(x, x + 1e4 * A)
    np.testing.assert_allclose(inner(A, reached, x.ndim), threat.support(A, x), rtol=1e-4)


def test_ascend_raises_a_linear_objective_by_its_step(threat_case, x, key):
    """By as much as a ball of the step's radius allows, whether the gradient is large or far too small to be squared;
    where there is no such ball, no slower than the gradient scaled to the step's length."""
    threat, gradient = threat_case.build(), jax.random.normal(key, x.shape)
    possible = 0.1 * np.sqrt(inner(gradient, gradient, x.ndim))
    if threat_case.unclipped():
        possible = np.asarray(threat_case.build(eps=0.1, clip=None).support(gradient, jnp.zeros_like(x)))
    for scale in (1.0, 1e-25, 1e25):
        gained = inner(gradient, threat.ascend(scale * gradient, 0.1), x.ndim)
        assert np.all(gained >= possible * (1 - 1e-5))
    np.testing.assert_array_equal(threat.ascend(jnp.zeros_like(x), 0.1), jnp.zeros_like(x))


def test_radius_zero_is_x_alone(threat_case, x, key):
    if "eps" not in threat_case.knobs():
        pytest.skip(f"{threat_case.name} has no radius")
    threat = threat_case.build(eps=0)
    np.testing.assert_array_equal(threat.project(x, far(x, key)), x)
    np.testing.assert_array_equal(threat.sample(x, example_keys(key, len(x))), x)


def test_eps_may_be_traced_and_mapped(threat_case, x, key):
    if "eps" not in threat_case.knobs():
        pytest.skip(f"{threat_case.name} has no radius")
    unit = 1 if isinstance(threat_case.radius(), int) else 0.03
    radii = jnp.asarray([0.0, unit, 10 * unit])
    z = far(x, key)
    mapped = jax.jit(jax.vmap(lambda eps: threat_case.build(eps=eps).project(x, z)))(radii)
    concrete = jax.jit(threat_case.build(eps=unit).project)(x, z)
    np.testing.assert_allclose(mapped[1], concrete, rtol=0, atol=1e-6)
    assert np.all(np.diff(np.abs(mapped - x).sum(axis=tuple(range(1, mapped.ndim)))) > 0)
