"""The open domains, on the host: rows of arrays that grow, in the order of their bounds, and a file of them."""

import heapq
import pathlib
from collections.abc import Sequence
from typing import Any, BinaryIO

import jax
import numpy as np

from robustgen.certify.branch.domains import Domains
from robustgen.files import write_whole


class Pool:
    """Domains by their bounds. `like` tells the type and shape of a row (any batch of domains).

    What is worst is taken first, so that the smallest bound of all rises and counterexamples show; beyond `most`
    domains the best, which are closed or split up soonest, so that the pool grows by little more.
    """

    def __init__(self, like: Domains, most: int):
        leaves, self.tree = jax.tree.flatten(like)
        self.leaves = [np.zeros((0, *np.shape(leaf)[1:]), np.asarray(leaf).dtype) for leaf in leaves]
        self.most, self.free, self.heap = most, [], []

    def __len__(self) -> int:
        return len(self.heap)

    @staticmethod
    def row_bytes(like: Domains) -> int:
        """Bytes that one domain takes."""
        return sum(np.asarray(leaf).nbytes // max(len(leaf), 1) for leaf in jax.tree.leaves(like))

    def push(self, domains: Domains) -> None:
        """Adds all rows of a batch (host arrays)."""
        leaves, bounds = jax.tree.leaves(domains), np.asarray(domains.bound)
        rows = self._places(len(bounds))
        for stored, leaf in zip(self.leaves, leaves, strict=True):
            stored[rows] = leaf
        for row, bound in zip(rows, bounds.tolist(), strict=True):
            heapq.heappush(self.heap, (bound, row))

    def pop(self, count: int) -> Domains:
        """Takes up to `count` domains."""
        if len(self.heap) > self.most:
            self.heap.sort()
            taken, self.heap = self.heap[-count:], self.heap[:-count]  # what is sorted is a heap
        else:
            taken = [heapq.heappop(self.heap) for _ in range(min(count, len(self.heap)))]
        rows = [row for _, row in taken]
        self.free.extend(rows)
        return self._at(rows)

    def drop(self, claims: set[int]) -> None:
        """Forgets the domains of some claims."""
        owner = self._whole().claim
        gone = [row for _, row in self.heap if owner[row] in claims]
        self.heap = [(bound, row) for bound, row in self.heap if owner[row] not in claims]
        heapq.heapify(self.heap)
        self.free.extend(gone)

    def worst(self) -> float:
        """The smallest bound; infinity where nothing is open."""
        return self.heap[0][0] if self.heap else np.inf

    def claims(self) -> dict[int, float]:
        """The claims that are open, and the smallest bound of each."""
        owner, found = self._whole().claim, {}
        for bound, row in self.heap:
            found[int(owner[row])] = min(bound, found.get(int(owner[row]), np.inf))
        return found

    def save(self, path: pathlib.Path, **extra: Any) -> None:
        """Writes all domains, and `extra` arrays, as npz: the whole file or nothing."""
        leaves = jax.tree.leaves(self._at([row for _, row in self.heap]))

        def write(file: BinaryIO) -> None:
            np.savez(file, **{f"leaf_{i}": leaf for i, leaf in enumerate(leaves)}, **extra)

        write_whole(path, write)

    def load(self, stored: Sequence[np.ndarray]) -> None:
        """Adds the leaves of a file that `save` wrote. Raises ValueError where they are not those of such domains."""
        if [leaf.shape[1:] for leaf in stored] != [leaf.shape[1:] for leaf in self.leaves]:
            raise ValueError("the stored domains are of another network or method")
        self.push(jax.tree.unflatten(self.tree, stored))

    def _whole(self) -> Domains:
        return jax.tree.unflatten(self.tree, self.leaves)

    def _at(self, rows: Sequence[int]) -> Domains:
        index = np.asarray(rows, np.int64)
        return jax.tree.unflatten(self.tree, [leaf[index] for leaf in self.leaves])

    def _places(self, count: int) -> list[int]:
        if len(self.free) < count:
            size = len(self.leaves[0])
            grown = max(count, size // 2, 1024)
            self.leaves = [
                np.concatenate([leaf, np.zeros((grown, *leaf.shape[1:]), leaf.dtype)]) for leaf in self.leaves
            ]
            self.free.extend(range(size + grown - 1, size - 1, -1))
        taken = self.free[-count:] if count else []
        del self.free[len(self.free) - count :]
        return taken
