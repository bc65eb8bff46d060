"""The binarization test: a model that is broken by construction, which an attack worth its name must break.

Zimmermann et al. 2022 (arXiv 2206.13991). For each example, a linear head on the model's features tells points inside
the set from one point on its rim, and lies so close to that point that nothing else near x passes for it. The point is
an adversarial example of (features, head); an attack that does not find one as good would not find others.

After `decision_boundary_binarization.py` at f5bb425, with points on the rim from corners (its
`sample_training_data_from_corners`), tight heads (`rescale_logits="tight"`), and inner points within 0.95 eps.
Deviations: heads are those of ridge regression, solved in float64, instead of logistic regression (with fewer points
than features both separate, and one solve does); heads that do not separate are left out, and counted. The logits are
the features where no others are given: ten classes leave room for few inner points, and then blind search succeeds
too, so that the test says less.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from robustgen.core import Array, Key, LogitsFn, Threat
from robustgen.evaluation.validity.finding import Finding

INNER, TIGHT, RANDOM_POINTS, PASSED = 0.95, 0.999, 200, 95.0
RIDGE = 1e-6


class Heads(NamedTuple):
    """For example i, score(z) = features(z) @ weight[i] + bias[i], positive beyond the rim's point: weight [N, F], bias
    [N]; `separates` [N]."""

    weight: Array
    bias: Array
    separates: np.ndarray


def points(inner: Threat, threat: Threat, x: Array, keys: Key, num_inner: int) -> tuple[Array, Array]:
    """x and num_inner - 1 members of `inner`, [num_inner, N, ...], and one point on the rim of `threat`, [N, ...]."""
    draw = jax.vmap(jax.random.fold_in, (0, None))
    inside = jax.lax.map(lambda i: inner.sample(x, draw(keys, i)), jnp.arange(1, num_inner))
    return jnp.concatenate([x[None], inside]), rim(threat, x, draw(keys, 0))


def rim(threat: Threat, x: Array, keys: Key) -> Array:
    """A random point as far out as the set reaches: a corner of a box, the surface of a ball."""
    lower, upper = threat.bounds(x)
    return threat.project(x, x + threat.ascend(threat.sample(x, keys) - x, jnp.max(upper - lower)))


def heads(inner: np.ndarray, outer: np.ndarray) -> Heads:
    """Of features inner [S, N, F] and outer [N, F]: score -1 at the first, 1 at the second, then moved to be tight."""
    features = np.concatenate([inner, outer[None]]).astype(np.float64).swapaxes(0, 1)
    middle = features.mean(1, keepdims=True)
    size = np.maximum(features.std((1, 2), keepdims=True), 1e-30)
    scaled = (features - middle) / size
    target = np.append(-np.ones(len(inner)), 1.0)
    weight = _ridge(scaled, target - target.mean()) / size[:, 0]
    scores = np.einsum("nsf,nf->ns", features, weight)
    highest, point = scores[:, :-1].max(1), scores[:, -1]
    threshold = highest + TIGHT * (point - highest)
    return Heads(jnp.asarray(weight, jnp.float32), jnp.asarray(-threshold, jnp.float32), point > highest + 1e-3)


def _ridge(features: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Weights [N, F] of features [N, S, F] for target [S], through the S x S system: S is small, F may not be."""
    kernel = features @ features.swapaxes(1, 2)
    slack = RIDGE * np.trace(kernel, axis1=1, axis2=2)[:, None, None] + 1e-30
    goal = np.broadcast_to(target[:, None], (*kernel.shape[:2], 1))
    dual = np.linalg.solve(kernel + slack * np.eye(features.shape[1]), goal)
    return (features.swapaxes(1, 2) @ dual)[..., 0]


def binarized(features_fn: LogitsFn, weight: Array, bias: Array) -> LogitsFn:
    """x [N, ...] -> logits [N, 2] of the heads, row i by head i: the model that an attack is to move into class 1."""

    def model(x: Array) -> Array:
        score = jnp.sum(features_fn(x).reshape(len(x), -1) * weight, axis=-1) + bias
        return jnp.stack([-score, score], axis=-1)

    return model


def success(separates: np.ndarray, found: np.ndarray, random: np.ndarray) -> Finding:
    """found, random [N]: whether the attack, and whether any of 200 random points, got into class 1."""
    kept = np.flatnonzero(separates)
    share, blind = (100 * np.mean(hits[kept]) if len(kept) else np.nan for hits in (found, random))
    failed = f"{len(separates) - len(kept)} of {len(separates)}"
    return Finding(
        "binarization test", not share >= PASSED, float(share), PASSED,
        "Percent of models with a known adversarial example, one for each example, that the attack breaks; flagged "
        "below the limit (chosen: an attack that works breaks all, but for accidents). 200 random points break "
        f"{blind:.0f} %; {failed} heads could not be made.",
        "The attack does not find what is certainly there: change it until it does, before it is believed where "
        "nothing is known.",
    )  # fmt: skip
