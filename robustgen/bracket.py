"""The bracket around a net's true robustness: what a ladder of certifiers proves, and what an attack leaves standing.

Each rung gets only the examples that no cheaper one proved and that the attack did not break. A folder holds one such
measurement: bracket.records (what it resumes from), examples.csv, table.md, curve.csv and bracket.svg.
"""

import csv
import functools
import hashlib
import io
import json
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from robustgen import config, log
from robustgen.certify import alpha_crown, crown, crown_ibp, ibp, sound_alpha_crown, sound_crown, sound_crown_ibp
from robustgen.core import FALSIFIED, VERIFIED, Array, Certifier, Net, Threat
from robustgen.data.source import scaled
from robustgen.evaluation import draw
from robustgen.evaluation.bracket import Ladder, picture, rows, table
from robustgen.evaluation.columns import ContradictionError as ContradictionError
from robustgen.evaluation.columns import judge
from robustgen.files import replace_file
from robustgen.measure import evaluation_key
from robustgen.records import JournalError as JournalError
from robustgen.records import Records, open_records
from robustgen.workflow import Plan

LADDER: Mapping[str, Callable[[Threat], Certifier]] = {
    "IBP": ibp,
    "CROWN-IBP": crown_ibp,
    "CROWN": crown,
    "alpha-CROWN": functools.partial(alpha_crown, num_steps=20, learning_rate=0.25, decay=0.98),
}
"""From cheap to tight. alpha-CROWN ascends as long as is published, from the middle of the slopes at half the rate."""

SOUND: Mapping[str, Callable[[Threat], Certifier]] = {
    "CROWN-IBP": sound_crown_ibp,
    "CROWN": sound_crown,
    "alpha-CROWN": functools.partial(sound_alpha_crown, num_steps=20, learning_rate=0.25, decay=0.98),
}
"""The same for float32 as it is executed, rounding included."""

_ATTACK = 1  # the number of the rung that attacks; after it come the certifiers


class Rung(NamedTuple):
    """One question to a batch: `decide(net, x, y, keys, eps) -> (proved, refuted)`, both [B] bool."""

    name: str
    decide: Callable


def rungs(plan: Plan, ladder: Mapping[str, Callable[[Threat], Certifier]]) -> list[Rung]:
    """The clean prediction, the first attack of the config, and the ladder; compiled once for all radii."""
    attack_at = next(iter(plan.recipe.evaluation.attacks.values()))

    def threat_at(eps) -> Threat:
        return config.build(config.with_values(plan.config.evaluation.threat, {"eps": eps}))

    def wrong(net, x, y):
        return judge(net, x, y)["prediction"] != y

    def clean(net, x, y, keys, eps):
        return jnp.zeros(y.shape, bool), wrong(net, x, y)

    def attacked(net, x, y, keys, eps):
        x_adv = attack_at(threat_at(eps), eps)(net, x, y, keys)
        return jnp.zeros(y.shape, bool), wrong(net, x_adv, y)

    def certified(factory, net, x, y, keys, eps):
        status = factory(threat_at(eps))(net, x, y, keys).status
        return status == VERIFIED, status == FALSIFIED

    proofs = [Rung(name, jax.jit(functools.partial(certified, factory))) for name, factory in ladder.items()]
    name = next(iter(plan.recipe.evaluation.attacks))
    return [Rung("clean", jax.jit(clean)), Rung(name, jax.jit(attacked)), *proofs]


def measure_bracket(
    plan: Plan,
    net: Net,
    folder: pathlib.Path,
    *,
    radii: Sequence[float],
    num_examples: int,
    batch_size: int,
    ladder: Mapping[str, Callable[[Threat], Certifier]] = LADDER,
) -> list[Ladder]:
    """One `Ladder` a radius, on the first examples of the test split. Resumes after `kill -9` to the same numbers.

    From the largest radius to the smallest: what is proved at one is proved at all smaller ones, where only cheaper
    certifiers still get it, while every radius is attacked anew, proved examples included.

    Raises `ContradictionError` where an example is proved and broken, `JournalError` where `folder` is of other work.
    """
    x, y = scaled(plan.recipe.data.load("test"), plan.recipe.data.scale)
    count = min(num_examples, len(y))
    x, y = x[:count], y[:count]
    asked = rungs(plan, ladder)
    identity = {
        "net": fingerprint(net),
        "radii": sorted(radii),
        "n": count,
        "batch_size": batch_size,
        "rungs": [rung.name for rung in asked],
        "jax": jax.__version__,
    }
    records = open_records(folder / "bracket.records", identity, kind="bracket")
    work = _Work(asked, net, x, y, evaluation_key(plan.recipe), batch_size, records)
    found, proved_by = [], np.full(count, -1)
    for eps in sorted(radii, reverse=True):
        broken_by, seconds = np.full(count, -1), []
        for number in range(len(asked)):
            asks = (proved_by < 0) | (proved_by > number) | (number <= _ATTACK)
            proofs, refuted, took = work.through(number, np.flatnonzero(asks & (broken_by < 0)), eps)
            proved_by[proofs], broken_by[refuted] = number, number
            seconds.append(took)
        _no_contradiction(proved_by, broken_by, [rung.name for rung in asked], eps)
        found.append(Ladder(eps, tuple(rung.name for rung in asked), broken_by, proved_by.copy(), tuple(seconds)))
    records.close()
    return found[::-1]


