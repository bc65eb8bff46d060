"""Writes RobustBench's model_info JSON of a net that evaluate.py measured under AutoAttack.

    python experiments/model_info.py --workdir=runs/cifar10_trades --title="My Paper" --authors="A. One, B. Two" \\
        --link=https://arxiv.org/abs/0000.00000 --venue="arXiv, Jan 2026"

Reads WORKDIR/report, attacks nothing. The file goes to WORKDIR/report/model_info.json. "unreliable" says that Square
broke more than 0.2 points of the examples that the attacks by gradient had left (AutoAttack's own flag).
"""

import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import app, flags

from robustgen import config, log
from robustgen.evaluation import results
from robustgen.evaluation.columns import Columns
from robustgen.files import replace_file

_TITLE = flags.DEFINE_string("title", "", "Of the paper.")
_AUTHORS = flags.DEFINE_string("authors", "", "Their names, with commas.")
_LINK = flags.DEFINE_string("link", "", "To the paper.")
_VENUE = flags.DEFINE_string("venue", "", "Where it appeared.")
_EXTRA = flags.DEFINE_bool("additional_data", False, "Whether more data than the set's own trained it.")
_REPORTED = flags.DEFINE_float(
    "reported", None, "Robust accuracy in percent that the paper reports; default: AutoAttack's."
)
_FOOTNOTE = flags.DEFINE_string("footnote", "", "Shown below the leaderboard.")

ATTACK = "AutoAttack"
ALLOWED = 0.002
"""Share of the examples that Square may break after the attacks by gradient: checks.py of AutoAttack."""


class ModelInfoError(ValueError):
    """There is nothing to write."""


def main(argv: Sequence[str]) -> None:
    """Writes the file; 2 with one line where there is nothing to write."""
    del argv
    folder = pathlib.Path(flags.FLAGS.workdir or "")  # robustgen.config.app defines the flag
    report = folder / "report"
    try:
        info = model_info(report)
    except (ModelInfoError, results.ResultsError, FileNotFoundError) as error:
        log.note(f"error: {error}: run experiments/evaluate.py on --workdir={folder} first")
        sys.exit(2)
    path = replace_file(report / "model_info.json", (json.dumps(info, indent=2) + "\n").encode())
    log.say(f"written  {path}: clean {info['clean_acc']}, AutoAttack {info['autoattack_acc']}")


def model_info(report: pathlib.Path) -> dict[str, Any]:
    """The entry, in RobustBench's names and order; accuracies in percent, as text."""
    (run,) = results.load(report)
    cfg = config.from_json(json.loads((report / "config.json").read_text()))
    if run.columns is None or f"robust:{ATTACK}" not in run.columns:
        raise ModelInfoError(f"{report} has no columns of {ATTACK}")
    clean, robust = (f"{100 * run.columns[name].mean():.2f}" for name in ("clean", f"robust:{ATTACK}"))
    n = len(run.columns["index"])
    return {
        "link": _LINK.value, "name": _TITLE.value, "authors": _AUTHORS.value, "additional_data": _EXTRA.value,
        "number_forward_passes": 1, "dataset": config.build(cfg.data).name, "venue": _VENUE.value,
        "architecture": type(config.build(cfg.model)).__name__, "eps": fraction(cfg.evaluation.threat.eps),
        "clean_acc": clean, "reported": robust if _REPORTED.value is None else f"{_REPORTED.value:.2f}",
        "autoattack_acc": robust, "footnote": f"{_FOOTNOTE.value} Measured on {n} test examples.".strip(),
        "unreliable": square_broke(run.columns) > ALLOWED,
    }  # fmt: skip


def square_broke(columns: Columns) -> float:
    """Share of all examples that only the last search, Square, broke."""
    return float(np.mean(columns[f"broken_by:{ATTACK}"] == _SQUARE))


_SQUARE = 3  # of autoattack.standard


def fraction(eps: float) -> str:
    """ "8/255" where it is one, else the number."""
    levels = eps * 255
    return f"{round(levels)}/255" if abs(levels - round(levels)) < 1e-6 and levels >= 0.5 else f"{eps:g}"


if __name__ == "__main__":
    app.run(main)
