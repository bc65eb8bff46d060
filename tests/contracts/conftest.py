"""Finds every factory of the package by what it returns, and builds it: a new method is tested without being entered.

A test that takes the fixture `attack_case` runs once for each function annotated `-> Attack`, and so on for `KINDS`.
Knobs without a default are filled from `samples`, by name and else by annotation; where there is no sample, the test
fails and says so.
"""

import functools
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import robustgen
from robustgen import attacks, certify, losses, threats
from robustgen.attacks import norms
from robustgen.attacks.apgd import apgd
from robustgen.attacks.apgd_l1 import SHRINKING, Phases
from robustgen.attacks.minimal import MinimalAttack
from robustgen.attacks.search import Search
from robustgen.attacks.starts import Start, edge, gaussian
from robustgen.core import Array, Attack, Certifier, Forward, Loss, Net, Objective, PyTree, Threat, eval_forward
from robustgen.data.augment import Augment, none
from robustgen.defences import Transform, noise
from robustgen.knobs import Count, CountOrZero, Decay, Fraction, NonNegative, Positive, hints
from robustgen.schedules import Schedule, ramp

KINDS = {
    "threat_case": Threat,
    "attack_case": Attack,
    "search_case": Search,
    "loss_case": Loss,
    "certifier_case": Certifier,
    "augment_case": Augment,
    "transform_case": Transform,
    "start_case": Start,
    "minimal_case": MinimalAttack,
    "optimizer_case": optax.GradientTransformation,
    "module_case": nn.Module,
}
CLASSES, SHAPE = 3, (2, 2, 1)
BUILDERS = ("random_search", "two_windows")  # what several factories are made with


