"""Certificates that hold for the float32 network as it is executed, not only for the one of real arithmetic.

Each equation of the network gives, when executed, its exact function of the numbers that it is handed, and an error of
which `rounding` knows the size: v = f(operands) + e, |e| <= E. Bounds of that perturbed network, whatever the errors,
are bounds of every execution: in any order of summation, fused or not; and of real arithmetic, where all e are 0. So

- intervals are widened by E at each slot, before anything is made of them;
- linear relations are carried back through f exactly, and pay |coefficient| E at each slot (`backward.Sides.slack`);
- the rows are logit_y - logit_k of the executed logits, so a positive bound means that argmax is y.

The bounds are computed in float64, from the same constants. What that loses, too, is taken off, by this argument. A row
that is carried back is a chain of sums, each rounded by at most m 2^-53 of the sum of its terms' absolute values, m the
number of terms; times the largest operand, that is at most m 2^-53 |coefficient| S, where S ("size") is the sum of the
absolute values of the terms of an entry of f. Likewise for offsets and for the final sum over the set. So NOISE * S =
2^-32 S is added to every E (m <= 2^20, with a factor to spare), and 2^-32 of their terms to every plane; E itself is
taken 2^-20 larger than computed. Constants that the network computes itself (a batch norm's factor) are executed in
float32, too: they have a doubt, by the same rules, and operands in doubt add to E.

The threat set is all float32 points, and all real ones, of the real set; it is widened by 2^-21 of its size, which
covers how its box was rounded. A certificate says nothing of networks that a compiler has changed in value by more
than the model of `rounding`, nor of hardware that does not follow it.

Measured against plain CROWN (jax 0.12, 2 shared CPU cores): the 256x2 net of VNN-COMP loses 0.0024 of a margin in the
mean and certifies as many, 11 of 30, at 2.6 times the CPU time; a convolutional MNIST net (kw) loses 0.030 and
certifies as many, 96 of 100, at 3 times the CPU time.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from robustgen.certify.alpha import (
    Alphas,
    Ascent,
    ascended,
    ascent,
    clipped,
    first_alphas,
    middle,
    planes_at,
    relation,
)
from robustgen.certify.backward import Front, front
from robustgen.certify.certifiers import certificate
from robustgen.certify.crown import concretized, differences, intervals, margins, unstable, with_zero
from robustgen.certify.interpreter import Program, trace
from robustgen.certify.perturbed import defined, outward, rounded, widened
from robustgen.certify.precision import doubled
from robustgen.certify.rewrites import REWRITES
from robustgen.certify.rounding import COVERED
from robustgen.certify.rules import WHOLE
from robustgen.certify.state import Refine, Region, State, analysed, region
from robustgen.core import Array, Certificate, Certifier, Interval, Key, LogitsFn, Threat
from robustgen.knobs import Count, Positive, checked

_EXACT = frozenset("mul div clamp reduce_window_max reduce_window_min dot_general conv_general_dilated".split())
"""Rewrites whose parts' errors cover those of what they stand for."""


@checked
def sound_crown(threat: Threat, *, refine: Refine | None = None) -> Certifier:
    """`crown` for the float32 network as it is executed: rounding is accounted for."""
    return _certifier(threat, lambda logits_fn, x, y: sound_margins(logits_fn, x, y, threat, refine))


@checked
def sound_crown_ibp(threat: Threat) -> Certifier:
    """`crown_ibp` for the float32 network as it is executed."""
    return _certifier(threat, lambda logits_fn, x, y: sound_margins(logits_fn, x, y, threat, intervals))


@checked
def sound_alpha_crown(
    threat: Threat, *, num_steps: Count, learning_rate: Positive, decay: Positive, refine: Refine | None = None
) -> Certifier:
    """`alpha_crown` for the float32 network as it is executed: slopes are found in float32, then checked in float64."""
    steps = ascent(num_steps=num_steps, learning_rate=learning_rate, decay=decay)
    return _certifier(threat, lambda logits_fn, x, y: sound_margins(logits_fn, x, y, threat, refine, steps))


