"""Smoothing a trained net: votes of the test split, the certificates they make, and their curve, table and picture.

A folder holds one certification: votes.journal (what it resumes from), examples.csv, smoothing.json (how it was
made). Tables and pictures are made from any number of such folders.
"""

import csv
import io
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from robustgen import log
from robustgen.certify.smoothing import ABSTAIN, Plan, certify, predict, sample
from robustgen.core import Estimate, LogitsFn
from robustgen.data.source import scaled
from robustgen.evaluation import draw
from robustgen.evaluation.intervals import wilson
from robustgen.evaluation.radii import (
    at_least,
    average_certified_radius,
    certified_accuracy,
    certified_curves,
    held_radius,
)
from robustgen.files import replace_file
from robustgen.recipe import Recipe
from robustgen.records import JournalError as JournalError


class Certified(NamedTuple):
    """A row of a table. held [N]: see `evaluation.radii`; abstained, right: by CERTIFY [N] bool, and how many examples
    PREDICT calls rightly; the rest as drawn."""

    name: str
    held: np.ndarray
    abstained: np.ndarray
    right: np.ndarray
    sigma: float
    num_samples: int
    alpha: float


def certify_test_split(
    net: LogitsFn, recipe: Recipe, plan: Plan, *, alpha: float, name: str, folder: pathlib.Path
) -> Certified:
    """CERTIFY, and PREDICT with the same votes, on the first `evaluation.num_examples` of the test split; resumable.

    Raises `JournalError` where `folder` holds the votes of another net, split, seed or plan.
    """
    x, y = scaled(recipe.data.load("test"), recipe.data.scale)
    count = min(recipe.evaluation.num_examples or len(y), len(y))
    progress = log.Progress(count * plan.total, label=f"votes {name}")
    votes = sample(
        net, x[:count], plan, seed=recipe.seed, journal=folder / "votes.journal",
        progress=lambda done, total: progress.update(done),
    )  # fmt: skip
    progress.close()
    found = certify(votes, plan, alpha=alpha)
    columns = {
        "index": np.arange(count), "label": y[:count], "certified_class": found.prediction,
        "predicted_class": predict(votes, alpha=alpha), "p_lower": found.p_lower, "radius": found.radius,
    }  # fmt: skip
    made = {**plan._asdict(), "alpha": alpha, "name": name, "seed": recipe.seed, "data": recipe.data.name}
    replace_file(folder / "examples.csv", _csv(list(columns), zip(*columns.values(), strict=True)))
    replace_file(folder / "smoothing.json", json.dumps(made, indent=1).encode())
    return read(folder)


def read(folder: pathlib.Path) -> Certified:
    """What `certify_test_split` left in `folder`. Raises OSError where it left nothing."""
    made = json.loads((folder / "smoothing.json").read_text())
    with open(folder / "examples.csv") as file:
        rows = list(csv.DictReader(file))
    column = {name: np.asarray([float(row[name]) for row in rows]) for name in rows[0]}
    y = column["label"]
    return Certified(
        made["name"], held_radius(column["certified_class"], column["radius"], y),
        column["certified_class"] == ABSTAIN, column["predicted_class"] == y, made["sigma"], made["num_samples"],
        made["alpha"],
    )  # fmt: skip


def table(rows: Sequence[Certified], radii: Sequence[float]) -> str:
    """Markdown: certified accuracy [%] at each radius, and of PREDICT, with Wilson 95 % intervals; ACR with Student's;
    per cent abstained."""
    head = ["training", "σ", "PREDICT", *(f"r={r:g}" for r in radii), "ACR", "abstained", "n"]
    lines = [" | ".join(head), "|".join(["---"] * len(head))]
    for row in rows:
        n = len(row.held)
        shares = [wilson(int(row.right.sum()), n), *certified_accuracy(row.held, radii)]
        acr = average_certified_radius(row.held)
        cells = [row.name, f"{row.sigma:g}", *map(_percent, shares)]
        cells += [f"{acr.value:.3f} [{acr.lower:.3f}, {acr.upper:.3f}]", f"{100 * row.abstained.mean():.1f}", str(n)]
        lines.append(" | ".join(cells))
    return "\n".join(lines) + "\n"


def publish(rows: Sequence[Certified], radii: Sequence[float], folder: pathlib.Path) -> None:
    """Prints the table and writes table.md, curve.csv and curve.svg into `folder`.

    curve.csv: certified accuracy of each row at each radius, its 95 % interval over examples, and what the smoothed
    classifier's is at least on these examples with probability 0.999, were up to alpha of all certificates wrong.
    """
    text = table(rows, radii)
    entries = []
    for row in rows:
        for radius, found in zip(radii, certified_accuracy(row.held, radii), strict=True):
            least = at_least(found.value, found.n, alpha=row.alpha)
            entries.append((row.name, row.sigma, radius, found.value, found.lower, found.upper, least, found.n))
    head = ["training", "sigma", "radius", "certified", "lower", "upper", "at_least", "n"]
    replace_file(folder / "table.md", text.encode())
    replace_file(folder / "curve.csv", _csv(head, entries))
    picture = draw.svg(certified_curves(_named(rows)), "smoothing")
    replace_file(folder / "curve.svg", picture.encode())
    log.say(text)
    log.say(f"curve    {folder / 'curve.svg'}   (also table.md, curve.csv, examples.csv)")


def _named(rows: Sequence[Certified]) -> Mapping[str, np.ndarray]:
    several = len({row.sigma for row in rows}) > 1
    return {f"{row.name} σ={row.sigma:g}" if several else row.name: row.held for row in rows}


def _percent(e: Estimate) -> str:
    return f"{100 * e.value:.1f} [{100 * e.lower:.1f}, {100 * e.upper:.1f}]"


def _csv(head: Sequence[str], rows) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([cell.item() if isinstance(cell, np.generic) else cell for cell in row] for row in rows)
    return out.getvalue().encode()