class Case(NamedTuple):
    """A factory, with the means to call it."""

    name: str
    factory: Callable

    def build(self, threat: Threat | None = None, **knobs) -> Any:
        """What the factory makes of `knobs`, and of samples around `threat` for those it needs besides."""
        fill = functools.partial(sample, self.name, samples=samples(threat or threats.linf(0.1)))
        parameters = inspect.signature(self.factory).parameters.values()
        required = [p for p in parameters if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
        filled = {p.name: fill(p.name, self.knobs()[p.name]) for p in required if p.name not in knobs}
        return self.factory(**filled, **knobs)

    def knobs(self) -> dict[str, Any]:
        """The annotation of each knob."""
        return {name: hint for name, hint in hints(self.factory).items() if name != "return"}

    def radius(self) -> float:
        """The radius of the sample threat, for factories of threats that have one."""
        return sample(self.name, "eps", self.knobs()["eps"], samples(threats.linf(0.1)))

    def unclipped(self) -> dict[str, None]:
        """The knobs of a threat without a clip, where it can do without."""
        return {"clip": None} if type(None) in typing.get_args(self.knobs().get("clip")) else {}


def samples(threat: Threat) -> dict[Any, Any]:
    """What knobs are filled with: by "factory.name", by name, by annotation, in this order."""
    pgd = functools.partial(attacks.pgd, threat, step_size=0.03, num_steps=3, judge=attacks.margin)
    certifier = certify.ibp(threat)
    start = edge(norms.linf.direction, 0.1)
    plain = losses.standard(forward=eval_forward)
    search = apgd(threat, eps=0.1, start=start, objective=attacks.margin, name="apgd", num_steps=3, num_restarts=1)
    return {
        "trades.attack": pgd(objective=attacks.kl, start=gaussian(scale=0.001), judge=None),
        "against.attack": pgd(objective=attacks.expected(attacks.margin), judge=attacks.expected(attacks.margin)),
        "targeted.attack": pgd(objective=attacks.targeted_margin, judge=attacks.targeted_margin),
        "l1.loss": plain, "l1.weight": 0.0, "balanced.loss": plain, "balanced.weight": 0.0,
        **{f"{name}.sigma": 0.0 for name in ("gaussian", "smoothadv", "macer", "consistency")}, "consistency.eta": 0.0,
        "surrogate": bumps, "choose": attacks.most_likely, "transform": lambda x, keys: x,
        "quality": 50, "bits": 3, "min_size": 3, "out_size": 4, Transform: noise(sigma=0.1),
        "attacks": (pgd(objective=attacks.margin), pgd(objective=attacks.cross_entropy)),
        "lower": jnp.zeros(SHAPE), "upper": jnp.ones(SHAPE), "clip": (0.0, 1.0), "l0.eps": 2, "l0_pixels.eps": 1,
        "max_rotation": 30.0, "max_shift": 1.0,
        "direction": norms.linf.direction, "name": "name", "num_queries": 9, "p_init": 0.8, "eta": 1.05,
        "fab.norm": norms.linf, "fab_t.norm": norms.linf, Search: search,
        Phases: SHRINKING,
        "hidden": (4,), "num_classes": CLASSES, "depth": 10, "width": 1, "levels": 256,
        "norm": attacks.minimal.norms.L2, "pad": 1, "scale": 0.01, "learning_rate": 0.1,
        Threat: threat, Attack: pgd(objective=attacks.cross_entropy), Certifier: certifier, Loss: losses.standard(),
        Objective: attacks.margin, Forward: eval_forward, Augment: none(), Start: gaussian(scale=0.01),
        Positive: 0.05, NonNegative: 0.1, Fraction: 0.5, Decay: 0.9, Count: 2, CountOrZero: 1,
        Positive | Schedule: ramp(0.1, 0.01, begin=0.0, length=1.0).over(10), tuple[Count, ...]: (4,),
    }  # fmt: skip


def bumps(x: Array) -> Array:
    """A model of CLASSES classes for inputs of any shape, whose logits have slopes everywhere."""
    flat = x.reshape(len(x), -1)
    waves = jnp.arange(1, flat.shape[1] + 1) * jnp.arange(1.0, CLASSES + 1)[:, None]
    return flat @ jnp.sin(waves).T


def sample(factory: str, knob: str, annotation: Any, samples: dict[Any, Any]) -> Any:
    """The value of a knob. Fails the test where the table has none."""
    for entry in (f"{factory}.{knob}", knob, annotation):
        if entry in samples:
            return samples[entry]
    pytest.fail(
        f"{factory} has a knob {knob!r} ({annotation}) without a sample value: add one to samples() in {__file__}, "
        f"by its name, or as '{factory}.{knob}'"
    )


@functools.cache
def functions() -> tuple[tuple[str, Callable], ...]:
    """Every public function of the package, with the name of its module."""
    found = []
    for info in pkgutil.walk_packages(robustgen.__path__, "robustgen."):
        if info.name.endswith("__main__"):
            continue
        for name, value in vars(importlib.import_module(info.name)).items():
            if inspect.isfunction(value) and value.__module__ == info.name and not name.startswith("_"):
                found.append((info.name, value))
    return tuple(found)


def factories(kind: Any) -> list[Case]:
    """The factories annotated to return `kind`."""
    here = [fn for _, fn in functions() if fn.__annotations__.get("return") == kind]
    return [Case(fn.__name__, fn) for fn in here if fn.__name__ not in BUILDERS]


def with_signature(folder: str, *annotations: Any) -> list[Callable]:
    """Functions below `folder` whose parameters are annotated just so, the last one being what they return."""
    here = [fn for module, fn in functions() if module.startswith(folder)]
    return [fn for fn in here if (*fn.__annotations__.values(),) == annotations]


def pytest_generate_tests(metafunc):
    for fixture, kind in KINDS.items():
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, factories(kind), ids=lambda case: case.name)
    if "any_case" in metafunc.fixturenames:
        cases = [case for kind in KINDS.values() for case in factories(kind) if case.knobs()]
        metafunc.parametrize("any_case", cases, ids=lambda case: case.name)
    if "objective" in metafunc.fixturenames:
        found = [fn for target in (Array, Any) for fn in with_signature("robustgen.attacks", Array, target, Array)]
        found = [fn for fn in found if next(iter(inspect.signature(fn).parameters)) == "logits"]
        metafunc.parametrize("objective", found, ids=lambda fn: fn.__name__)


