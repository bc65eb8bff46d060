"""Branch and bound: takes the worst domains, splits them, bounds the halves, until none is open or the time is up.

A claim is proved when all its domains have bounds above a slack for rounding, refuted by a point that `confirmed`
accepts. Nothing is compiled anew as domains come and go: batches are of one size, filled up where there are fewer.
"""

import enum
import hashlib
import pathlib
import time
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from robustgen.certify.branch.domains import Claims, Domains, Round
from robustgen.certify.branch.falsify import Found
from robustgen.certify.branch.pool import Pool


class Status(enum.Enum):
    """Of one claim."""

    PROVED = "proved"
    REFUTED = "refuted"
    OPEN = "open"  # out of time, or what is left is too near to zero for the arithmetic


class Progress(NamedTuple):
    """One line of a search: open domains, those closed so far, the smallest bound of an open one, seconds, rounds."""

    open: int
    closed: int
    worst: float
    seconds: float
    rounds: int


class Settled(NamedTuple):
    """What a search found: status and lower bound [T] of each claim, counterexamples by claim, and what it took.

    lower: -inf for claims that were not bounded to the end, refuted ones among them.

    stuck: domains that are fully split but too near to zero to be told.
    """

    status: list[Status]
    lower: np.ndarray
    found: dict[int, Found]
    domains: int
    seconds: float
    rounds: int
    stuck: int


class Search:
    """The state of one search: which claims are settled, and the pool of the others' domains.

    confirm(claim, x) -> the counterexample next to x, or None; accept: as in `prove.settle`.
    """

    def __init__(self, claims: Claims, slack: np.ndarray, confirm: Callable, accept: Callable):
        self.claims, self.slack, self.confirm, self.accept = claims, slack, confirm, accept
        self.found: dict[int, Found] = {}
        self.lower = np.full(len(slack), np.inf)
        self.closed = self.stuck = self.rounds = 0
        self.held: dict[int, float] = {}
        self.unseen = set(range(len(slack)))
        self.pool: Pool | None = None

    def refuted(self, claim: int) -> bool:
        """Whether some claim of the same group is refuted."""
        return any(self.claims.group[claim] == self.claims.group[other] for other in self.found)

    def open(self) -> list[int]:
        """The claims that are neither proved nor, with their groups, refuted."""
        still = {*self.unseen, *self.held, *(() if self.pool is None else self.pool.claims())}
        return [n for n in sorted(still) if not self.refuted(n)]

    def offer(self, claim: np.ndarray, x: np.ndarray, worst: np.ndarray) -> None:
        """Points at which claims may fail: the likeliest of each group are checked."""
        order = np.flatnonzero(worst <= 0)
        tried: dict[int, int] = {}
        for i in order[np.argsort(worst[order])]:
            number = int(claim[i])
            group = int(self.claims.group[number])
            if tried.get(group, 0) < 8 and not self.refuted(number):
                tried[group] = tried.get(group, 0) + 1
                if (point := self.confirm(number, x[i])) is not None:
                    self.found[number] = Found(number, point, float(worst[i]))
                    if self.pool is not None:
                        self.pool.drop({n for n, g in enumerate(self.claims.group) if g == group})

    def take(self, found: Round, leaf: Callable[[int, Domains], tuple[float, np.ndarray | None]] | None) -> None:
        """Enters what a round (host arrays, no padding) found: closes, refutes, or pushes its children."""
        children = found.children
        self.unseen -= set(children.claim.tolist())
        self.offer(children.claim, found.x, found.worst)
        alive = np.array([not self.refuted(int(claim)) for claim in children.claim], bool)
        closed = children.bound > self.slack[children.claim]
        if np.any(closed):
            which = np.flatnonzero(closed)
            closed[which] = self.accept(self.claims.rows(children.claim[which]), rows(children, which))
        self._close(children, alive & closed)
        decided = alive & ~closed & (found.undecided == 0)
        for i in np.flatnonzero(decided):
            self._decide(rows(children, np.array([i])), leaf)
        if np.any(rest := alive & ~closed & ~decided):
            self.pool.push(rows(children, np.flatnonzero(rest)))

    def _close(self, children: Domains, which: np.ndarray) -> None:
        self.closed += int(which.sum())
        for claim, bound in zip(children.claim[which], children.bound[which], strict=True):
            self.lower[claim] = min(self.lower[claim], bound)

    def _decide(self, domain: Domains, leaf) -> None:
        """A part on which the function is linear: solved exactly."""
        claim = int(domain.claim[0])
        lower, x = (float(domain.bound[0]), None) if leaf is None else leaf(claim, domain)
        if lower > self.slack[claim]:
            self.closed += 1
            self.lower[claim] = min(self.lower[claim], lower)
            return
        if x is not None:
            self.offer(np.array([claim]), x[None], np.zeros(1))
        if not self.refuted(claim):
            self.stuck += 1
            self.held[claim] = min(lower, self.held.get(claim, np.inf))

    def status(self) -> list[Status]:
        """Of each claim, as far as is known."""
        still = set(self.open())
        return [
            Status.REFUTED if n in self.found else Status.OPEN if n in still or self.refuted(n) else Status.PROVED
            for n in range(len(self.slack))
        ]

    def settled(self, seconds: float) -> Settled:
        """The result."""
        lower = self.lower.copy()
        lower[[n for n in range(len(lower)) if n in self.unseen or self.refuted(n)]] = -np.inf
        for known in (self.held, {} if self.pool is None else self.pool.claims()):
            for claim, bound in known.items():
                lower[claim] = min(lower[claim], bound)
        domains = self.closed + self.stuck + (len(self.pool) if self.pool is not None else 0)
        return Settled(self.status(), lower, self.found, domains, seconds, self.rounds, self.stuck)


