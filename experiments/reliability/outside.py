"""Counts what attacks hand back outside their set, decided in float64: none, or a bug.

    python experiments/reliability/outside.py --box=0,1
    python experiments/reliability/outside.py --box=-1,1

Every attack with a radius in every set that it has, at radii 8/255, 0.1 and 1.0 (L0: 1, 5
and 50 features or pixels), and the minimal ones in the box, on random nets whose gradients are steep, and inputs of
which a quarter lies on the ends of the box, a quarter on levels of 1/255. Radii and boxes are the exact numbers, not
their float32 neighbours.
"""

import functools
import itertools
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

from robustgen import attacks, threats
from robustgen.attacks import minimal, norms, objectives, starts
from robustgen.attacks.apgd import apgd, apgd_targeted
from robustgen.attacks.apgd_l1 import ONE, SHRINKING, apgd_l1, apgd_l1_targeted
from robustgen.attacks.search import Search, as_attack
from robustgen.attacks.square_l1 import square_l1
from robustgen.core import Array, Attack, Key, PyTree, Threat

_BOX = flags.DEFINE_list("box", ["0", "1"], "Ends of the box that inputs lie in.")
_DRAWS = flags.DEFINE_integer("draws", 6, "Nets and sets of inputs for each attack, set and radius.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 32, "Inputs in a set.", lower_bound=1)

SHAPE, CLASSES, WIDTH = (16, 16, 3), 10, 32
RADII = (8 / 255, 0.1, 1.0)
COUNTS = (1, 5, 50)
SPEED = {"num_steps": 8, "num_restarts": 2}


class Trial(NamedTuple):
    """An attack, and size(shift [B, ...]) [B] that may not exceed `eps`."""

    name: str
    attack: Attack
    size: Callable[[np.ndarray], np.ndarray]
    eps: float


def main(_: list[str]) -> None:
    """Prints a line per attack and set, all radii together, and the sums."""
    logging.set_verbosity(logging.ERROR)
    begin, total, clip = time.process_time(), np.zeros(5, np.int64), tuple(map(float, _BOX.value))
    heads = ("coordinates", "moved", "out of the box", "examples", "out of the ball")
    print(f"{f'in [{clip[0]:g}, {clip[1]:g}]':32}" + "".join(f"{head:>17}" for head in heads))
    for name, trials in itertools.groupby(every(clip), key=lambda trial: trial.name):
        row = sum(examined(trial, clip) for trial in trials)
        print_row(name, row)
        total += row
    print_row("total", total)
    print(f"{time.process_time() - begin:.0f} CPU s")


def print_row(name: str, row: np.ndarray) -> None:
    print(f"{name:32}" + "".join(f"{number:17,}" for number in row), flush=True)


def examined(trial: Trial, clip: tuple[float, float]) -> np.ndarray:
    """(coordinates, those moved, those outside the box, examples, those outside the ball) over all draws."""

    @jax.jit
    def run(params: PyTree, x: Array, key: Key) -> Array:
        net = functools.partial(logits, params)
        return trial.attack(net, x, jnp.argmax(net(x), -1).astype(jnp.int32), key)

    counts = np.zeros(5, np.int64)
    for seed in range(_DRAWS.value):
        x = inputs(np.random.default_rng(seed), clip)
        x_adv = np.asarray(run(params(seed), x, jax.random.key(seed)), np.float64)
        shift = (x_adv - np.float64(x)).reshape(len(x), -1)
        outside = ~((x_adv >= clip[0]) & (x_adv <= clip[1]))  # a NaN is outside
        beyond = ~(trial.size(shift) <= trial.eps)
        counts += x.size, np.sum(shift != 0), np.sum(outside), len(x), np.sum(beyond)
    return counts


def logits(params: PyTree, x: Array) -> Array:
    first, second = params
    return jnp.tanh(x.reshape(len(x), -1) @ first) @ second


def params(seed: int) -> PyTree:
    """Of an MLP; its scale goes by the seed, from smooth to saturated."""
    draw, scale = np.random.default_rng(seed), 4.0 ** (seed % 3)
    shapes = (np.prod(SHAPE), WIDTH), (WIDTH, CLASSES)
    return [jnp.asarray(scale * draw.standard_normal(shape) / np.sqrt(shape[0]), jnp.float32) for shape in shapes]


def inputs(draw: np.random.Generator, clip: tuple[float, float]) -> np.ndarray:
    """x [B, ...] float32 in the box."""
    shape = (_BATCH.value, *SHAPE)
    levels = np.float32(draw.integers(0, 256, shape)) / np.float32(255)
    unit = np.choose(draw.integers(0, 4, shape), [np.round(draw.random(shape)), levels, *draw.random((2, *shape))])
    return np.clip(np.float32(clip[0] + (clip[1] - clip[0]) * unit), *clip)


def every(clip: tuple[float, float]) -> Iterator[Trial]:
    """All attacks in the box `clip`, each at all its radii in turn."""
    for kind, (make, size) in SETS.items():
        radii = COUNTS if kind.startswith("l0") else RADII
        at = [{**ascents(make(eps, clip), eps), **searches(kind, make(eps, clip), eps, clip)} for eps in radii]
        for name in at[0]:
            yield from (Trial(f"{name}, {kind}", found[name], size, eps) for found, eps in zip(at, radii, strict=True))
    for name, attack in nearest(clip).items():
        yield Trial(name, attack, lambda shift: np.zeros(len(shift)), np.inf)


SETS = {
    "linf": (threats.linf, lambda shift: np.max(np.abs(shift), 1)),
    "l2": (threats.l2, lambda shift: np.sqrt(np.sum(shift**2, 1))),
    "l1": (threats.l1, lambda shift: np.sum(np.abs(shift), 1)),
    "l0": (threats.l0, lambda shift: np.sum(shift != 0, 1)),
    "l0_pixels": (threats.l0_pixels, lambda shift: np.sum(np.any(shift.reshape(len(shift), -1, SHAPE[-1]) != 0, 2), 1)),
}


def ascents(threat: Threat, eps: float) -> dict[str, Attack]:
    """Attacks that know nothing of the set but its functions; steps as long as the set is wide, some longer."""
    shared = {"objective": objectives.cross_entropy}
    return {
        "pgd": attacks.pgd(threat, **shared, step_size=eps / 2, num_steps=8),
        "pgd, judged": attacks.pgd(threat, **shared, step_size=2 * eps, num_steps=8, judge=objectives.margin),
        "r_fgsm": attacks.r_fgsm(threat, **shared, random_size=eps / 2, step_size=eps / 2),
        "mim": attacks.mim(threat, **shared, step_size=eps / 4, num_steps=8, decay=1.0),
    }


def searches(kind: str, threat: Threat, eps: float, clip: tuple[float, float]) -> dict[str, Attack]:
    """AutoAttack's, in its norms."""
    if kind not in ("linf", "l2", "l1"):
        return {}
    norm, common = getattr(norms, kind), {"eps": eps, "clip": clip}
    fab = {**common, **SPEED, "alpha_max": 0.1, "eta": 1.05, "beta": 0.9}
    square = {"linf": attacks.square_linf, "l2": attacks.square_l2, "l1": square_l1}[kind]
    found: list[Search] = [
        attacks.fab(norm, **fab), attacks.fab_t(norm, **fab, num_targets=2),
        square(**common, p_init=0.8, num_queries=60, num_restarts=1),
    ]  # fmt: skip
    if kind == "l1":
        longer = {**common, "num_steps": 20, "num_restarts": 2}
        found.append(apgd_l1(**longer, objective=objectives.dlr, name="apgd_l1, one phase", phases=ONE))
        found.append(apgd_l1_targeted(**longer, num_targets=2, name="apgd_l1_targeted, shrinking", phases=SHRINKING))
    start = starts.edge(norm.direction, eps)
    ascent = {"eps": eps, "start": start, **SPEED}
    found.append(apgd(threat, **ascent, objective=objectives.cross_entropy, name="apgd"))
    found.append(apgd_targeted(threat, **ascent, num_targets=2, name="apgd_targeted"))
    return {search.name: as_attack(search) for search in found}


def nearest(clip: tuple[float, float]) -> dict[str, Attack]:
    """Minimal attacks: only the box is theirs."""
    steps = {"num_steps": 15, "step_size": 1.0, "final_step_size": 0.01, "clip": clip}
    fmn = functools.partial(minimal.fmn, **steps, gamma=0.05, final_gamma=0.001, overshoot=0.05)
    return {
        **{f"fmn, {name.lower()}": fmn(getattr(minimal.norms, name)) for name in ("L0", "L1", "L2", "LINF")},
        "ddn": minimal.ddn(**steps, init_eps=1.0, gamma=0.05, levels=None),
        "deepfool": minimal.deepfool(num_steps=10, overshoot=0.02, num_classes=10, clip=clip),
        "sigma_zero": minimal.sigma_zero(**steps, sigma=1e-3, threshold=0.3, threshold_step=0.01),
        "cw_l2": minimal.cw_l2(confidence=0.0, learning_rate=0.01, num_searches=2, num_steps=15, num_checks=3,
                               init_c=0.1, clip=clip),
    }  # fmt: skip


if __name__ == "__main__":
    app.run(main)