class _Work(NamedTuple):
    """A measurement under way: what was recorded is taken from the records, in order, and the rest is asked."""

    rungs: list[Rung]
    net: Net
    x: np.ndarray
    y: np.ndarray
    key: Array
    batch_size: int
    records: Records

    def through(self, number: int, left: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray, float]:
        """Which of the examples `left` a rung proves and refutes, and the seconds it took when it was asked."""
        rung, decided, seconds = self.rungs[number], ([], []), 0.0
        progress = log.Progress(len(left), label=f"eps {eps:g} {rung.name}")
        for begin in range(0, len(left), self.batch_size):
            rows = left[begin : begin + self.batch_size]
            *answers, took = json.loads(self.records.past.pop(0) if self.records.past else self._ask(rung, rows, eps))
            for kept, answer in zip(decided, answers, strict=True):
                kept.extend(rows[np.array(answer, bool)])
            seconds += took
            progress.update(begin + len(rows))
        if len(left):
            progress.close()
        return np.array(decided[0], int), np.array(decided[1], int), seconds

    def _ask(self, rung: Rung, rows: np.ndarray, eps: float) -> bytes:
        padded, began = np.resize(rows, self.batch_size), time.perf_counter()
        keys = jax.vmap(jax.random.fold_in, (None, 0))(self.key, padded)
        x, y = jnp.asarray(self.x[padded]), jnp.asarray(self.y[padded])
        answers = jax.device_get(rung.decide(self.net, x, y, keys, np.float32(eps)))
        took = time.perf_counter() - began
        record = json.dumps([*(answer[: len(rows)].astype(int).tolist() for answer in answers), took]).encode()
        self.records.add(record)
        self.records.flush()
        return record


def _no_contradiction(proved_by: np.ndarray, broken_by: np.ndarray, names: list[str], eps: float) -> None:
    clash = np.flatnonzero((proved_by >= 0) & (broken_by >= 0))
    if len(clash):
        first = clash[0]
        raise ContradictionError(
            f"{len(clash)} examples are proved and broken at eps {eps:g}, the first is {first}: "
            f"by {names[proved_by[first]]} and by {names[broken_by[first]]}"
        )


def publish(ladders: Sequence[Ladder], folder: pathlib.Path, *, sound: bool) -> None:
    """Prints the table and writes table.md, curve.csv, examples.csv and bracket.svg into `folder`."""
    text = table(ladders)
    said = "yes, for float32 as it is executed" if sound else "no, up to rounding (--sound)"
    replace_file(folder / "table.md", f"{text}\nNumerically sound: {said}.\n".encode())
    head = ["eps", "name", "kind", "value", "lower", "upper", "n", "seconds"]
    replace_file(folder / "curve.csv", _csv(head, rows(ladders)))
    names = ladders[0].names
    decided = [
        (ladder.eps, i, *("" if by < 0 else names[by] for by in pair))
        for ladder in ladders
        for i, pair in enumerate(zip(ladder.broken_by, ladder.proved_by, strict=True))
    ]
    replace_file(folder / "examples.csv", _csv(["eps", "index", "broken_by", "proved_by"], decided))
    replace_file(folder / "bracket.svg", draw.svg(picture(ladders), "bracket").encode())
    log.say(text)
    log.say(f"numerically sound: {said}")
    log.say(f"bracket  {folder / 'bracket.svg'}   (also table.md, curve.csv, examples.csv)")


def _csv(head: Sequence[str], lines: Iterable[Sequence]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *lines])
    return text.getvalue().encode()


def fingerprint(net: Net) -> str:
    """A hash of a net's numbers."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((net.params, net.state)):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]
