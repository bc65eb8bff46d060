"""What a call in JAX's intermediate representation consists of, beyond its name (jax 0.10 to 0.12).

Equations and jaxprs are `Any`: their types are internals of JAX.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax

CALLS = frozenset(
    """jit pjit closed_call core_call remat remat2 checkpoint custom_jvp_call custom_vjp_call
    custom_vjp_call_jaxpr""".split()
)
PRODUCTS = ("dot_general", "conv_general_dilated")
HIGHEST = (jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)
_BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")


def body(eqn: Any) -> Any:
    """The jaxpr that a call runs."""
    return next(eqn.params[key] for key in _BODIES if key in eqn.params)


def recognised(eqn: Any, whole: tuple[tuple[str, Callable], ...]) -> tuple[str, Callable] | None:
    """The entry of `whole` whose function has exactly the body of this call, traced at the same types.

    A name alone would let any function called `silu` pass for silu; equal equations without hidden constants cannot.
    """
    if not getattr(body(eqn), "consts", ()):
        for name, fn in whole:
            if eqn.params.get("name") == name and _same_body(eqn, fn):
                return name, fn
    return None


def _same_body(eqn, fn: Callable) -> bool:
    avals = (var.aval for var in eqn.invars)
    try:
        reference = jax.make_jaxpr(fn)(*(jax.ShapeDtypeStruct(a.shape, a.dtype, weak_type=a.weak_type) for a in avals))
    except (TypeError, ValueError):  # another number of arguments, or no such axis
        return False
    found = getattr(reference, "jaxpr", reference).eqns
    return len(found) == 1 and found[0].primitive.name in CALLS and str(body(found[0])) == str(body(eqn))


def only_product(eqn: Any) -> Any | None:
    """The product that a `custom_vjp` call consists of, of its own operands in their order; None for other calls."""
    if eqn.primitive.name.startswith("custom_vjp"):
        inner = getattr(body(eqn), "jaxpr", body(eqn))
        if len(inner.eqns) == 1 and not inner.constvars:
            (only,) = inner.eqns
            exact = only.params.get("precision") == HIGHEST  # what the call computes, its parameters cannot be changed
            if only.primitive.name in PRODUCTS and exact and _passes(inner, only):
                return only
    return None


def _passes(inner, only) -> bool:
    """Whether a jaxpr hands its inputs to its only equation, and that one's results back."""
    return _same(inner.invars, only.invars) and _same(inner.outvars, only.outvars)


def _same(these: Sequence, those: Sequence) -> bool:
    return len(these) == len(those) and all(a is b for a, b in zip(these, those, strict=True))
