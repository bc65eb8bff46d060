"""What a way to split is: three compiled functions over batches of claims and domains."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from robustgen.certify.branch.bounding import Model
from robustgen.certify.branch.domains import Claims, Domains, Round
from robustgen.certify.state import State
from robustgen.core import Array, LogitsFn


class Method(NamedTuple):
    """A way to split. All functions are compiled, once for each network's shape and each size of their batch.

    between(fn, claims) -> (lower, upper) of what is split, by slot, [N, *shape]: the same for all claims on one set
    root(fn, claims, lower, upper) -> Round of one domain for each claim
    step(fn, claims, domains, slack [N]) -> Round of two domains each; ascents end once all bounds are above the slack

    fn [B, *shape] -> [B, K] is a pytree that can be called, such as a `Net` or a `jax.tree_util.Partial`: its leaves
    may change without anything compiled anew.
    """

    between: Callable[[LogitsFn, Claims], tuple[dict, dict]]
    root: Callable[[LogitsFn, Claims, dict, dict], Round]
    step: Callable[[LogitsFn, Claims, Domains, Array], Round]


def magnitude(model: Model, state: State) -> Array:
    """How large the outputs may be [N, K], by the intervals of a state."""
    output = state.values[model.program.output]
    return jnp.maximum(jnp.abs(output.lower), jnp.abs(output.upper))


def violation(fn: LogitsFn, claims: Claims, x: Array) -> Array:
    """The largest row [N] of A fn(x) - b: not positive where x refutes its claim."""
    return jnp.max(jnp.einsum("brk,bk->br", claims.A, fn(x), precision="highest") - claims.b, 1)


def in_float64(fn: LogitsFn) -> LogitsFn:
    """The function with its numbers in float64; to be used while x64 is enabled."""
    return jax.tree.map(
        lambda a: jnp.asarray(a, jnp.float64) if jnp.issubdtype(jnp.result_type(a), jnp.floating) else a, fn
    )
