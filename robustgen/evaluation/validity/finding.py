"""What a check says: a number, the limit it is held against, what it means and what to do about it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from robustgen.evaluation.tables import Cell, Table

POINTS = 0.2
"""Points of accuracy that a weaker attack may gain on a stronger one: AutoAttack's limit for Square (`checks.py`). On
fewer than 500 examples, no example at all."""

CHOSEN_POINTS = 2.0
"""The same where no source gives a limit: two thirds of the 95 % half-width of 1 000 examples, so that what is let pass
does not exceed what evaluations of that size leave open anyway."""


class Finding(NamedTuple):
    """The outcome of one check. `flagged`: the evaluation should not be believed before this is dealt with.

    value, threshold   the number found and the limit it is flagged beyond, in the unit that `explanation` names
    explanation        what the number is and what it means beyond the limit; whose limit it is
    advice             what to do next, where flagged
    """

    name: str
    flagged: bool
    value: float
    threshold: float
    explanation: str
    advice: str


def beyond(name: str, value: float, threshold: float, explanation: str, advice: str) -> Finding:
    """Flagged where `value` exceeds `threshold`, or is no number."""
    value = float(value)
    return Finding(name, not value <= threshold, value, float(threshold), explanation, advice)


def missed(standing: np.ndarray, others: np.ndarray) -> float:
    """Points of accuracy: examples [N] that withstand one attack (`standing`) and not another."""
    return 100 * float(np.mean(standing & ~others))


def flagged(findings: Sequence[Finding]) -> list[str]:
    """The names of the flagged."""
    return [finding.name for finding in findings if finding.flagged]


def findings_table(findings: Sequence[Finding]) -> Table:
    """One row a finding, the flagged first, with what they mean and what to do as notes; for `tables` and `page`."""
    ordered = sorted(findings, key=lambda finding: not finding.flagged)
    rows = [
        [
            Cell("FLAG" if f.flagged else "ok", bold=f.flagged), Cell(f.name), Cell(f"{f.value:.4g}"),
            Cell(f"{f.threshold:.4g}"),
        ]
        for f in ordered
    ]  # fmt: skip
    notes = [f"{f.name}: {f.explanation} {f.advice}" for f in ordered if f.flagged]
    count = len(notes)
    title = f"Is this evaluation valid? {count} of {len(ordered)} checks flagged"
    return Table(title, ["", "check", "found", "limit"], rows, notes)
