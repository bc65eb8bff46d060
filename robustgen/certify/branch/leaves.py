"""Parts on which the function is linear: the least worst row of a claim, exactly, by linear programming in float64."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from robustgen.certify.backward import backward, front
from robustgen.certify.branch.bounding import Model, known_within, region_of
from robustgen.certify.branch.domains import Claims, Domains
from robustgen.certify.branch.method import in_float64
from robustgen.certify.branch.sites import sites, splittable
from robustgen.certify.interpreter import Slot
from robustgen.core import LogitsFn, Threat

_INFEASIBLE = 2


Leaf = Callable[[LogitsFn, Sequence[Slot], Claims, Domains], tuple[float, np.ndarray | None]]


@functools.cache
def linear_leaves(threat: Threat) -> Leaf:
    """(fn, slots of its sites, one claim, one domain with nothing left to split) -> (its least worst row, where it is).

    The part's constraints are the splits and the box; the program is HiGHS's, whose tolerance is 1e-7. A part that is
    empty has infinity and no x. Where the solver gives up the domain's own bound comes back. For sets that are boxes
    and functions that `sites.is_piecewise_linear`.
    """
    affine = jax.jit(lambda fn, claims, lower, upper: _affine_forms(fn, threat, claims, lower, upper))

    def solve(fn: LogitsFn, slots: Sequence[Slot], claims: Claims, domain: Domains) -> tuple[float, np.ndarray | None]:
        lower, upper, sides = ([np.asarray(f[slot]) for slot in slots] for f in domain.parts[:3])
        with jax.enable_x64(True):
            wide = jax.tree.map(lambda a: np.asarray(a, np.float64), (claims._replace(group=np.zeros(1)), lower, upper))
            outputs, neurons = jax.device_get(affine(in_float64(fn), *wide))
        flat = [[np.asarray(v).reshape(-1) for v in values] for values in (sides, *wide[1:])]
        result = _least(wide[0], outputs, *_constraints(neurons, *flat))
        if result.status == _INFEASIBLE:
            return np.inf, None
        if result.status != 0:
            return float(domain.bound[0]), None
        return float(result.fun), result.x[:-1].reshape(np.shape(claims.x)[1:])

    return solve


def _affine_forms(fn: LogitsFn, threat: Threat, claims: Claims, lower: Sequence, upper: Sequence) -> tuple:
    """Outputs and sites as (matrix, offset) of the flat input, on a part where all planes are exact.

    lower, upper: in the order of the sites, whose slots are other numbers in another precision.
    """
    program = splittable(fn, claims.x.shape[1:], claims.x.dtype)
    model = Model(program, sites(program), threat, 1.0)
    ends = (dict(zip([site.slot for site in model.sites], end, strict=True)) for end in (lower, upper))
    state = known_within(model, region_of(model, claims), *ends)
    planes = jax.tree.map(lambda leaf: leaf[0], state.planes)

    def form(slot: int) -> tuple:
        size, own = program.shapes[slot].size, program.shapes[slot].shape
        start = front({slot: jnp.eye(size).reshape(size, 1, *own)})
        coefficients, offset = backward(program, start, planes, state.exact(), mirrored=False)
        matrix = jnp.zeros((size, claims.x[0].size)) if coefficients is None else coefficients
        return matrix.reshape(size, -1), offset[:, 0]

    return form(program.output), [form(site.slot) for site in model.sites]


def _constraints(neurons, sides, lower, upper) -> tuple[np.ndarray, np.ndarray]:
    """The splits as matrix x <= limits."""
    rows, limits = [], []
    for (matrix, offset), side, low, high in zip(neurons, sides, lower, upper, strict=True):
        below, above = side & 1 > 0, side & 2 > 0
        rows += [-matrix[below], matrix[above]]
        limits += [offset[below] - low[below], high[above] - offset[above]]
    return np.concatenate(rows), np.concatenate(limits)


def _least(claims: Claims, outputs, rows: np.ndarray, limits: np.ndarray):
    """min t, such that every row of A (J x + c) - b is at most t, over the box and the constraints."""
    matrix, offset = outputs
    A, b = claims.A[0], claims.b[0]
    worst = np.concatenate([A @ matrix, -np.ones((len(b), 1))], 1)
    held = np.concatenate([rows, np.zeros((len(rows), 1))], 1)
    box = np.stack([claims.lower[0].reshape(-1), claims.upper[0].reshape(-1)], 1)
    return scipy.optimize.linprog(
        np.append(np.zeros(matrix.shape[1]), 1.0),
        np.concatenate([worst, held]),
        np.concatenate([b - A @ offset, limits]),
        bounds=[*map(tuple, box), (None, None)],
        method="highs",
    )
