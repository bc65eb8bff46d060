"""Random pixel dropping and total-variation minimisation. Guo et al. 2018 (arXiv 1711.00117), section 4."""

import jax
import jax.numpy as jnp

from robustgen.core import Array, Key
from robustgen.defences.transforms import Transform
from robustgen.knobs import Count, Fraction, Positive, checked


@checked
def tv_minimisation(*, drop_rate: Fraction, weight: Positive, num_steps: Count) -> Transform:
    """The smoothest image that agrees with a random part of the pixels of x [B, H, W, C].

    Each pixel of each channel is dropped with probability `drop_rate`; what remains is completed by
    `minimise_tv(weight=weight)`. The paper takes drop_rate 0.5 and weight 0.03.

    It is differentiable almost everywhere, through all its steps, so the adaptive attack is `eot` alone; `bpda` with
    the identity besides `eot` is what Athalye et al. 2018 (arXiv 1802.00420, section 5.3) use, and is cheaper.
    """

    def smooth(x: Array, keys: Key) -> Array:
        kept = jax.vmap(lambda key, row: jax.random.bernoulli(key, 1.0 - drop_rate, row.shape))(keys, x)
        return minimise_tv(x, kept.astype(x.dtype), weight=weight, num_steps=num_steps)

    return smooth


def minimise_tv(x: Array, kept: Array, *, weight: float | Array, num_steps: int) -> Array:
    """Minimises `tv_objective` over z in [0, 1] by `num_steps` of the primal-dual method; z [B, H, W, C].

    Chambolle and Pock 2011 (algorithm 1, theta 1) from the mean of the kept pixels, steps 1 / sqrt(8) each, as the norm
    of the differences is at most sqrt(8). The paper has a split Bregman solver for the same end; its objective is
    convex, so that only the number of steps tells solvers apart. The box costs nothing: for x in [0, 1] a minimiser
    lies in it. What was dropped is never read.
    """
    step = 8**-0.5
    mean = jnp.sum(kept * x, (1, 2), keepdims=True) / jnp.maximum(jnp.sum(kept, (1, 2), keepdims=True), 1)
    z = jnp.where(kept > 0, x, mean)

    def body(carry: tuple, _: None) -> tuple[tuple, None]:
        z, ahead, down, right = carry
        down_by, right_by = _differences(ahead)
        down = _within(down + step * down_by, weight, 2)
        right = _within(right + step * right_by, weight, 1)
        moved = (z - step * _adjoint(down, right) + step * kept * x) / (1 + step * kept)
        moved = jnp.clip(moved, 0, 1)
        return (moved, 2 * moved - z, down, right), None

    zeros = jax.tree.map(jnp.zeros_like, _differences(z))
    return jax.lax.scan(body, (z, z, *zeros), None, length=num_steps)[0][0]


def tv_objective(z: Array, x: Array, kept: Array, *, weight: float | Array) -> Array:
    """sum(kept (z - x)^2) / 2 + weight TV_2(z), [B]; TV_2 sums the Euclidean norms of the differences of neighbouring
    rows and of neighbouring columns, channel by channel (p = 2 of the paper's second equation of section 4).

    The paper's data term is the norm itself; the square, halved, is that of its code (`minimize_tv`).
    """
    down, right = _differences(z)
    norms = jnp.linalg.norm(down, axis=2).sum((1, 2)) + jnp.linalg.norm(right, axis=1).sum((1, 2))
    return jnp.sum(kept * (z - x) ** 2, (1, 2, 3)) / 2 + weight * norms


def _differences(z: Array) -> tuple[Array, Array]:
    """Of neighbouring rows [B, H - 1, W, C], of neighbouring columns [B, H, W - 1, C]."""
    return z[:, 1:] - z[:, :-1], z[:, :, 1:] - z[:, :, :-1]


def _adjoint(down: Array, right: Array) -> Array:
    """The transpose of `_differences`."""

    def along(differences: Array, axis: int) -> Array:
        first = jnp.pad(differences, [(1, 0) if i == axis else (0, 0) for i in range(4)])
        return first - jnp.pad(differences, [(0, 1) if i == axis else (0, 0) for i in range(4)])

    return along(down, 1) + along(right, 2)


def _within(dual: Array, radius: float | Array, axis: int) -> Array:
    """Projects each vector along `axis` onto the ball of `radius`, with a finite derivative at zero."""
    squares = jnp.sum(dual * dual, axis, keepdims=True)
    return dual * radius * jax.lax.rsqrt(jnp.maximum(squares, radius**2))
