"""Branch and bound against mixed-integer programs, on networks small enough for those to be exact."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from robustgen import threats
from robustgen.certify.alpha import ascent
from robustgen.certify.branch.boxes import halves
from robustgen.certify.branch.domains import Claims
from robustgen.certify.branch.falsify import descents
from robustgen.certify.branch.neurons import neurons
from robustgen.certify.branch.prove import prover, settle
from robustgen.certify.branch.search import Status

BOX = threats.box(0.0, 1.0)
STEPS = ascent(num_steps=3, learning_rate=0.3, decay=0.98)
NEURONS = neurons(BOX, between=STEPS, first=STEPS, each=STEPS, tilt_scale=1.0, num_candidates=3, lot=8)
HALVES = halves(BOX, each=STEPS)
DESCEND = descents(BOX, num_steps=20, step_size=0.25)


def proving(method, *, num_restarts=0, batch=16, memory=1e8):
    return prover(BOX, method, DESCEND, batch=batch, num_restarts=num_restarts, memory=memory, rounding=2**-20)


def mlp(weights, x):
    for i, (w, b) in enumerate(weights):
        x = x @ w + b
        x = jax.nn.relu(x) if i + 1 < len(weights) else x
    return x


def residual(weights, x):
    """Two blocks, the second around a skip connection, and a difference of maxima behind them."""
    (w0, b0), (w1, b1), (w2, b2) = weights
    x = jax.nn.relu(x @ w0 + b0)
    x = jax.nn.relu(x + x @ w1 + b1)
    return x @ w2 + b2


def random_net(seed, sizes=(3, 6, 6, 3)):
    draw = np.random.default_rng(seed)
    return [(draw.normal(size=(n, m)) / n**0.5, 0.3 * draw.normal(size=m)) for n, m in itertools.pairwise(sizes)]


def least(weights, skip, rows, lower, upper):
    """min over the box of max over rows of A f(x), by a mixed-integer program: every ReLU with its big M.

    Variables: x, then (z, a, d) for each hidden layer: value before, value after, whether active; then t.
    """
    sizes = [len(b) for _, b in weights]
    first = np.cumsum([0, len(lower)] + [3 * n for n in sizes[:-1]])
    total = first[-1] + 1
    at = lambda layer, part: first[layer + 1] + part * sizes[layer] + np.arange(sizes[layer])
    low, high = np.full(total, -np.inf), np.full(total, np.inf)
    low[: len(lower)], high[: len(lower)] = lower, upper
    whole, held = np.zeros(total), []

    def constrain(rows, least, most):
        held.append(scipy.optimize.LinearConstraint(rows, least, most))

    columns, bounds = np.arange(len(lower)), (np.asarray(lower), np.asarray(upper))
    for layer, (w, b) in enumerate(weights[:-1]):
        matrix = w + np.eye(len(w)) if skip and layer == 1 else w
        middle, radius = (bounds[0] + bounds[1]) / 2 @ matrix + b, (bounds[1] - bounds[0]) / 2 @ np.abs(matrix)
        z, a, d = at(layer, 0), at(layer, 1), at(layer, 2)
        eye = np.eye(total)
        rows_z = eye[z].copy()
        rows_z[:, columns] -= matrix.T
        constrain(rows_z, b, b)
        l, u = middle - radius - 1, middle + radius + 1
        constrain(eye[a] - eye[z], 0, np.inf)
        constrain(eye[a] - eye[z] - l[:, None] * eye[d], -np.inf, -l)
        constrain(eye[a] - np.maximum(u, 0)[:, None] * eye[d], -np.inf, 0)
        low[a], low[d], high[d] = 0, 0, 1
        whole[d] = 1
        columns, bounds = a, (np.maximum(middle - radius, 0), np.maximum(middle + radius, 0))
    w, b = weights[-1]
    last = np.zeros((len(rows), total))
    last[:, columns] = rows @ w.T
    last[:, -1] = -1
    constrain(last, -np.inf, -rows @ b)
    found = scipy.optimize.milp(
        np.eye(total)[-1], constraints=held, bounds=scipy.optimize.Bounds(low, high), integrality=whole
    )
    assert found.status == 0
    return found.fun


def random_claims(weights, skip, seed, number, num_rows):
    """Claims whose exact least values are known; b is 0."""
    draw = np.random.default_rng(seed)
    centre = draw.uniform(0.2, 0.8, (number, 3)).astype(np.float32)
    radius = draw.uniform(0.05, 0.6, (number, 1)).astype(np.float32)
    A = draw.normal(size=(number, num_rows, 3)).astype(np.float32)
    lower, upper = centre - radius, centre + radius
    exact = np.array([least(weights, skip, *each) for each in zip(A, lower, upper, strict=True)])
    return Claims(centre, lower, upper, A, np.zeros((number, num_rows)), np.arange(number)), exact


def as_function(apply, weights):
    return jax.tree_util.Partial(apply, jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), weights))


@pytest.mark.parametrize(("apply", "num_rows", "seeds"), [(mlp, 1, range(14)), (mlp, 2, range(4)), (residual, 1, range(6))])
def test_equals_mixed_integer_programs(apply, num_rows, seeds, key):
    """240 claims, each just true and just false, without any attack but the search's own."""
    for seed in seeds:
        weights = jax.tree.map(lambda a: a.astype(np.float32).astype(np.float64), random_net(seed))
        claims, exact = random_claims(weights, apply is residual, seed, 10, num_rows)
        fn = as_function(apply, weights)
        for shift in (1e-3, -1e-3):
            asked = claims._replace(b=claims.b + exact[:, None] - shift)
            found = settle(proving(NEURONS), fn, asked, timeout=100, key=key)
            wanted = Status.PROVED if shift > 0 else Status.REFUTED
            assert found.status == [wanted] * 10, (seed, shift, found)
            assert np.all(found.lower[np.array(found.status) == Status.PROVED] <= shift + 1e-5)
            for n, example in found.found.items():
                values = asked.A[n] @ np.asarray(fn(jnp.asarray(example.x)[None])[0], np.float64)
                assert np.all(values <= asked.b[n])
                assert np.all((example.x >= asked.lower[n]) & (example.x <= asked.upper[n]))
