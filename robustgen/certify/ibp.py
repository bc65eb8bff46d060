"""Interval bound propagation (Gowal et al. 2018, arXiv:1810.12715) for any JAX function.

Bounds are differentiable, and jit and vmap like the function itself; they cost about two forward passes. `eps` may be a
tracer, so certified accuracy at many radii is one `vmap` over the factory's `eps`.

Status of the arithmetic: the bounds of real arithmetic, evaluated in float32 with matrix products at the highest
precision. Margins are lowered by a little more than the rounding usually seen, which is no proof about rounding.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from robustgen.certify.affine import jacobian, last_segment
from robustgen.certify.interpreter import Rule, evaluate, trace
from robustgen.certify.rules import RULES, WHOLE
from robustgen.core import FALSIFIED, UNKNOWN, VERIFIED, Array, Certificate, Certifier, Interval, Key, LogitsFn, Threat
from robustgen.knobs import checked


def bound(fn: Callable[[Array], Array], x: Interval, rules: Mapping[str, Rule] = RULES) -> Interval:
    """Element-wise bounds of `fn` over the box `x`, of any shape, for any traceable `fn` of one array to one array.

    Raises `UnknownPrimitive`, naming it, where `fn` uses one that `rules` does not cover.
    """
    x = Interval(*map(jnp.asarray, x))
    program = trace(fn, x.lower, WHOLE)
    (result,) = evaluate(program, {program.input: x}, [program.output], rules)
    return result if isinstance(result, Interval) else Interval(result, result)


def margin_lower(
    logits_fn: LogitsFn, x: Array, y: Array, threat: Threat, rules: Mapping[str, Rule] = RULES
) -> Array:
    """Lower bound [B] of logit_y - max other logit over the threat set around x [B, ...], for labels y [B]."""
    margins = margins_lower(logits_fn, x, y, threat, rules)
    other = jnp.arange(margins.shape[1]) != y[:, None]
    return jnp.min(jnp.where(other, margins, jnp.inf), 1)


def margins_lower(
    logits_fn: LogitsFn, x: Array, y: Array, threat: Threat, rules: Mapping[str, Rule] = RULES
) -> Array:
    """Lower bounds [B, K] of logit_y - logit_k over the threat set; exactly 0 at k = y.

    The last affine layers are composed with these differences before bounds are taken (Gowal et al. 2018, section 3).
    Up to there the set is its box `threat.bounds`; a model that is affine altogether gets `threat.support`, which is
    exact for it. The model is traced for one example, so `logits_fn` must treat examples independently, as any
    evaluation-mode model does.
    """
    program = trace(lambda row: logits_fn(row[None])[0], jax.ShapeDtypeStruct(x.shape[1:], x.dtype), WHOLE)
    segment = last_segment(program)
    box = Interval(*threat.bounds(x))
    leaves = jax.vmap(lambda b: evaluate(program, {program.input: b}, segment.leaves, rules))(box)
    centres = [(leaf.lower + leaf.upper) / 2 for leaf in leaves]
    centre = jax.vmap(segment.apply, axis_size=x.shape[0])(centres)
    margins = jnp.take_along_axis(centre, y[:, None], 1) - centre
    size = jnp.abs(margins)
    for slot, leaf, middle, rows in zip(segment.leaves, leaves, centres, jacobian(segment, program), strict=True):
        differences = rows[y][:, None] - rows  # [B, K, *leaf]
        axes = tuple(range(2, differences.ndim))
        spread = jnp.sum(jnp.abs(differences) * (leaf.upper - leaf.lower)[:, None] / 2, axes)
        if slot == program.input:
            deepest = threat.support(-jnp.moveaxis(differences, 1, 0), x).T
            spread = jnp.minimum(spread, deepest + jnp.sum(differences * middle[:, None], axes))
        margins = margins - spread
        size = size + spread + jnp.sum(jnp.abs(differences * middle[:, None]), axes)
    slack = 8 * jnp.finfo(margins.dtype).eps * size
    return jnp.where(jnp.arange(margins.shape[1]) == y[:, None], 0.0, margins - slack)


@checked
def ibp(threat: Threat, rules: Mapping[str, Rule] = RULES) -> Certifier:
    """Certifies by interval bounds. Costs three forward passes: two for the bounds, one for the clean class.

    VERIFIED where the margin's lower bound is positive; FALSIFIED where the member of the set nearest to x (x itself,
    for a ball around it) is already of another class than y, with that point as `x_adv`; UNKNOWN elsewhere.
    """

    def certify(logits_fn: LogitsFn, x: Array, y: Array, key: Key) -> Certificate:
        del key
        margin = margin_lower(logits_fn, x, y, threat, rules)
        x_adv = threat.project(x, x)
        wrong = jnp.argmax(logits_fn(x_adv), 1) != y
        status = jnp.where(wrong, FALSIFIED, jnp.where(margin > 0, VERIFIED, UNKNOWN))
        return Certificate(status.astype(jnp.int32), margin, x_adv=x_adv)

    return certify
