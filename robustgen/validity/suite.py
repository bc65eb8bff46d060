"""All checks on one model and one attack.

    evaluated = thorough(eps=0.1, num_steps=50, num_targets=3)
    for finding in validity(net, x[:100], y[:100], threat_at=threats.linf, eps=0.1, evaluated=evaluated, ...): ...
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from robustgen.attacks.objectives import cross_entropy
from robustgen.attacks.pgd import fgsm
from robustgen.core import Array, Attack, Key, LogitsFn, Net, Threat
from robustgen.evaluation.validity import checklist, failures, inputs, outputs
from robustgen.evaluation.validity.finding import Finding
from robustgen.knobs import Count, Positive, checked
from robustgen.validity import probe
from robustgen.validity.binary import binarization_test
from robustgen.validity.evaluated import AttackAt, Evaluated
from robustgen.validity.trace import tracer

REACHES = 1e-5
"""How near to the far corner of the box a set must come to count as unbounded."""


@checked
def validity(
    net: LogitsFn,
    x: np.ndarray,
    y: np.ndarray,
    *,
    threat_at: Callable[[Array], Threat],
    eps: Positive,
    evaluated: Evaluated,
    black_box_at: AttackAt | None,
    num_inner: Count,
    key: Key,
    features_fn: LogitsFn | None = None,
    judged: LogitsFn | None = None,
) -> list[Finding]:
    """Findings on `net` and the attack that its robust accuracy at `eps` rests on; some 50 to 100 examples do.

    Args:
      net: a `Net`, or a function of x. One with a state of its own (random numbers) is asked outside of jit, too.
      x, y: [N, ...] float, [N] int, as the evaluation has them.
      threat_at: the threat set at a radius, which may be traced (`threats.linf`).
      black_box_at: an attack without gradients (`square_at`); None leaves its finding out.
      num_inner: inner points of the binarization test, for one head: more than there are features.
      features_fn: what the binarization test puts its heads on, the last but one layer, say; default: the logits.
      judged: the model that is reported on, where the attacked one stands in for it (a surrogate, a frozen draw).
    """
    net = net if isinstance(net, Net) else jax.tree_util.Partial(net)  # a bare function is no pytree
    examples = _examples(threat_at, eps, x, y)
    of_outputs, of_inputs = _outputs(net, examples), _inputs(net, examples, threat_at, eps)
    found, right = probe.gradients(net, examples), probe.right(net, examples.x, examples.y)
    of_gradients = _gradients(found, right)
    if found is None:  # nothing that needs a gradient can be run
        return [*of_outputs, *of_inputs, *of_gradients]
    keys = jax.random.split(key, 4)
    landscape = _landscape(net, examples, keys[0])
    attacked = _attacked(net, judged or net, examples, threat_at, eps, evaluated, black_box_at, keys[1], right)
    binary = binarization_test(
        jax.tree_util.Partial(features_fn) if features_fn else net, evaluated.attack_at, threat_at, eps, examples.x,
        keys[2], num_inner,
    )  # fmt: skip
    return [*of_outputs, *of_inputs, *of_gradients, *landscape, *attacked, binary]


def _examples(threat_at: Callable[[Array], Threat], eps: float, x: np.ndarray, y: np.ndarray) -> probe.Examples:
    x, y = np.asarray(x, np.float32), np.asarray(y, np.int32)
    lower, upper = map(np.asarray, jax.jit(lambda x: threat_at(jnp.float32(1e30)).bounds(x))(x))
    unlimited = np.max(upper - lower) > 1e20
    return probe.Examples(x, y, np.where(unlimited, -np.inf, lower), np.where(unlimited, np.inf, upper))


def _outputs(net: LogitsFn, examples: probe.Examples) -> list[Finding]:
    passes = probe.passes(net, examples.x)
    return [
        outputs.randomised(passes),
        outputs.batch_dependent(passes[0], probe.elsewhere(net, examples.x)),
        outputs.probabilities(passes[0]),
        outputs.few_classes(passes.shape[-1]),
    ]


def _inputs(net: LogitsFn, examples: probe.Examples, threat_at: Callable, eps: float) -> list[Finding]:
    x, y, lower, upper = examples
    clean = probe.right(net, x, y).mean()
    rescaled = {name: probe.right(net, scale(x), y).mean() for name, scale in inputs.RESCALINGS.items()}
    return [
        inputs.outside_box(x, lower, upper),
        inputs.radius_too_small(x, *map(np.asarray, threat_at(jnp.float32(eps)).bounds(x))),
        inputs.other_range(clean, rescaled),
    ]


def _gradients(found: dict[str, np.ndarray] | None, right: np.ndarray) -> list[Finding]:
    if found is None:
        return [failures.unavailable_gradients(None, right)]
    zero = [outputs.zero_gradients(name, found[name], right) for name in ("cross_entropy", "dlr")]
    return [*zero, failures.unavailable_gradients(found["margin"], right)]


def _landscape(net: LogitsFn, examples: probe.Examples, key: Key) -> list[Finding]:
    return [failures.wrong_gradients(*probe.slopes(net, examples, key))]


def _attacked(
    net: LogitsFn, judged: LogitsFn, examples: probe.Examples, threat_at: Callable, eps: float, evaluated: Evaluated,
    black_box_at: AttackAt | None, key: Key, clean: np.ndarray,
) -> list[Finding]:  # fmt: skip
    """Whoever is wrong at x stands against nothing."""
    x, y = examples.x, examples.y
    trace = tracer(evaluated.attack_at, threat_at)
    radii = [eps, 2 * eps, unbounded(threat_at, eps, examples)]
    keys = jax.random.split(key, 8)
    paths = [trace(net, x, y, radius, k) for radius, k in zip([*radii, eps], keys[:4], strict=True)]
    stands = [clean & (path.predicted == y) for path in paths]
    path, standing, again = paths[0], stands[0], stands[3]

    def run(attack_at: AttackAt, key: Key) -> np.ndarray:
        return clean & (_predicted(attack_at, threat_at, net, x, y, eps, key) == y)

    single = _predicted(_single_step, threat_at, net, x, y, eps, keys[4]) == y
    stronger, noise = run(evaluated.stronger_at, keys[5]), probe.noise(net, threat_at, eps, examples, keys[6])
    white = standing & again & stronger & single
    black = [] if black_box_at is None else [outputs.black_box_better(white, run(black_box_at, keys[7]))]
    return [
        failures.unstable_predictions(path.losses[0], noise.loss),
        *black,
        checklist.single_step_better(standing, single),
        checklist.label_leaks(clean, single),
        checklist.noise_better(standing, noise.right, noise.accuracy),
        checklist.stronger_better(standing, stronger),
        checklist.restart_better(standing, again),
        checklist.rising_with_eps(radii, [stand.mean() for stand in stands[:3]]),
        checklist.unbounded_stands(stands[2]),
        checklist.unrecorded(evaluated.settings),
        failures.silent_success(standing, path.hits),
        failures.incomplete_optimisation(standing, path.losses),
        failures.transfer_failure(path.predicted, probe.host(judged, path.x_adv).argmax(-1)),
    ]


def unbounded(threat_at: Callable[[Array], Threat], eps: float, examples: probe.Examples) -> float:
    """The first of eps, 2 eps, 4 eps, ... at which the set reaches the corner of the box that is farthest from x;
    without a box, 2^12 eps."""
    x, _, lower, upper = examples
    corner = np.where(x - lower > upper - x, lower, upper)
    if not np.all(np.isfinite(corner)):
        return 2**12 * eps
    missing = jax.jit(lambda radius: jnp.max(jnp.abs(threat_at(radius).project(x, corner) - corner)))
    reached = (radius for radius in eps * 2.0 ** np.arange(13) if missing(jnp.float32(radius)) <= REACHES)
    return next(reached, 2**12 * eps)


def _single_step(threat: Threat, eps: Array) -> Attack:
    return fgsm(threat, objective=cross_entropy, step_size=eps)


def _predicted(
    attack_at: AttackAt, threat_at: Callable, net: LogitsFn, x: Array, y: Array, eps: float, key: Key
) -> np.ndarray:
    """Classes at x_adv [N], -1 where a logit is not finite."""

    return np.asarray(_classes(attack_at, threat_at)(net, x, y, jnp.float32(eps), key))


@functools.lru_cache(maxsize=16)
def _classes(attack_at: AttackAt, threat_at: Callable[[Array], Threat]) -> Callable:
    @jax.jit
    def run(net: LogitsFn, x: Array, y: Array, eps: Array, key: Key) -> Array:
        logits = net(attack_at(threat_at(eps), eps)(net, x, y, key))
        return jnp.where(jnp.all(jnp.isfinite(logits), -1), jnp.argmax(logits, -1), -1)

    return run
