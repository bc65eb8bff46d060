"""Counts executed margins below their certified bounds: random members of the set, its corners, and what PGD finds.

    python experiments/reliability/below_bounds.py --config=configs/digits_ibp.py --workdir=runs/digits_ibp
    python experiments/reliability/below_bounds.py --config=configs/mnist_ibp.py:0.1 --workdir=runs/mnist_ibp
    python experiments/reliability/below_bounds.py --config=configs/digits_ibp.py --reference=FOLDER

Takes a net that train.py left, or every stored net of a folder (NAME.json with its layers, NAME.npz with boxes and
labels, NET_weights.npz). A margin is the difference of two executed float32 logits, taken exactly; one below its bound,
by however little, is a violation: of a certifier that accounts for rounding, a bug. How close the nearest comes is told
in units of the largest logit.

Measured (jax 0.12, a shared CPU core): on the net of digits_ibp.py none of 10,000,000 points in 20 sets is below a
bound of any certifier; the nearest comes within 5e-4 of the largest logit (alpha-CROWN, 111 CPU s).
"""

import functools
import json
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from robustgen import attacks, certify, threats, workdir, workflow
from robustgen.config import app
from robustgen.core import Array, Certificate, Certifier, Key, LogitsFn, Threat
from robustgen.data.source import scaled

_POINTS = flags.DEFINE_integer("points", 10_000_000, "Members of the sets, all boxes together.", lower_bound=1)
_BOXES = flags.DEFINE_integer("boxes", 20, "Examples of each net.", lower_bound=1)
_REFERENCE = flags.DEFINE_string("reference", None, "Folder of stored nets.")

QUARTER = 2500
ADAM = {"num_steps": 20, "learning_rate": 0.5, "decay": 0.98}
CERTIFIERS: dict[str, Callable[[Threat], Certifier]] = {
    "IBP": certify.ibp,
    "CROWN-IBP": certify.crown_ibp,
    "CROWN": certify.crown,
    "alpha-CROWN": functools.partial(certify.alpha_crown, **ADAM),
    "sound CROWN-IBP": certify.sound_crown_ibp,
    "sound CROWN": certify.sound_crown,
    "sound alpha-CROWN": functools.partial(certify.sound_alpha_crown, **ADAM),
}


class Subject(NamedTuple):
    """A net, examples x [B, ...] with labels y [B], and threat_of(rows) of some of them."""

    name: str
    net: LogitsFn
    x: Array
    y: Array
    threat_of: Callable[[Array], Threat]


