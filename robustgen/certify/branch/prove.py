"""Complete verification of claims: an attack, bounds at the root, then branch and bound, within a time."""

import functools
import hashlib
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from robustgen.certify.branch.domains import Claims, Domains, Splits
from robustgen.certify.branch.falsify import Descend, confirmed, starts_in
from robustgen.certify.branch.leaves import Leaf, linear_leaves
from robustgen.certify.branch.method import Method, in_float64
from robustgen.certify.branch.pool import Pool
from robustgen.certify.branch.search import Progress, Search, Settled, explored, read_state, restored, rows, stored
from robustgen.certify.branch.sites import is_piecewise_linear, sites, splittable
from robustgen.core import Key, LogitsFn, Threat
from robustgen.knobs import Count, CountOrZero, NonNegative, Positive, checked


class Prover(NamedTuple):
    """How claims are settled, with all that gets compiled on the way: make one, and ask it whatever you like."""

    threat: Threat
    method: Method
    descend: Descend
    leaf: Leaf
    batch: int
    num_restarts: int
    memory: float
    rounding: float


@checked
def prover(
    threat: Threat,
    method: Method,
    descend: Descend,
    *,
    batch: Count,
    num_restarts: CountOrZero,
    memory: Positive,
    rounding: NonNegative,
) -> Prover:
    """A `Prover` of claims on sets of the kind of `threat`.

    method: `neurons` or `halves`; descend: `descents`, the search for counterexamples. batch: domains that are split at
    a time. num_restarts: starts of the search for each claim. memory: bytes that open domains may take; beyond, those
    nearest to being closed are taken first. rounding: a domain is closed when its bound is above this times the
    magnitude of what the claim sums up; it stands for the rounding of float32 and is no proof about it.
    """
    return Prover(threat, method, descend, linear_leaves(threat), batch, num_restarts, memory, rounding)


