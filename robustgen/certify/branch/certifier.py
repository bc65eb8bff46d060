"""Branch and bound in the form of a certifier of classes, outside of `jax.jit`."""

from collections.abc import Callable

import jax
import numpy as np

from robustgen.certify.branch.domains import Claims
from robustgen.certify.branch.prove import Prover, settle
from robustgen.certify.branch.search import Settled, Status
from robustgen.core import FALSIFIED, UNKNOWN, VERIFIED, Array, Certificate, Key, LogitsFn
from robustgen.knobs import Positive, checked

HostCertifier = Callable[[LogitsFn, Array, Array, Key], Certificate]
"""As a `Certifier`, but it compiles parts of itself and decides between them: it cannot be traced."""


@checked
def branch_and_bound(asked: Prover, *, timeout: Positive) -> HostCertifier:
    """Certifies, completely if time allows, over the sets of the prover's threat.

    timeout: seconds for the whole batch, whose examples are searched together; what is open then is UNKNOWN. FALSIFIED
    comes with an x_adv that was confirmed in float32 and in float64. margin_lower is -inf where no bound was found.
    Raises TypeError for tracers.
    """

    def certify(logits_fn: LogitsFn, x: Array, y: Array, key: Key) -> Certificate:
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((logits_fn, x, y))):
            raise TypeError("branch_and_bound: decides on the host, between compiled parts; call it outside of jit")
        classes = jax.eval_shape(logits_fn, x).shape[1]
        claims = class_claims(asked, x, np.asarray(y), classes)
        found = settle(asked, logits_fn, claims, timeout=timeout, key=key)
        return _certificate(found, claims, x, y)

    return certify


def class_claims(asked: Prover, x: Array, y: np.ndarray, classes: int) -> Claims:
    """For each example, one claim for each other class: that logit_y is above it on the whole set."""
    example = np.repeat(np.arange(len(y)), classes - 1)
    other = np.concatenate([np.delete(np.arange(classes), label) for label in y])
    A = (np.eye(classes)[y[example]] - np.eye(classes)[other])[:, None]
    lower, upper = (np.asarray(end)[example] for end in asked.threat.bounds(x))
    return Claims(np.asarray(x)[example], lower, upper, A, np.zeros((len(example), 1)), example)


def _certificate(found: Settled, claims: Claims, x: Array, y: Array) -> Certificate:
    status, margin = np.full(len(y), UNKNOWN, np.int32), np.full(len(y), -np.inf, np.float32)
    x_adv = np.array(x)
    for i in range(len(y)):
        own = np.flatnonzero(claims.group == i)
        margin[i] = found.lower[own].min()
        if all(found.status[n] is Status.PROVED for n in own):
            status[i] = VERIFIED
        for n in own:
            if n in found.found:
                status[i], x_adv[i] = FALSIFIED, found.found[n].x
    return Certificate(status, margin, x_adv=x_adv)