def main(run: app.Run) -> None:
    """Prints, for each net and certifier, the points below its bounds."""
    subjects = list(stored(pathlib.Path(_REFERENCE.value)) if _REFERENCE.value else trained(run))
    for subject in subjects:
        begin = time.process_time()
        least, points = lowest(subject, _POINTS.value // len(subjects))
        print(f"{subject.name}: {points:,} points in {len(subject.y)} sets")
        for name, make in CERTIFIERS.items():
            found = certificates(subject, make)
            below, size = found.margin_lower > least[0], np.maximum(least[1], 1e-30)
            nearest = np.min((least[0] - found.margin_lower) / size)
            proved = np.mean(found.status > 0)
            print(f"  {name:20} below: {below.sum()}   verified {proved:6.1%}   nearest {nearest:.1e}")
        print(f"  {time.process_time() - begin:.0f} CPU s", flush=True)


def certificates(subject: Subject, make: Callable[[Threat], Certifier]) -> Certificate:
    """Of all examples, in one batch."""
    certifier = make(subject.threat_of(jnp.arange(len(subject.y))))
    found = jax.jit(lambda x, y: certifier(subject.net, x, y, jax.random.key(0)))(subject.x, subject.y)
    return jax.tree.map(np.asarray, found)


def lowest(subject: Subject, points: int) -> tuple[np.ndarray, int]:
    """The least executed margin met in each set and the largest logit there, [2, B]; and how many points were met."""
    lots, found = max(points // (len(subject.y) * 4 * QUARTER), 1), []
    step = jax.jit(functools.partial(logits_of_a_lot, subject))
    for i, y in enumerate(map(int, subject.y)):
        logits = np.float64([step(i, jax.random.fold_in(jax.random.key(i), lot)) for lot in range(lots)])
        logits = logits.reshape(-1, logits.shape[-1])
        found.append((np.min(logits[:, y] - np.delete(logits, y, 1).max(1)), np.max(np.abs(logits))))
    return np.transpose(found), lots * 4 * QUARTER * len(subject.y)


def logits_of_a_lot(subject: Subject, i: Array, key: Key) -> Array:
    """Of members of set i: two quarters at random, a quarter corners of the box, a quarter found by PGD."""
    rows, keys = jnp.full(QUARTER, i), jax.random.split(key, 5)
    x, y, threat = subject.x[rows], subject.y[rows], subject.threat_of(rows)
    low, high = threat.bounds(x)
    corners = threat.project(x, jnp.where(jax.random.bernoulli(keys[0], shape=x.shape), low, high))
    inside = [threat.sample(x, jax.random.split(key, QUARTER)) for key in keys[1:3]]
    step_size = jnp.max(high - low) / 4
    pgd = attacks.pgd(threat, objective=attacks.margin, step_size=step_size, num_steps=8, judge=attacks.margin)
    met = pgd(subject.net, x, y, keys[4])
    return jnp.concatenate([subject.net(v) for v in (inside[0], inside[1], corners, met)])


def stored(folder: pathlib.Path) -> Iterator[Subject]:
    """Every net of a folder, on its boxes."""
    for file in sorted(folder.glob("*_s1.json")):
        arrays = np.load(file.with_suffix(".npz"))
        weights = np.load(folder / f"{file.stem.rsplit('_', 1)[0]}_weights.npz")
        layers = json.loads(file.read_text())["nodes"]
        net = net_of(layers, {name: jnp.asarray(value, jnp.float32) for name, value in weights.items()})
        low, high = (jnp.asarray(arrays[end][: _BOXES.value], jnp.float32) for end in ("x_lo", "x_hi"))
        y = jnp.asarray(arrays["labels"][: _BOXES.value].astype(np.int32))
        boxes = functools.partial(lambda rows, low, high: threats.box(low[rows], high[rows]), low=low, high=high)
        yield Subject(file.stem, net, (low + high) / 2, y, boxes)


def net_of(layers: list[dict], weights: dict[str, Array]) -> LogitsFn:
    """A list of layers, maps in NCHW."""

    def apply(node: dict, x: Array) -> Array:
        if node["op"] == "dense":
            return x @ weights[node["w"]].T + weights[node["b"]]
        if node["op"] == "conv":
            top, left, bottom, right = node["pads"]
            x = jax.lax.conv_general_dilated(x, weights[node["w"]], node["stride"], [(top, bottom), (left, right)])
            return x + weights[node["b"]][:, None, None]
        if node["op"] == "maxpool":
            window, stride = ((1, 1, *node[key]) for key in ("kernel", "stride"))
            return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, stride, "VALID")
        return jax.nn.relu(x) if node["op"] == "relu" else x.reshape(x.shape[0], -1)

    return lambda x: functools.reduce(lambda value, node: apply(node, value), layers, x)


def trained(run: app.Run) -> Iterator[Subject]:
    """The net of a working folder, on the front of its test split."""
    folder = workdir.folder_of(run)
    plan = workdir.reopen_run(run, folder)
    x, y = scaled(plan.recipe.data.load("test"), plan.recipe.data.scale)
    x, y = jnp.asarray(x[: _BOXES.value]), jnp.asarray(y[: _BOXES.value])
    yield Subject(plan.recipe.data.name, workflow.load_net(plan, folder), x, y, lambda _: plan.recipe.evaluation.threat)


if __name__ == "__main__":
    app.run(main, expected=workdir.ERRORS)