def settle(
    asked: Prover,
    fn: LogitsFn,
    claims: Claims,
    *,
    timeout: float,
    key: Key,
    report: Callable[[Progress], None] = lambda progress: None,
    state: pathlib.Path | None = None,
    save_every: float = 30.0,
    accept: Callable[[Claims, Domains], np.ndarray] = lambda claims, domains: np.ones(len(domains.bound), bool),
) -> Settled:
    """Proves or refutes claims (float64 as asked, or float32) within about `timeout` seconds, compiling included.

    fn [B, *shape] -> [B, K]: a pytree that can be called, or any function, whose numbers are then compiled in.
    state: a file that the open domains are written to every `save_every` seconds and at the end of the time; where it
    exists already the search goes on from it, and once all is settled it is removed. Raises `StateError` where it is of
    another question, TypeError where fn cannot be computed in float64, in which counterexamples are confirmed too.
    accept: (claims, domains) [N] that are about to be closed -> which may be [N], for a check of their bounds that is
    sound in floating point, from the duals and intervals in their parts; the others are split further.
    """
    fn = jax.tree_util.Partial(fn) if jax.tree_util.treedef_is_leaf(jax.tree.structure(fn)) else fn
    _expect_float64(fn, claims)
    began = time.monotonic()
    until = began + timeout
    outer, inner = _outward(claims), _inward(claims)
    known = read_state(state, outer) if state is not None and state.exists() else None
    confirm = functools.partial(confirmed, fn, asked.threat, claims)
    search = Search(outer, np.zeros(len(claims.b)), confirm, accept)
    turns = -(-asked.num_restarts * len(claims.b) // _ATTACKED)
    _attack(asked, fn, search, inner, key, range(min(turns, 1)), until)
    left = search.open()
    if left and time.monotonic() < until:
        leaf = _leaf(asked, fn, outer)
        _begin(asked, fn, search, outer, left, leaf, until, known)
        _attack(asked, fn, search, inner, key, range(1, turns), until)
        save = None if state is None else (state, save_every)
        explored(
            search,
            functools.partial(asked.method.step, fn),
            batch=asked.batch,
            until=until,
            leaf=leaf,
            report=report,
            save=save,
        )
        if state is not None:
            stored(search, state) if search.open() else state.unlink(missing_ok=True)
    return search.settled(time.monotonic() - began)


def _expect_float64(fn: LogitsFn, claims: Claims) -> None:
    """What is confirmed in float64 must be computable there, which numbers that a closure holds may prevent."""
    with jax.enable_x64(True):
        try:
            jax.eval_shape(in_float64(fn), jax.ShapeDtypeStruct((1, *np.shape(claims.x)[1:]), np.float64))
        except TypeError as error:
            raise TypeError("fn: does not compute in float64; give it as a pytree (a Net, a Partial)") from error


_ATTACKED = 256
"""Descents at a time."""


def _attack(asked: Prover, fn: LogitsFn, search: Search, inner: Claims, key: Key, turns: range, until: float) -> None:
    """Descents from random starts, for the claims that are open: one batch for each of `turns`."""
    for turn in turns:
        left = search.open()
        if not left or time.monotonic() > until:
            return
        claim = np.resize(np.roll(left, -turn * _ATTACKED), _ATTACKED)
        own = inner.rows(claim)
        x, worst = asked.descend(fn, own, starts_in(own, jax.random.fold_in(key, turn)))
        search.offer(claim, *jax.device_get((x, worst)))


def _begin(asked: Prover, fn, search: Search, claims: Claims, left: list[int], leaf, until: float, known) -> None:
    """The pool of the claims that are left: from the file, or from their roots."""
    for claim, own, lower, upper in _roots(asked, fn, claims, left):
        found = jax.device_get(asked.method.root(fn, own, lower, upper))
        scale = np.max(np.abs(own.b) + np.einsum("brk,bk->br", np.abs(own.A), found.magnitude), 1)
        search.slack[claim] = asked.rounding * scale
        children = found.children._replace(claim=claim.astype(np.int32))
        if search.pool is None:
            most = int(asked.memory // Pool.row_bytes(children))
            search.pool = Pool(children, max(most, 4 * asked.batch))
            if known is not None:
                restored(search, known)
        unseen = [i for i in np.unique(claim, return_index=True)[1] if claim[i] in search.unseen]
        if unseen:
            search.take(rows(found._replace(children=children), np.array(unseen)), leaf)
        if known is None and time.monotonic() > until:
            return


def _roots(
    asked: Prover, fn: LogitsFn, claims: Claims, left: list[int]
) -> Iterator[tuple[np.ndarray, Claims, dict, dict]]:
    """The claims set by set, in batches of one size."""
    sets: dict[bytes, list[int]] = {}
    for n in left:
        digest = hashlib.sha256(b"".join(np.ascontiguousarray(f[n]).tobytes() for f in claims[:3])).digest()
        sets.setdefault(digest, []).append(int(n))
    for members in sets.values():
        lower, upper = asked.method.between(fn, claims.rows(np.array(members[:1])))
        size = 16
        lower, upper = jax.tree.map(lambda a, size=size: np.repeat(a, size, 0), (lower, upper))
        for first in range(0, len(members), size):
            claim = np.resize(members[first : first + size], size)
            yield claim, claims.rows(claim), lower, upper


def _leaf(asked: Prover, fn: LogitsFn, claims: Claims) -> Callable | None:
    """What is done with parts that are split up: solved, where that is a linear program."""
    program = splittable(fn, claims.x.shape[1:], claims.x.dtype)
    if not asked.threat.is_box or not is_piecewise_linear(program):
        return None
    slots = [site.slot for site in sites(program)]

    def leaf(claim: int, domain: Domains) -> tuple[float, np.ndarray | None]:
        if not isinstance(domain.parts, Splits):
            return float(domain.bound[0]), None
        return asked.leaf(fn, slots, claims.rows(np.array([claim])), domain)

    return leaf


def _outward(claims: Claims) -> Claims:
    """In float32, boxes rounded outward."""
    narrow = Claims(*(np.asarray(f, np.float32) for f in claims[:5]), np.asarray(claims.group))
    low = np.where(narrow.lower > claims.lower, np.nextafter(narrow.lower, np.float32(-np.inf)), narrow.lower)
    high = np.where(narrow.upper < claims.upper, np.nextafter(narrow.upper, np.float32(np.inf)), narrow.upper)
    return narrow._replace(lower=low, upper=high)


def _inward(claims: Claims) -> Claims:
    """In float32, boxes rounded inward, as far as they then have members."""
    narrow = Claims(*(np.asarray(f, np.float32) for f in claims[:5]), np.asarray(claims.group))
    low = np.where(narrow.lower < claims.lower, np.nextafter(narrow.lower, np.float32(np.inf)), narrow.lower)
    high = np.where(narrow.upper > claims.upper, np.nextafter(narrow.upper, np.float32(-np.inf)), narrow.upper)
    return narrow._replace(lower=np.minimum(low, high), upper=high)
