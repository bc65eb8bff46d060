"""CROWN, CROWN-IBP and alpha-CROWN by sampling, by finite differences, and against themselves in other forms."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from robustgen import threats
from robustgen.certify.alpha import alpha_margins, ascent, joint_alpha_margins
from robustgen.certify.crown import crown_ibp_margins, crown_margins, every, intervals, margins, unstable
from robustgen.certify.state import analysed, program_of, region
from tests.certify.test_crown import around, chained, conv, logits, pooled, weight

SHORT = [
    lambda x: (conv(x, weight(1, 3, 3, 2, 3)) + 0.1,),
    lambda x: (conv(x, weight(2, 2, 2, 3, 4), (2, 2)),),
    logits,
]
SMALL, Y = (6, 5, 2), np.array([0, 2], np.int32)


def states(stages, refine):
    """What `refine` finds of a net, and its margins."""
    low, high = around(0, SMALL, 0.04)
    program, at = program_of(chained(stages), low), region(threats.box(low, high), (low + high) / 2)

    @jax.jit
    def found():
        state = analysed(program, at, refine)
        known = {slot: state.values[slot] for slot in program.perturbed if slot in state.values}
        return known, margins(program, state, at, Y)

    return program, *found()


def test_unstable_rows_are_as_tight_as_textbook_ones(x64):
    """On the first map that is refined, where relu is loose; none is ever looser than interval arithmetic."""
    program, plain, _ = states(SHORT, intervals)
    _, textbook_ends, textbook_margins = states(SHORT, every())
    _, ours, ours_margins = states(SHORT, unstable())
    for slot in ours:
        assert np.all(ours[slot].lower >= plain[slot].lower - 1e-12), slot
        assert np.all(ours[slot].upper <= plain[slot].upper + 1e-12), slot
    slot = [e.inputs[0] for e in program.equations if e.name == "max"][1]
    loose = (plain[slot].lower < 0) & (plain[slot].upper > 0)
    assert 0 < np.sum(loose) < loose.size
    assert np.all(ours[slot].lower[loose] >= textbook_ends[slot].lower[loose] - 1e-12)
    assert np.all(ours[slot].upper[loose] <= textbook_ends[slot].upper[loose] + 1e-12)
    assert np.any(ours[slot].upper[loose] < plain[slot].upper[loose] - 1e-3)
    assert np.mean(ours_margins) >= np.mean(textbook_margins) - 1e-12


@pytest.mark.parametrize(
    ("whole", "others"),
    [
        (unstable(lot=1000), [unstable(lot=7), unstable(lot=1, budget=1)]),
        (every(), [every(budget=200_000), every(budget=1)]),
    ],
    ids=["unstable", "every"],
)
def test_lots_and_budgets_change_nothing(whole, others, x64):
    """One row at a time, lots that do not divide the rows, a lot larger than the map."""
    _, _, expected = states(SHORT, whole)
    for other in others:
        np.testing.assert_allclose(states(SHORT, other)[2], expected, rtol=1e-9, atol=1e-9)


def smooth(x):
    z = jnp.tanh(conv(x, weight(1, 3, 3, 2, 3)))
    z = lax.reduce_window(z, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 1, 1), ((0, 0), (1, 1), (0, 0), (0, 0)))
    return logits(jnp.tanh(conv(z, weight(2, 2, 2, 3, 3), (1, 2))))[0]


def members(threat, x, number):
    """Of the sets around x [2, ...]: random ones, and where far points in the directions of signs and axes project."""
    keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(jax.random.key(1), i), 2))(jnp.arange(number))
    signs = jax.random.rademacher(jax.random.key(2), (number // 4, *x.shape), x.dtype)
    axes = jnp.eye(x[0].size, dtype=x.dtype).reshape(-1, 1, *x.shape[1:]) * jnp.ones_like(x)
    directions = jnp.concatenate([signs, axes, -axes])
    corners = jax.vmap(lambda d: threat.project(x, x + 9 * d))(directions)
    return jnp.concatenate([jax.vmap(lambda k: threat.sample(x, k))(keys), corners])


def least_seen(net, points, y):
    """The least margins [B, K] over points [N, B, ...]."""
    found = jax.lax.map(net, points, batch_size=64)
    return jnp.min(jnp.take_along_axis(found, jnp.broadcast_to(y[:, None], (len(found), 2, 1)), 2) - found, 0)


THREATS = {
    "linf": lambda x: threats.linf(0.05),
    "l2": lambda x: threats.l2(0.2),
    "l1": lambda x: threats.l1(0.5),
    "features": lambda x: threats.linf(jnp.linspace(0, 0.1, x[0].size, dtype=x.dtype).reshape(x.shape[1:])),
}


@pytest.mark.parametrize("kind", THREATS)
def test_no_member_is_below(kind):
    x = jax.random.uniform(jax.random.key(0), (2, *SMALL))
    threat = THREATS[kind](x)

    @jax.jit
    def both(x, y):
        return crown_margins(smooth, x, y, threat), least_seen(smooth, members(threat, x, 2000), y)

    lower, seen = both(x, jnp.asarray(Y))
    assert np.all(np.isfinite(lower)) and np.all(lower <= seen + 1e-5)
    assert np.any(lower != 0) and np.all(lower[np.arange(2), Y] == 0)


@pytest.mark.parametrize(
    ("threat", "dual"), [(threats.linf, 1), (threats.l2, 2), (threats.l1, np.inf)], ids=["linf", "l2", "l1"]
)
def test_linear_nets_are_exact(threat, dual, x64):
    """margin(x) - eps |w_y - w_k| in the dual norm."""
    w, x = weight(0, 6, 3), weight(1, 2, 6)
    ours = crown_margins(lambda x: x @ jnp.asarray(w), jnp.asarray(x), Y, threat(0.3, clip=None))
    rows = w.T[Y][:, None] - w.T
    hand = np.einsum("bkd,bd->bk", rows, x) - 0.3 * np.linalg.norm(rows, dual, 2)
    np.testing.assert_allclose(ours, hand, rtol=1e-7)


def test_rows_are_independent_and_traced_once():
    """A batch of one gives its row of a batch, whichever rows need more lots; other values compile nothing anew."""
    x = jax.random.uniform(jax.random.key(0), (3, *SMALL))
    x, y = x.at[1].set(0.5), jnp.array([0, 1, 2])

    @jax.jit
    @chex.assert_max_traces(n=1)
    def bounds(x, y, eps):
        return crown_margins(chained(SHORT), x, y, threats.linf(eps), unstable(lot=5))

    rows = jnp.concatenate([bounds(x[i : i + 1], y[i : i + 1], 0.05) for i in range(3)])
    chex.clear_trace_counter()
    whole = jax.jit(lambda *args: crown_margins(chained(SHORT), *args[:2], threats.linf(args[2]), unstable(lot=5)))
    np.testing.assert_allclose(whole(x, y, 0.05), rows, rtol=1e-5, atol=1e-5)


def test_gradient_of_crown_ibp(x64):
    """With respect to every parameter, by central differences along random directions; strides, pools and relu."""
    x = jax.random.uniform(jax.random.key(0), (2, *SMALL))
    w = [jnp.asarray(weight(i, *shape)) for i, shape in enumerate([(3, 2, 2, 3), (2, 3, 3, 2), (2, 2, 2, 2), (4,)])]

    def value(w):
        stages = [
            lambda x: (conv(x, w[0], (2, 1)) + w[3][0],),
            lambda x: (pooled(conv(x, w[1], (1, 2)), (2, 2), (1, 1), ((0, 0), (0, 0))) * w[3][1],),
            lambda x: (conv(x, w[2], padding=((2, 0), (1, 1)), dilation=(2, 1)) + w[3][2] * x[:, :1, :1],),
            lambda x: (logits(x)[0] * w[3][3],),
        ]
        return jnp.sum(jnp.tanh(crown_ibp_margins(chained(stages), x, jnp.asarray(Y), threats.linf(0.03))))

    value, gradient, step = jax.jit(value), jax.jit(jax.grad(value))(w), 1e-6
    for i, part in enumerate(w):
        direction = jnp.asarray(weight(20 + i, *part.shape))
        ends = [value([*w[:i], part + sign * step * direction, *w[i + 1 :]]) for sign in (1, -1)]
        slope = float(jnp.sum(gradient[i] * direction))
        assert abs(slope) > 1e-4
        np.testing.assert_allclose((ends[0] - ends[1]) / 2 / step, slope, rtol=1e-5)


@pytest.mark.parametrize("refine", [every(), unstable()], ids=["every", "unstable"])
def test_alpha_is_never_below_crown(refine, x64):
    net, steps = chained(SHORT), ascent(num_steps=6, learning_rate=0.25, decay=0.98)
    x = jax.random.uniform(jax.random.key(0), (2, *SMALL), float)
    threat = threats.linf(0.06)

    @jax.jit
    def bounds(x, y):
        args = net, x, y, threat
        return (
            crown_margins(*args, refine),
            alpha_margins(*args, steps=steps, refine=refine),
            joint_alpha_margins(*args, steps=steps, refine=refine),
            least_seen(net, members(threat, x, 1000), y),
        )

    plain, alpha, joint, seen = bounds(x, jnp.asarray(Y))
    assert np.all(alpha >= plain - 1e-12) and np.mean(alpha) > np.mean(plain) + 1e-3
    assert np.all(joint >= plain - 1e-12) and np.mean(joint) > np.mean(plain) + 1e-3
    assert np.all(alpha <= seen) and np.all(joint <= seen)
