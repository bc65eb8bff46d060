"""One row an example: what a net predicts clean and under each attack, and what each certifier proves of it.

`evaluator` builds one pure function of a batch, which can be jitted, vmapped over stacked nets and sharded; `columns`
runs it over a data set on the host. Every example carries its own key, folded from its index, and every batch has the
same shape, so a row depends on neither batch size, order nor neighbours, and there is one compile.
"""

import functools
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from robustgen.core import FALSIFIED, VERIFIED, Array, Attack, Certifier, Key, LogitsFn, Net, Threat
from robustgen.knobs import Count, checked

Columns = dict[str, np.ndarray]
"""Named arrays of one length N (with a leading [num_nets] for a population), as `columns` lists them."""

Progress = Callable[[int, int], None]

OUTSIDE_TOLERANCE = 1e-12
"""How far float64 projection may move a member of the set: some units in the last place of float64, not of float32."""


class OutsideError(ValueError):
    """An attack (or a certifier's counterexample) left the threat set: its numbers would mean nothing."""


class ContradictionError(AssertionError):
    """Examples that are both certified and broken: a bug in the certifier, the threat set or the arithmetic."""


class Evaluator(NamedTuple):
    """batch(net, x [B, ...], y [B], keys [B]) -> dict of [B] arrays, and `x_adv:NAME` [B, ...]: pure, jit it, vmap it.

    `excess(x, x_adv) -> [B]` is how far, in float64, `x_adv` lies outside the threat set; the host calls it.
    """

    batch: Callable[[LogitsFn, Array, Array, Key], dict[str, Array]]
    excess: Callable[[np.ndarray, np.ndarray], np.ndarray]


def evaluator(*, attacks: Mapping[str, Attack], certifiers: Mapping[str, Certifier], threat: Threat) -> Evaluator:
    """An `Evaluator` that runs every attack and certifier, all on the true labels, against `threat`.

    An attack's random numbers depend on the key, the example and the attack's name, not on what else is run.
    """

    def batch(net: LogitsFn, x: Array, y: Array, keys: Key) -> dict[str, Array]:
        clean = judge(net, x, y)
        found = {**clean, "clean": clean["prediction"] == y}
        for name, attack in attacks.items():
            found |= _attacked(net, x, y, name, attack(net, x, y, _named(keys, name)), found["clean"])
        for name, certifier in certifiers.items():
            found |= _certified(net, x, y, name, certifier, _named(keys, name))
        return found

    return Evaluator(batch, functools.partial(_excess, jax.jit(threat.project)))


@checked
def columns(
    evaluator: Evaluator,
    net: LogitsFn,
    x: np.ndarray,
    y: np.ndarray,
    *,
    key: Key,
    batch_size: Count,
    num_nets: Count | None = None,
    index: np.ndarray | None = None,
    progress: Progress = lambda done, total: None,
) -> Columns:
    """Evaluates `net` on x [N, ...], y [N]; `num_nets` says that `net` is a population stacked on a leading axis.

    Returns index, label [N]; prediction, confidence, margin, clean; for each attack robust:NAME (clean, and right at
    `x_adv`), prediction:NAME, confidence:NAME, margin:NAME, distance_linf:NAME, distance_l2:NAME; for each certifier
    certified:NAME, falsified:NAME, margin_lower:NAME, and radius:NAME, sound:NAME where it has one: [N], or
    [num_nets, N].
    Non-finite logits count as wrong, with prediction -1.

    Args:
      index: each example's number in its data set, [N]; what keys are folded from. Default 0 .. N-1.
      progress: called with (examples done, N) after each batch.

    Raises `OutsideError` where an `x_adv` is outside the threat set, checked in float64.
    """
    index = np.arange(len(y)) if index is None else np.asarray(index)
    chunks = []
    for done, found in run_batches(evaluator, net, x, y, index, key=key, batch_size=batch_size, num_nets=num_nets):
        chunks.append({name: value for name, value in found.items() if not name.startswith(("x_adv:", "counter:"))})
        progress(done, len(y))
    joined = {name: np.concatenate([chunk[name] for chunk in chunks], -1) for name in chunks[0]}
    return {"index": index, "label": np.asarray(y), **joined}


def run_batches(
    evaluator: Evaluator,
    net: LogitsFn,
    x: np.ndarray,
    y: np.ndarray,
    index: np.ndarray,
    *,
    key: Key,
    batch_size: int,
    num_nets: int | None = None,
) -> Iterator[tuple[int, Columns]]:
    """Yields (examples done, what `evaluator.batch` found, as NumPy with distances, padding cut off) for each batch.

    The last batch is filled up with examples from the front, so that all have one shape. Raises `OutsideError`.
    """
    step = _compiled(evaluator.batch, num_nets is not None)
    net = net if isinstance(net, Net) else jax.tree_util.Partial(net)  # a bare function is no pytree
    lead = () if num_nets is None else (slice(None),)
    for start in range(0, len(y), batch_size):
        rows = np.arange(start, start + batch_size) % len(y)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index[rows])
        found = jax.device_get(step(net, jnp.asarray(x[rows]), jnp.asarray(y[rows]), keys))
        _measure(evaluator, np.asarray(x[rows]), index[rows], found)
        valid = (*lead, slice(0, min(batch_size, len(y) - start)))
        yield min(start + batch_size, len(y)), {name: value[valid] for name, value in found.items()}


def unstack(columns: Columns, num_nets: int) -> list[Columns]:
    """The columns of each net of a population."""
    shared = ("index", "label")
    return [{k: v if k in shared else v[i] for k, v in columns.items()} for i in range(num_nets)]


