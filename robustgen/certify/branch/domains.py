"""What branch and bound carries: claims (what is to be proved), and domains (parts of a claim's set that are open)."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from robustgen.certify.interpreter import Slot
from robustgen.core import Array, Interval, PyTree


class Claims(NamedTuple):
    """Claim t: for every member v of its set, some row of A[t] fn(v) - b[t] is positive.

    x [T, *shape], the point that its set is around; lower, upper [T, *shape], the set's box; A [T, R, K], b [T, R];
    group [T], which claims stand together: once one of a group is refuted, its others are not looked at. A claim with
    fewer rows than R repeats one.
    """

    x: Array
    lower: Array
    upper: Array
    A: Array
    b: Array
    group: Array

    def rows(self, which: np.ndarray) -> "Claims":
        """The claims at some positions."""
        return Claims(*(field[which] for field in self))

    @property
    def box(self) -> Interval:
        """The box around each set."""
        return Interval(self.lower, self.upper)


class Domains(NamedTuple):
    """Parts of claims: all fields have one leading axis [N].

    claim: number of the claim; bound: what A fn(v) - b is at least, in its best row, on the part; depth: splits so far.
    parts: what bounds and describes the part, as its method has it (`Splits` or a box).
    """

    claim: Array
    bound: Array
    depth: Array
    parts: PyTree


class Splits(NamedTuple):
    """The part of a set where the values of some slots lie within intervals, and the best dual variables known there.

    lower, upper: by slot, [N, *shape]; sides: by slot, int8, 1 where a split gave the lower end, 2 the upper, 3 both.
    alphas: by number of equation, of its lower and upper plane; tilts: by slot, the multipliers of the intervals;
    weights [N, R]: logits of the convex combination of the claim's rows.
    """

    lower: Mapping[Slot, Array]
    upper: Mapping[Slot, Array]
    sides: Mapping[Slot, Array]
    alphas: Mapping[int, tuple[Array | None, Array | None]]
    tilts: Mapping[Slot, Array]
    weights: Array


class Round(NamedTuple):
    """What came of splitting N domains: 2 N children, all of whose fields are [2 N, ...].

    children: low parts first, then the high parts; x: a member of each one's set (not always of its part), where the
    claim fails or nearly; worst: the largest row there; undecided: how much is left to split; magnitude [2 N, K]: how
    large the outputs may be.
    """

    children: Domains
    x: Array
    worst: Array
    undecided: Array
    magnitude: Array