def apply_fn(variables: PyTree, x: Array, train: bool, mutable: list | None = None, rngs: dict | None = None):
    """A small net with batch norm, written out: affine, batch norm, relu, affine."""
    params, stats = variables["params"], variables["batch_stats"]
    hidden = x.reshape(x.shape[0], -1) @ params["w"] + params["b"]
    mean, var = (hidden.mean(0), hidden.var(0)) if train else (stats["mean"], stats["var"])
    seen = {"mean": 0.9 * stats["mean"] + 0.1 * mean, "var": 0.9 * stats["var"] + 0.1 * var} if train else stats
    logits = jax.nn.relu((hidden - mean) * jax.lax.rsqrt(var + 1e-5)) @ params["v"]
    return (logits, {"batch_stats": seen}) if mutable is not None else logits


@pytest.fixture
def net() -> Callable[..., Net]:
    """net(features, num_classes): a small net with batch norm and random weights, for inputs of any shape."""

    def make(features: int = int(np.prod(SHAPE)), num_classes: int = CLASSES) -> Net:
        draw = np.random.default_rng(0).standard_normal
        weights = {"w": draw((features, 8)), "b": 0.1 * draw(8), "v": draw((8, num_classes))}
        stats = {"mean": 0.1 * draw(8), "var": 1 + 0.1 * draw(8) ** 2}
        params, stats = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (weights, stats))
        return Net(params, {"batch_stats": stats}, apply_fn)

    return make


@pytest.fixture
def inputs() -> Callable[..., Array]:
    """inputs(shape): pixels k / 255, 0 and 1 among them."""

    def make(shape: tuple[int, ...]) -> Array:
        levels = np.random.default_rng(1).integers(0, 256, shape)
        levels.flat[:2] = 0, 255
        return jnp.asarray(levels.astype(np.float32) / np.float32(255))

    return make


def _inside_linf(x: np.ndarray, x_adv: np.ndarray) -> bool:
    return bool(np.all(np.abs(x_adv - x) <= 0.1) and _inside_box(x, x_adv))


def _inside_l2(x: np.ndarray, x_adv: np.ndarray) -> bool:
    norms = np.sqrt(np.sum((x_adv - x).reshape(len(x), -1) ** 2, 1))
    return bool(np.all(norms <= 0.1) and _inside_box(x, x_adv))


def _inside_l1(x: np.ndarray, x_adv: np.ndarray) -> bool:
    norms = np.sum(np.abs(x_adv - x).reshape(len(x), -1), 1)
    return bool(np.all(norms <= 0.1) and _inside_box(x, x_adv))


def _inside_l0(x: np.ndarray, x_adv: np.ndarray) -> bool:
    changed = np.sum((x_adv != x).reshape(len(x), -1), 1)
    return bool(np.all(changed <= 2) and _inside_box(x, x_adv))


def _inside_l0_pixels(x: np.ndarray, x_adv: np.ndarray) -> bool:
    changed = np.sum(np.any(x_adv != x, -1).reshape(len(x), -1), 1)
    return bool(np.all(changed <= 1) and _inside_box(x, x_adv))


def _inside_box(x: np.ndarray, x_adv: np.ndarray) -> bool:
    return bool(np.all((x_adv >= 0) & (x_adv <= 1)))


INSIDE = {
    "linf": _inside_linf, "l2": _inside_l2, "l1": _inside_l1, "l0": _inside_l0, "l0_pixels": _inside_l0_pixels,
    "box": _inside_box,
}  # fmt: skip
"""What membership means, in float64, for the threats as `Case.build` makes them."""


@pytest.fixture
def inside(threat_case) -> Callable[[Array, Array], bool]:
    """inside(x, x_adv), decided in float64 and exactly."""
    if threat_case.name not in INSIDE:
        pytest.fail(f"say in INSIDE of {__file__} what membership of {threat_case.name} means in float64")
    return lambda x, x_adv: INSIDE[threat_case.name](np.asarray(x, np.float64), np.asarray(x_adv, np.float64))