def names(columns: Columns, prefix: str) -> list[str]:
    """The attacks or certifiers that have a column `prefix:NAME`."""
    return [name.split(":", 1)[1] for name in columns if name.startswith(prefix + ":")]


def contradictions(columns: Columns) -> None:
    """Raises `ContradictionError` if an example is certified, yet misclassified, broken by an attack or falsified."""
    refuted = {"clean": ~columns["clean"]}
    refuted |= {f"attack {name}": ~columns[f"robust:{name}"] for name in names(columns, "robust")}
    refuted |= {f"falsifier {name}": columns[f"falsified:{name}"] for name in names(columns, "falsified")}
    for certifier in names(columns, "certified"):
        for source, broken in refuted.items():
            clash = np.argwhere(columns[f"certified:{certifier}"] & broken)
            if len(clash):
                raise ContradictionError(
                    f"{len(clash)} examples are certified by {certifier} and yet broken ({source}): "
                    f"index {', '.join(str(columns['index'][row[-1]]) for row in clash[:10])}"
                )


def judge(logits_fn: LogitsFn, x: Array, y: Array) -> dict[str, Array]:
    """prediction [B] (-1 where a logit is not finite), confidence [B] (its softmax), margin [B]."""
    logits = logits_fn(x)
    others = jnp.where(jax.nn.one_hot(y, logits.shape[-1], dtype=bool), -jnp.inf, logits)
    finite = jnp.all(jnp.isfinite(logits), -1)
    return {
        "prediction": jnp.where(finite, jnp.argmax(logits, -1), -1).astype(jnp.int32),
        "confidence": jnp.max(jax.nn.softmax(logits), -1),
        "margin": jnp.take_along_axis(logits, y[:, None], -1)[:, 0] - jnp.max(others, -1),
    }


def _attacked(net: LogitsFn, x: Array, y: Array, name: str, x_adv: Array, clean: Array) -> dict[str, Array]:
    """Judged anew at `x_adv`, whatever the attack thinks of it; a misclassified example is not robust."""
    found = judge(net, x_adv, y)
    renamed = {f"{column}:{name}": value for column, value in found.items()}
    return {f"robust:{name}": clean & (found["prediction"] == y), **renamed, f"x_adv:{name}": x_adv}


def _certified(net: LogitsFn, x: Array, y: Array, name: str, certifier: Certifier, keys: Key) -> dict[str, Array]:
    """A counterexample only counts if the net is wrong there; elsewhere x stands in for it."""
    certificate = certifier(net, x, y, keys)
    falsified = certificate.status == FALSIFIED
    found = {f"certified:{name}": certificate.status == VERIFIED, f"margin_lower:{name}": certificate.margin_lower}
    if certificate.radius is not None:
        found[f"radius:{name}"] = certificate.radius
    if certificate.sound is not None:
        found[f"sound:{name}"] = certificate.sound
    if certificate.x_adv is not None:
        falsified &= judge(net, certificate.x_adv, y)["prediction"] != y
        rows = falsified.reshape(falsified.shape + (1,) * (x.ndim - 1))
        found[f"counter:{name}"] = jnp.where(rows, certificate.x_adv, x)
    return {**found, f"falsified:{name}": falsified}


def _named(keys: Key, name: str) -> Key:
    return jax.vmap(jax.random.fold_in, (0, None))(keys, np.uint32(zlib.crc32(name.encode())))


@functools.lru_cache(maxsize=16)
def _compiled(batch: Callable, population: bool) -> Callable:
    """One jitted function per evaluator, however often the host asks: train and test share a compile."""
    return jax.jit(jax.vmap(batch, (0, None, None, None)) if population else batch)


def _measure(evaluator: Evaluator, x: np.ndarray, index: np.ndarray, found: Columns) -> None:
    """Adds each attack's distances in float64 to `found`, and refuses what is outside."""
    for column in [name for name in found if name.startswith(("x_adv:", "counter:"))]:
        kind, name = column.split(":", 1)
        excess = evaluator.excess(x, found[column])
        outside = ~(excess <= OUTSIDE_TOLERANCE)
        if outside.any():
            rows = np.argwhere(outside)[:10, -1]
            raise OutsideError(
                f"{name} left the threat set on {outside.sum()} examples, by up to {np.max(excess):.3g}: "
                f"index {', '.join(map(str, index[rows]))}"
            )
        if kind == "x_adv":
            found |= {f"{norm}:{name}": values for norm, values in distances(x, found[column]).items()}


def distances(x: np.ndarray, x_adv: np.ndarray) -> Columns:
    """distance_linf, distance_l2 [..., N] in float64, of x_adv [..., N, *shape] from x [N, *shape]."""
    shift = (x_adv.astype(np.float64) - x).reshape(*x_adv.shape[: x_adv.ndim - x.ndim + 1], -1)
    return {"distance_linf": np.abs(shift).max(-1), "distance_l2": np.sqrt((shift**2).sum(-1))}


def _excess(project: Callable, x: np.ndarray, x_adv: np.ndarray) -> np.ndarray:
    """Largest move, over features, that projection onto the set makes in float64: [B], or [num_nets, B]."""
    lead = x_adv.shape[: x_adv.ndim - x.ndim + 1]
    flat = x_adv.reshape(-1, *x.shape[1:])
    with jax.enable_x64(True):
        x64 = np.broadcast_to(x.astype(np.float64), x_adv.shape).reshape(flat.shape)
        moved = np.asarray(project(jnp.asarray(x64), jnp.asarray(flat, jnp.float64)))
    return np.abs(moved - flat).reshape(*lead, -1).max(-1)
