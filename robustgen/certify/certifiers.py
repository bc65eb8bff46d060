"""Certifiers made of linear bounds: CROWN, CROWN-IBP, alpha-CROWN.

Status of the arithmetic: the bounds of real arithmetic, evaluated in the network's own precision with matrix products
at the highest one. Margins are lowered by a little more than the rounding usually seen, which is no proof about
rounding; `sound` has certifiers that prove it.
"""

from collections.abc import Callable

import jax.numpy as jnp

from robustgen.certify.alpha import alpha_margins, ascent
from robustgen.certify.crown import crown_ibp_margins, crown_margins
from robustgen.certify.state import Refine
from robustgen.core import FALSIFIED, UNKNOWN, VERIFIED, Array, Certificate, Certifier, Key, LogitsFn, Threat
from robustgen.knobs import Count, Positive, checked

Margins = Callable[[LogitsFn, Array, Array], Array]
"""(logits_fn, x [B, ...], y [B]) -> lower bounds [B, K] of logit_y - logit_k, whatever at k = y."""


@checked
def crown(threat: Threat, *, refine: Refine | None = None) -> Certifier:
    """Certifies by CROWN (Zhang et al. 2018, arXiv 1811.00866): a backward pass for each neuron that needs one.

    `refine` gives the bounds of the values between: `unstable` (default) or `every`, of `certify.crown`. Status as of
    `ibp`; the threat may be of any norm, in which linear bounds are then concretized exactly.
    """
    return _certifier(threat, lambda logits_fn, x, y: crown_margins(logits_fn, x, y, threat, refine))


@checked
def crown_ibp(threat: Threat) -> Certifier:
    """Certifies by one backward pass over interval bounds (CROWN-IBP, Zhang et al. 2020, arXiv 1906.06316).

    Costs little more than `ibp`, and is the tighter of the two on most nets, though not on each example.
    """
    return _certifier(threat, lambda logits_fn, x, y: crown_ibp_margins(logits_fn, x, y, threat))


@checked
def alpha_crown(
    threat: Threat, *, num_steps: Count, learning_rate: Positive, decay: Positive, refine: Refine | None = None
) -> Certifier:
    """Certifies by CROWN with slopes found by `num_steps` of Adam (alpha-CROWN, Xu et al. 2021, arXiv 2011.13824).

    The bounds of the values between are those of `crown` and stay fixed; never less is certified than by `crown`.
    Published: 20 steps, rate 0.5, which decays by 0.98 a step. Ends early once all examples of a batch are certified.
    """
    steps = ascent(num_steps=num_steps, learning_rate=learning_rate, decay=decay, enough=_ENOUGH)

    def margins(logits_fn: LogitsFn, x: Array, y: Array) -> Array:
        return alpha_margins(logits_fn, x, y, threat, steps=steps, refine=refine)

    return _certifier(threat, margins)


_ENOUGH = 1e-3
"""A margin that no rounding takes away: what has it is certified, and gains nothing from further steps."""


def _certifier(threat: Threat, margins: Margins) -> Certifier:
    def certify(logits_fn: LogitsFn, x: Array, y: Array, key: Key) -> Certificate:
        del key
        x_adv = threat.project(x, x)
        logits = logits_fn(x_adv)
        found = margins(logits_fn, x, y)
        slack = 16 * jnp.finfo(found.dtype).eps * (jnp.abs(found) + jnp.max(jnp.abs(logits), 1, keepdims=True))
        others = jnp.arange(found.shape[1]) != y[:, None]
        return certificate(jnp.min(jnp.where(others, found - slack, jnp.inf), 1), logits, x_adv, y)

    return certify


def certificate(margin_lower: Array, logits: Array, x_adv: Array, y: Array) -> Certificate:
    """What bounds [B] prove, and what the logits [B, K] of members x_adv of the sets refute."""
    status = jnp.where(margin_lower > 0, VERIFIED, UNKNOWN)
    status = jnp.where(jnp.argmax(logits, 1) != y, FALSIFIED, status)
    return Certificate(status.astype(jnp.int32), margin_lower, x_adv=x_adv)
