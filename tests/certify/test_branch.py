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
    """The second layer around a skip connection."""
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

    def at(layer, part):
        return first[layer + 1] + part * sizes[layer] + np.arange(sizes[layer])

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
        least, most = middle - radius - 1, middle + radius + 1
        constrain(eye[a] - eye[z], 0, np.inf)
        constrain(eye[a] - eye[z] - least[:, None] * eye[d], -np.inf, -least)
        constrain(eye[a] - np.maximum(most, 0)[:, None] * eye[d], -np.inf, 0)
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


def rounded(weights):
    """What float32 holds exactly."""
    return jax.tree.map(lambda a: a.astype(np.float32).astype(np.float64), weights)


def as_function(apply, weights):
    return jax.tree_util.Partial(apply, jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), weights))


@pytest.mark.parametrize(("apply", "num_rows", "nets"), [(mlp, 1, 160), (residual, 2, 40)])
def test_equals_mixed_integer_programs(apply, num_rows, nets, key):
    """200 networks, a claim about each asked just true and just false, without any attack but the search's own."""
    for seed in range(nets):
        weights = rounded(random_net(seed))
        claims, exact = random_claims(weights, apply is residual, seed, 1, num_rows)
        fn, shift = as_function(apply, weights), np.array([1e-3, -1e-3])[:, None]
        both = claims.rows(np.array([0, 0]))
        asked = both._replace(b=both.b + exact - shift, group=np.arange(2))
        found = settle(proving(NEURONS), fn, asked, timeout=100, key=key)
        assert found.status == [Status.PROVED, Status.REFUTED], (seed, found)
        assert found.lower[0] <= shift[0] + 1e-5
        confirm(fn, asked, found)


def confirm(fn, asked, found):
    """Every counterexample is one, whoever looks."""
    for n, example in found.found.items():
        for dtype, x64 in ((jnp.float32, False), (jnp.float64, True)):
            with jax.enable_x64(x64):
                values = asked.A[n] @ np.asarray(fn(jnp.asarray(example.x, dtype)[None])[0], np.float64)
            assert np.all(values <= asked.b[n])
        assert np.all((example.x >= asked.lower[n]) & (example.x <= asked.upper[n]))


@pytest.fixture(scope="module")
def hard():
    """Claims of one net that take many rounds: their exact values and b just below."""
    weights = rounded(random_net(3))
    claims, exact = random_claims(weights, False, 3, 6, 1)
    return as_function(mlp, weights), claims._replace(b=claims.b + exact[:, None] - 1e-3), exact


def test_input_halves_agree(hard, key):
    fn, claims, exact = hard
    found = settle(proving(HALVES), fn, claims, timeout=100, key=key)
    assert found.status == [Status.PROVED] * 6
    false = claims._replace(b=claims.b + 2e-3)
    found = settle(proving(HALVES), fn, false, timeout=100, key=key)
    assert found.status == [Status.REFUTED] * 6
    confirm(fn, false, found)


def test_nothing_is_proved_at_equality(hard, key):
    """Where the least value is the threshold itself, neither answer is right in floating point unless confirmed."""
    fn, claims, exact = hard
    asked = claims._replace(b=exact[:, None])
    found = settle(proving(NEURONS), fn, asked, timeout=100, key=key)
    assert Status.PROVED not in found.status
    confirm(fn, asked, found)


def test_a_group_ends_with_its_first_counterexample(hard, key):
    fn, claims, _ = hard
    asked = claims._replace(b=claims.b + np.array([0, 0, 0, 5e-3, 0, 0])[:, None], group=np.array([0, 0, 0, 0, 1, 1]))
    found = settle(proving(NEURONS), fn, asked, timeout=100, key=key)
    assert set(found.found) == {3}
    assert found.status[3] is Status.REFUTED and found.status[4:] == [Status.PROVED] * 2


def test_out_of_time_is_open_and_goes_on_from_the_file(hard, key, tmp_path):
    fn, claims, _ = hard
    whole = settle(proving(NEURONS), fn, claims, timeout=100, key=key)
    state = tmp_path / "state.npz"
    rounds = 0

    def stop(progress):
        nonlocal rounds
        rounds += 1
        if progress.rounds % 2 == 0:
            raise KeyboardInterrupt

    for _ in range(whole.rounds):
        try:
            found = settle(proving(NEURONS), fn, claims, timeout=100, key=key, report=stop, state=state, save_every=0.0)
        except KeyboardInterrupt:
            assert state.exists()
            continue
        break
    assert found.status == whole.status == [Status.PROVED] * 6
    assert whole.rounds <= rounds <= whole.rounds + 3 and found.domains == whole.domains
    assert not state.exists()


def test_what_was_not_begun_is_begun_on_resuming(hard, key, tmp_path):
    """Time that ends between the roots of two sets, and a claim refuted before: neither is taken for proved."""
    fn, claims, _ = hard
    asked = claims._replace(b=claims.b + np.array([0, 0, 5e-3, 0, 0, 0])[:, None])
    state = tmp_path / "state.npz"
    found = settle(proving(NEURONS), fn, asked, timeout=0.02, key=key, state=state)
    assert Status.OPEN in found.status and state.exists()
    found = settle(proving(NEURONS), fn, asked, timeout=100, key=key, state=state)
    assert found.status == [Status.PROVED] * 2 + [Status.REFUTED] + [Status.PROVED] * 3


def test_no_time_is_no_answer(hard, key, tmp_path):
    fn, claims, _ = hard
    found = settle(proving(NEURONS), fn, claims, timeout=1e-9, key=key)
    assert found.status == [Status.OPEN] * 6 and np.all(found.lower == -np.inf)


def test_a_file_of_another_question_is_refused(hard, key, tmp_path):
    fn, claims, _ = hard
    state = tmp_path / "state.npz"

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        settle(proving(NEURONS), fn, claims, timeout=100, key=key, report=stop, state=state, save_every=0.0)
    with pytest.raises(ValueError, match="another question"):
        settle(proving(NEURONS), fn, claims._replace(b=claims.b - 1), timeout=100, key=key, state=state)


def test_little_memory_is_enough(hard, key):
    """Beyond it the search goes into depth; the answer is the same."""
    fn, claims, _ = hard
    found = settle(proving(NEURONS, memory=1.0, batch=16), fn, claims, timeout=100, key=key)
    assert found.status == [Status.PROVED] * 6


def test_nothing_is_compiled_anew_as_domains_come_and_go(hard, key):
    """Not for other numbers in the network, other claims, or more of them, either."""
    fn, claims, _ = hard
    method = neurons(BOX, between=STEPS, first=STEPS, each=STEPS, tilt_scale=1.0, num_candidates=3, lot=8)
    for net, some in (
        (fn, claims),
        (fn, claims.rows(np.arange(3))),
        (as_function(mlp, rounded(random_net(8))), claims),
    ):
        settle(proving(method), net, some, timeout=100, key=key)
    assert [f._cache_size() for f in method] == [1, 1, 1]


def test_the_attack_alone_refutes(hard, key):
    fn, claims, exact = hard
    false = claims._replace(b=exact[:, None] + 0.05)
    found = settle(proving(NEURONS, num_restarts=20), fn, false, timeout=100, key=key)
    assert found.status == [Status.REFUTED] * 6 and found.domains == 0
    confirm(fn, false, found)
