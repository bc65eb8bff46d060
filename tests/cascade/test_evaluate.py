"""A cascade against running every attack alone on everything, and against itself in other batches, orders, devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import attacks, threats
from robustgen.attacks import autoattack, norms
from robustgen.attacks.apgd import apgd, apgd_targeted
from robustgen.attacks.search import Cascade, Item, Search, Tried
from robustgen.attacks.starts import edge
from robustgen.cascade import CERTIFIED, STANDING, WRONG
from robustgen.cascade import evaluate as evaluate_on
from robustgen.cascade.journal import JournalError
from robustgen.certify import ibp
from robustgen.evaluation.columns import OutsideError
from robustgen.knobs import KnobError

EPS, N = 0.05, 90
THREAT = threats.linf(EPS)
START = edge(norms.linf.direction, EPS)


def evaluate(*args, width=32, devices=None, **knobs):
    """On one device, unless said otherwise: eight take eight times as long to fill."""
    return evaluate_on(*args, width=width, devices=devices or jax.devices()[:1], **knobs)


def weights(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape) / np.sqrt(shape[0]), jnp.float32)


W1, W2 = weights(1, 12, 24), 3 * weights(2, 24, 4)


def net(x):
    """An MLP of 12 features and 4 classes."""
    return jnp.tanh((x.reshape(len(x), -1) - 0.5) @ W1 * 8) @ W2


def cascade():
    """A weak search, and one with several runs an example."""
    first = apgd(
        THREAT, eps=EPS, start=START, objective=attacks.cross_entropy, name="apgd-ce", num_steps=1, num_restarts=1
    )
    second = apgd_targeted(THREAT, eps=EPS, start=START, name="apgd-t", num_steps=12, num_targets=9, num_restarts=2)
    return Cascade("AA", THREAT, (first, second))


CASCADE = cascade()


@pytest.fixture(scope="module")
def data():
    """x [N, 3, 4], and labels of which the net has some wrong."""
    random = np.random.default_rng(0)
    x = random.random((N, 3, 4), np.float32)
    y = np.array(net(x)).argmax(-1)
    y[::9] = (y[::9] + 1) % 4
    return x, y.astype(np.int32)


@pytest.fixture(scope="module")
def base(data):
    return evaluate(CASCADE, net, *data, seed=0)


def assert_same(found, base, rows=slice(None)):
    for name, column in base.columns.items():
        np.testing.assert_array_equal(found.columns[name], column[rows], err_msg=name)
    np.testing.assert_array_equal(found.x_adv, base.x_adv[rows])


def test_every_case_occurs_and_the_columns_agree(data, base):
    x, y = data
    found, broken_by = base.columns, base.columns["broken_by:AA"]
    assert {WRONG, STANDING, 0, 1} == set(broken_by)
    np.testing.assert_array_equal(broken_by == WRONG, ~found["clean"])
    np.testing.assert_array_equal(found["robust:AA"], broken_by == STANDING)
    broken = broken_by >= 0
    np.testing.assert_array_equal(np.asarray(net(base.x_adv)).argmax(-1) != y, broken | ~found["clean"])
    np.testing.assert_array_equal(found["margin:AA"] < 0, broken | ~found["clean"])
    np.testing.assert_array_equal(base.x_adv[~broken], x[~broken])
    assert np.all(found["iteration:AA"][broken] >= 1) and np.all(found["iteration:AA"][~broken] == -1)
    shift = base.x_adv.astype(np.float64) - x
    assert np.all(np.abs(shift) <= EPS) and base.x_adv.min() >= 0 and base.x_adv.max() <= 1
    np.testing.assert_array_equal(found["distance_linf:AA"], np.abs(shift).reshape(N, -1).max(-1))


def test_counts_are_those_of_runs_one_after_the_other(base):
    columns = base.columns
    standing = columns["broken_by:AA"] == STANDING
    assert set(columns["forwards:AA"][standing]) == {2 + 3 * 2 * 13}  # 3 wrong classes, 2 restarts
    first = columns["broken_by:AA"] == 0
    np.testing.assert_array_equal(columns["forwards:AA"][first], columns["iteration:AA"][first])
    assert base.spent[0] >= columns["forwards:AA"].sum() and base.spent[0] == base.spent[1]


def test_each_search_does_what_its_attack_does(data, base):
    """Nothing is lost by giving a slot up: an example stands exactly where no run of the plain attack breaks it."""
    x, y = data
    standing = base.columns["clean"]
    for search, stage in zip(CASCADE.searches, base.stages, strict=True):
        alone = evaluate(Cascade("AA", THREAT, (search,)), net, x, y, seed=0)
        np.testing.assert_array_equal(stage.broken[standing], alone.stages[0].broken[standing])
        standing = standing & ~stage.broken


@pytest.mark.parametrize("knobs", [{"batch_size": 7}, {"batch_size": 64}, {"stride": 5}])
def test_batches_and_strides_do_not_show(data, base, knobs):
    assert_same(evaluate(CASCADE, net, *data, seed=0, **knobs), base)


def test_order_and_neighbours_do_not_show(data, base):
    rows = np.random.default_rng(3).permutation(N)[:50]
    x, y = data
    assert_same(evaluate(CASCADE, net, x[rows], y[rows], seed=0, index=rows), base, rows)


def test_devices_do_not_show(data, base):
    assert len(jax.devices()) > 1
    assert_same(evaluate(CASCADE, net, *data, seed=0, devices=jax.devices()), base)


def test_nothing_compiles_again(data, base):
    x, y = data
    counted = []
    searches = tuple(s._replace(step=traced(s.step, counted)) for s in CASCADE.searches)
    evaluate(Cascade("AA", THREAT, searches), net, x, y, seed=0, batch_size=10)
    evaluate(Cascade("AA", THREAT, searches), net, x[:40], y[:40], seed=0, batch_size=10)
    assert len(counted) == len(searches)


def traced(step, counted):
    def counting(*args):
        counted.append(1)
        return step(*args)

    return counting


class Killed(Exception):
    pass


def test_stopped_anywhere_it_resumes_to_the_same(data, base, tmp_path):
    def stopper(after):
        calls = []

        def progress(*_):
            calls.append(1)
            if len(calls) == after:
                raise Killed

        return progress

    stops = 0
    while True:
        try:
            found = evaluate(
                CASCADE, net, *data, seed=0, journal=tmp_path / "j", progress=stopper(4), batch_size=50
            )
            break
        except Killed:
            stops += 1
    assert stops >= 2
    assert_same(found, base)
    again = evaluate(CASCADE, net, *data, seed=0, journal=tmp_path / "j")
    assert_same(again, base)
    assert again.spent == (0, 0)
    for other in ({"seed": 1}, {"seed": 0, "index": np.arange(N) + 1}):
        with pytest.raises(JournalError, match="another evaluation"):
            evaluate(CASCADE, net, *data, journal=tmp_path / "j", **other)
    with pytest.raises(JournalError, match="other net"):
        evaluate(CASCADE, lambda x: 1.01 * net(x), *data, seed=0, journal=tmp_path / "j")


def test_a_certifier_first_changes_no_answer_and_saves_work(data):
    x, y = data
    small = threats.linf(0.01)
    searches = tuple(
        apgd(small, eps=0.01, start=edge(norms.linf.direction, 0.01), objective=attacks.cross_entropy, name=name,
             num_steps=5, num_restarts=1) for name in "ab"
    )  # fmt: skip
    alone = evaluate(Cascade("AA", small, searches), net, x, y, seed=0)
    helped = evaluate(Cascade("AA", small, searches), net, x, y, seed=0, certifier=ibp(small))
    np.testing.assert_array_equal(helped.columns["robust:AA"], alone.columns["robust:AA"])
    verified = helped.columns["broken_by:AA"] == CERTIFIED
    assert verified.sum() > 20 and np.all(helped.columns["forwards:AA"][verified] == 0)
    assert helped.spent[0] < alone.spent[0]


def test_all_wrong_and_all_broken_and_one_example(data):
    x, y = data
    wrong = evaluate(CASCADE, net, x, (y + 2) % 4, seed=0)
    assert wrong.columns["robust:AA"].sum() <= (np.asarray(net(x)).argmax(-1) == (y + 2) % 4).sum()
    hopeless = evaluate(CASCADE, lambda z: jnp.where(jnp.arange(4) == 0, 1.0, 0.0) + 0 * net(z), x, y * 0 + 1, seed=0)
    assert not hopeless.columns["clean"].any() and hopeless.spent == (0, 0)
    one = evaluate(CASCADE, net, x[:1], y[:1], seed=0)
    assert one.columns["robust:AA"].shape == (1,)


def test_a_find_that_a_plain_forward_does_not_confirm_is_no_find(data):
    """A search whose own logits lie is not believed, and its run goes on to the end."""
    x, y = data

    def lying(net, item, t, memory):
        return memory, Tried(item.x, -net(item.x), jnp.ones(len(item.y), bool))

    liar = Search("liar", {}, lambda item: jnp.zeros(len(item.y)), lying, 4, 0, 1, 1, 0)
    found = evaluate(Cascade("AA", THREAT, (liar,)), net, x, y, seed=0)
    np.testing.assert_array_equal(found.columns["robust:AA"], found.columns["clean"])
    assert found.spent[0] == 4 * found.columns["clean"].sum()


def test_a_screen_is_seen_by_the_searches_and_believed_by_nobody(data, base):
    x, y = data
    same = evaluate(CASCADE, net, x, y, seed=0, screen=net)
    assert_same(same, base)
    coarse = evaluate(CASCADE, net, x, y, seed=0, screen=lambda z: net(z.astype(jnp.bfloat16)).astype(jnp.float32))
    broken = coarse.columns["broken_by:AA"] >= 0
    assert broken.sum() > 10 and np.all(np.asarray(net(coarse.x_adv)).argmax(-1)[broken] != y[broken])
    blind = evaluate(CASCADE, net, x, y, seed=0, screen=lambda z: -net(z))
    np.testing.assert_array_equal(np.asarray(net(blind.x_adv)).argmax(-1) == y, blind.columns["robust:AA"])


def test_votes_of_a_randomised_net(data):
    """Draws [B, S, K] count as one answer; keys go by x, so that the place in a batch does not show."""
    x, y = data
    noisy = attacks.eot(lambda z, keys: net(z) + jax.vmap(lambda k: jax.random.normal(k, (4,)))(keys), num_samples=4,
                        key=jax.random.key(1))  # fmt: skip
    whole = autoattack.rand(autoattack.LINF, eps=EPS)
    short = whole._replace(searches=tuple(s._replace(num_steps=5) for s in whole.searches))
    found = evaluate(short, noisy, x, y, seed=0)
    rows = np.arange(N)[::-1]
    assert_same(evaluate(short, noisy, x[rows], y[rows], seed=0, index=rows), found, rows)
    assert 0 < found.columns["robust:AutoAttack-rand"].sum() < found.columns["clean"].sum()


def test_a_search_that_leaves_the_set_is_an_error(data):
    def outside(net, item: Item, t, memory):
        moved = item.x + 2 * EPS * jnp.sign(jax.grad(lambda z: jnp.sum(attacks.cross_entropy(net(z), item.y)))(item.x))
        return memory, Tried(moved, net(moved), jnp.ones(len(item.y), bool))

    search = Search("outside", {}, lambda item: jnp.zeros(len(item.y)), outside, 1, 0, 1, 1, 1)
    with pytest.raises(OutsideError, match="left the threat set"):
        evaluate(Cascade("AA", THREAT, (search,)), net, *data, seed=0)


def test_what_cannot_be_run_is_refused(data):
    x, y = data
    wrong = ({"width": 33}, "multiple of 32"), ({"batch_size": 0}, "batch_size"), ({"seed": -1}, "seed")
    for knobs, message in wrong:
        with pytest.raises(KnobError, match=message):
            evaluate(CASCADE, net, x, y, **{"seed": 0, **knobs})
    with pytest.raises(KnobError, match="at least one"):
        evaluate(CASCADE, net, x[:0], y[:0], seed=0)


@pytest.mark.parametrize("num_classes", [2, 3, 4, 5, 10, 100])
def test_autoattack_for_any_number_of_classes(num_classes):
    """Shortened: the same searches with few steps."""
    matrix = weights(5, 6, num_classes)
    x = np.random.default_rng(1).uniform(-1, 1, (5, 2, 3, 1)).astype(np.float32)
    y = np.asarray(x.reshape(5, -1) @ matrix).argmax(-1)
    whole = autoattack.standard(autoattack.LINF, eps=0.3, clip=(-1.0, 1.0))
    short = whole._replace(searches=tuple(s._replace(num_steps=3) for s in whole.searches))
    found = evaluate(short, lambda z: z.reshape(len(z), -1) @ matrix, x, y, seed=0)
    assert found.columns["clean"].all() and np.isfinite(found.columns["margin:AutoAttack"]).all()
    assert np.abs(found.x_adv).max() <= 1
