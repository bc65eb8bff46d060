"""How examples, or members of a population, are spread over devices: a step says which rows are its own, and what is
averaged over all.

Under `jit` with shardings the compiler does both and these functions do nothing; under `shard_map` and `pmap` they see
that the data axis is mapped. So a step is written once, and its numbers do not depend on the devices.
"""

import jax
import jax.numpy as jnp

from robustgen.core import Array, Key, PyTree

DATA_AXIS = "data"
"""Name of the mesh axis that examples are spread over."""

MEMBER_AXIS = "member"
"""Name of the mesh axis that the members of a population are spread over."""


def example_keys(key: Key, num: int) -> Key:
    """One key per example, [num]; a `key` that is per-example already is returned as it is.

    Folding in the *global* index makes results independent of how examples are spread over devices.
    """
    if key.ndim == 1:
        return key
    index = jnp.arange(num)
    if (shard := data_shard()) is not None:
        index = index + shard * num
    return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


def local_rows(rows: Array) -> Array:
    """This device's share of the rows of a global batch where the data axis is mapped; all rows under `jit`.

    Raises `ValueError` where the shares would not be equal.
    """
    return _share(rows, DATA_AXIS, "a batch")


def local_members(columns: PyTree) -> PyTree:
    """This device's share of columns [P, ...] of a population where the member axis is mapped; all of them elsewhere.

    Raises `ValueError` where the shares would not be equal.
    """
    return jax.tree.map(lambda column: _share(column, MEMBER_AXIS, "a population"), columns)


def mean_over_devices(tree: PyTree) -> PyTree:
    """Mean over the data axis where one is mapped (`shard_map`, `pmap`); the tree itself under `jit`."""
    return tree if data_shard() is None else jax.lax.pmean(tree, DATA_AXIS)


def data_shard() -> Array | None:
    """Which shard of the data axis this is, where one is mapped; None under `jit`."""
    return _shard(DATA_AXIS)


def num_member_shards() -> int:
    """Over how many devices the members of a population are spread; 1 where they are not."""
    return 1 if _shard(MEMBER_AXIS) is None else jax.lax.axis_size(MEMBER_AXIS)


def _shard(axis: str) -> Array | None:
    try:
        return jax.lax.axis_index(axis)
    except NameError:  # what jax raises where no such axis is mapped
        return None


def _share(rows: Array, axis: str, whole: str) -> Array:
    if (shard := _shard(axis)) is None:
        return rows
    num_devices = jax.lax.axis_size(axis)
    size, left_over = divmod(rows.shape[0], num_devices)
    if left_over:
        raise ValueError(f"{whole} of {rows.shape[0]} cannot be spread evenly over {num_devices} devices")
    return jax.lax.dynamic_slice_in_dim(rows, shard * size, size)
