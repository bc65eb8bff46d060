"""Randomized smoothing in the form of a certifier, for programs that are compiled as a whole."""

from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from robustgen.certify.smoothing.bounds import ABSTAIN, Level, certify, margin_lower
from robustgen.certify.smoothing.votes import Votes, count, plan
from robustgen.core import FALSIFIED, UNKNOWN, VERIFIED, Array, Certificate, Certifier, Key, LogitsFn
from robustgen.knobs import Count, NonNegative, Positive, checked
from robustgen.spread import example_keys


class SmoothedCertifier(Certifier, Protocol):
    """A `Certifier` whose certificates are about the smoothed classifier g and not about `logits_fn` itself.

    So they contradict no attack on `logits_fn`: columns of both must not be held against each other.
    """

    def __call__(self, logits_fn: LogitsFn, x: Array, y: Array, key: Key) -> Certificate: ...


@checked
def smoothing(
    *, eps: NonNegative, sigma: Positive, num_selection: Count, num_samples: Count, alpha: Level, batch_size: Count
) -> SmoothedCertifier:
    """CERTIFY of Cohen et al. 2019 (arXiv 1902.02918) in the L2 ball of radius `eps` around x, without a box.

    Each certificate fails with probability at most `alpha`. Sampling is compiled, in forward passes of `batch_size`
    rows; the bounds are Clopper and Pearson's in float64 on the host (a `pure_callback`), and what comes back to the
    device in float32 is rounded towards zero, or downward.

    VERIFIED where g is `y` on the whole ball; FALSIFIED where g is another class at x (`x_adv` = x); UNKNOWN where the
    ball is too large or the votes do not decide. `radius` [B] is that of y, 0 where g was not found to be y at x.
    margin_lower [B] bounds the margin of g's class probabilities over the ball, -1 where another class was selected.
    Knobs are numbers here, never tracers. For whole data sets use `sample`, which resumes and spreads over devices.
    """
    drawn = plan(sigma=sigma, num_selection=num_selection, num_samples=num_samples)

    def judge(selection: np.ndarray, estimation: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, ...]:
        votes, y = Votes(np.asarray(selection), np.asarray(estimation)), np.asarray(y)
        found = certify(votes, drawn, alpha=alpha)
        selected = votes.selection.argmax(-1) == y
        margin = np.where(selected, margin_lower(found.p_lower, eps, sigma), -1.0)
        falsified = (found.prediction != ABSTAIN) & ~selected
        status = np.where(falsified, FALSIFIED, np.where(margin > 0, VERIFIED, UNKNOWN))
        radius = np.where(selected, found.radius, 0.0)
        return status.astype(np.int32), _round_down(margin), _round_down(radius)

    def certifier(logits_fn: LogitsFn, x: Array, y: Array, key: Key) -> Certificate:
        def votes_of(example: tuple[Array, Key]) -> Votes:
            return count(logits_fn, *example, drawn, start=0, stop=drawn.total, batch_size=batch_size)

        votes = jax.lax.map(votes_of, (x, example_keys(key, x.shape[0])))
        shapes = [jax.ShapeDtypeStruct(y.shape, dtype) for dtype in (jnp.int32, jnp.float32, jnp.float32)]
        status, margin, radius = jax.pure_callback(judge, shapes, *votes, y, vmap_method="broadcast_all")
        return Certificate(status, margin, radius, x_adv=x)

    return certifier


def _round_down(values: np.ndarray) -> np.ndarray:
    """The largest float32 not above each value."""
    rounded = values.astype(np.float32)
    return np.where(rounded > values, np.nextafter(rounded, np.float32(-np.inf)), rounded)