def sound_margins(
    logits_fn: LogitsFn, x: Array, y: Array, threat: Threat, refine: Refine | None = None, steps: Ascent | None = None
) -> Array:
    """Lower bounds [B, K], float32, of logit_y - logit_k for executed logits and every member of the sets; 0 at k = y.

    `refine` as in `crown_margins`; `steps` of ascent for slopes, if any. Raises `UnknownPrimitive` for a primitive
    whose rounding has no bound, and `TypeError` where the network does not compute in float32.
    """
    if jax.default_backend() == "tpu":
        raise RuntimeError("the check needs IEEE float64; the backend is 'tpu', use that of a CPU (JAX_PLATFORMS=cpu)")
    refine = refine or unstable()
    program = executed(logits_fn, x)
    alphas = found_slopes(program, region(threat, x), y, refine, steps) if steps else None
    box = threat.bounds(x)
    with jax.enable_x64(True):
        program, at = doubled(program), widened(threat, x, Interval(*box))
        state = analysed(program, at, defined(refine), rounded())
        found = margins(program, state, at, y)
        if alphas is not None:
            found = jnp.maximum(found, _with_slopes(program, state, at, y, alphas))
        return _rounded_down(found)


def executed(logits_fn: LogitsFn, x: Array) -> Program:
    """What `logits_fn` does to one row, with no more rewritten than the errors of its parts cover."""
    whole = [(name, fn) for name, fn in WHOLE if name in COVERED]
    rewrites = {name: REWRITES[name] for name in _EXACT if name in REWRITES}
    return trace(lambda row: logits_fn(row[None])[0], jax.ShapeDtypeStruct(x.shape[1:], x.dtype), whole, rewrites)


def found_slopes(program: Program, at: Region, y: Array, refine: Refine, steps: Ascent) -> Alphas:
    """The alphas of the best bounds, in float32 and without errors."""
    state = analysed(program, at, refine)
    start = _rows(program, y)
    alphas = first_alphas(program, state, start.offset.shape[1])

    def bound(a: Alphas) -> Array:
        return concretized(relation(program, state, start, a), program, at)[..., 0]

    return ascended(bound, middle(alphas), clipped, steps, bound(alphas))[1]


def _with_slopes(program: Program, state: State, at: Region, y: Array, alphas: Alphas) -> Array:
    """Lower bounds [B, K] under given alphas, errors taken off.

    An alpha that the ascent left where it starts, at exactly 1/2, had no effect in float32. It may have one now, where
    an error makes both signs possible; then it is CROWN's own.
    """
    own = first_alphas(program, state, program.shapes[program.output].shape[0] - 1)
    alphas = jax.tree.map(lambda a, first: jnp.where(a == 0.5, first, jnp.clip(a, 0.0, 1.0)), alphas, own)
    planes = dict(state.planes)
    for number in alphas:
        found = planes_at(program, state, number, alphas[number])
        planes[number] = outward(program.equations[number], state, found)
    rows = relation(program, state._replace(planes=planes), _rows(program, y), {})
    return with_zero(concretized(rows, program, at)[..., 0], y)


def _rows(program: Program, y: Array) -> Front:
    classes = program.shapes[program.output].shape[0]
    return jax.vmap(lambda label: front({program.output: differences(label, classes)}))(y)


def _rounded_down(values: Array) -> Array:
    """The largest float32 numbers not above."""
    nearest = values.astype(jnp.float32)
    return jnp.where(nearest > values, jnp.nextafter(nearest, jnp.float32(-jnp.inf)), nearest)


def _certifier(threat: Threat, lower: Callable[[LogitsFn, Array, Array], Array]) -> Certifier:
    def certify(logits_fn: LogitsFn, x: Array, y: Array, key: Key) -> Certificate:
        del key
        x_adv = threat.project(x, x)
        found = lower(logits_fn, x, y)
        others = jnp.arange(found.shape[1]) != y[:, None]
        proved = certificate(jnp.min(jnp.where(others, found, jnp.inf), 1), logits_fn(x_adv), x_adv, y)
        return proved._replace(sound=jnp.ones(len(y), bool))

    return certify