def explored(
    search: Search,
    step: Callable[[Claims, Domains, np.ndarray], Round],
    *,
    batch: int,
    until: float,
    leaf: Callable | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
    save: tuple[pathlib.Path, float] | None = None,
) -> Search:
    """Splits domains of `search.pool`, `batch` at a time, until none is open or time.monotonic() is `until`.

    save: a file, and every how many seconds the pool is written to it.
    """
    began = saved = time.monotonic()
    while len(search.pool) and time.monotonic() < until:
        domains = search.pool.pop(batch)
        number = len(domains.bound)
        filled = np.arange(batch) % number
        padded = rows(domains, filled)
        found = step(search.claims.rows(padded.claim), padded, search.slack[padded.claim].astype(np.float32))
        search.take(_unpadded(jax.device_get(found), domains, batch), leaf)
        search.rounds += 1
        now = time.monotonic()
        if save is not None and now - saved > save[1]:
            saved = now
            stored(search, save[0])
        report(Progress(len(search.pool), search.closed, search.pool.worst(), now - began, search.rounds))
    return search


def _unpadded(found: Round, domains: Domains, batch: int) -> Round:
    """The children of the domains alone, with their claims."""
    number = len(domains.bound)
    kept = np.concatenate([np.arange(number), batch + np.arange(number)])
    found = rows(found, kept)
    claim = np.concatenate([domains.claim, domains.claim]).astype(np.int32)
    return found._replace(children=found.children._replace(claim=claim))


def rows(tree: Any, which: np.ndarray) -> Any:
    """Some rows of every leaf."""
    return jax.tree.map(lambda leaf: leaf[which], tree)


def stored(search: Search, path: pathlib.Path) -> None:
    """Writes what is open to a file, so that the search can go on from it; claims without a domain begin again."""
    held = np.array(list(search.held.items()), np.float64).reshape(-1, 2)
    numbers = np.array([search.closed, search.stuck, search.rounds])
    again = np.array([n for n in range(len(search.slack)) if n in search.unseen or search.refuted(n)], np.int64)
    mark = _mark(search.claims)
    search.pool.save(path, numbers=numbers, lower=search.lower, held=held, again=again, mark=mark)


class StateError(ValueError):
    """A file of open domains cannot be used: damaged, or of another question."""


def read_state(path: pathlib.Path, claims: Claims) -> dict[str, np.ndarray]:
    """What `stored` wrote for the same claims. Raises `StateError` where the file is not that."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        mine = arrays["mark"].tolist() == _mark(claims).tolist()
    except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise StateError(f"{path}: is not the state of a search; remove it, or name another file") from error
    if not mine:
        raise StateError(f"{path}: is the state of another question; remove it, or name another file")
    return arrays


def restored(search: Search, arrays: dict[str, np.ndarray]) -> None:
    """Goes on from what `read_state` gave."""
    try:
        search.pool.load([arrays[f"leaf_{i}"] for i in range(len(search.pool.leaves))])
    except (KeyError, ValueError) as error:
        raise StateError("the state is of another network, or of another way to split") from error
    search.closed, search.stuck, search.rounds = (int(n) for n in arrays["numbers"])
    search.lower, search.unseen = arrays["lower"], set(arrays["again"].tolist())
    search.held = {int(claim): float(bound) for claim, bound in arrays["held"]}


def _mark(claims: Claims) -> np.ndarray:
    """Tells questions apart: a digest of the claims."""
    digest = hashlib.sha256()
    for field in claims:
        digest.update(np.ascontiguousarray(field).tobytes())
    return np.frombuffer(digest.digest(), np.uint8)
