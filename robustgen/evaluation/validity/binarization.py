"""The binarization test: a model that is broken by construction, which an attack worth its name must break.

Zimmermann et al. 2022 (arXiv 2206.13991). For each example, a linear head on the model's features tells points inside
the set from one point on its rim, and lies so close to that point that nothing else near x passes for it. The point is
an adversarial example of (features, head); an attack that does not find one as good would not find others.

After `decision_boundary_binarization.py` at f5bb425, with points on the rim from corners (its
`sample_training_data_from_corners`), tight heads (`rescale_logits="tight"`), and inner points within 0.95 eps. These
should be more than there are features: with fewer, heads are arbitrary between them, and blind search succeeds as well.
Deviation: heads are those of ridge regression in float64 (the direction of linear
discriminant analysis) instead of logistic regression; heads that do not separate are left out, and counted. The logits
are the features where no others are given.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from robustgen.core import Array, Key, LogitsFn, Threat
from robustgen.evaluation.validity.finding import Finding

INNER, TIGHT, RANDOM_POINTS, PASSED = 0.95, 0.999, 200, 95.0
RIDGE = 1e-3
"""Share of the features' total variance below which a direction is damped. A head that rests on a unit which is dead
near x and alive on the rim asks for what no gradient tells: with 1e-6, PGD-50x3 broke 57 of 60 of an honest net's."""


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
    """Of features inner [S, N, F] and outer [N, F]: the mean inner point scores 2 less than the one on the rim."""
    weight, bias, separates = zip(*map(_head, inner.swapaxes(0, 1), outer), strict=True)
    return Heads(jnp.asarray(np.stack(weight), jnp.float32), jnp.asarray(bias, jnp.float32), np.array(separates))


def _head(inner: np.ndarray, outer: np.ndarray) -> tuple[np.ndarray, float, bool]:
    """Weight [F], bias, and whether it separates, for one example."""
    features = np.vstack([inner, outer]).astype(np.float64)
    scaled = features - features.mean(0)
    direction = _ridge(scaled / max(scaled.std(), 1e-30), np.append(np.zeros(len(inner)), 1.0))
    scores = scaled @ direction
    weight, scores = (2 * part / max(scores[-1] - scores[:-1].mean(), 1e-30) for part in (direction, scores))
    highest, point = scores[:-1].max(), scores[-1]
    threshold = highest + TIGHT * (point - highest) + features.mean(0) @ weight
    return weight, -threshold, bool(point > highest + 1e-3)


def _ridge(features: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Weights [F] of features [S, F] for target [S], by the smaller of the two systems."""
    count, size = features.shape
    slack = RIDGE * np.sum(features**2) + 1e-30
    if count < size:
        return features.T @ np.linalg.solve(features @ features.T + slack * np.eye(count), target)
    return np.linalg.solve(features.T @ features + slack * np.eye(size), features.T @ target)


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
