"""Compares what evaluate.py or tradeoff.py measured: all pairs, on the same examples, with intervals and p-values.

    python experiments/compare.py --workdirs=runs/digits_trades,runs/digits_pgd_at
    python experiments/compare.py --workdirs=runs/digits_trades,runs/digits_ibp --outcomes=clean,robust:PGD-50x3
    python experiments/compare.py --workdirs=runs/digits_trades --between=attacks

Reads WORKDIR/report/runs.npz; trains and attacks nothing. For each outcome (clean, robust, certified, robust:ATTACK,
certified:CERTIFIER) it prints every accuracy, and a table of all pairs: the difference in points, the examples that one
alone is right on, p, and p adjusted over the pairs of that table (Holm). Written to OUT/comparison.md, and with all
digits to OUT/comparison_OUTCOME.csv. `--between=attacks` compares the attacks on each net instead.

--test: mcnemar (exact), mid_p, bootstrap: of these nets, one seed a side. seeds: of methods, over several seeds.
Default: seeds where a side has several, else mcnemar.
"""

import pathlib
import re
import sys
from collections.abc import Iterator, Sequence

from absl import app, flags

from robustgen import log
from robustgen.evaluation import comparison, comparison_tables, results, sides, tables
from robustgen.evaluation.comparison import ComparisonError, PairedTest, Side
from robustgen.files import replace_file
from robustgen.knobs import KnobError

_WORKDIRS = flags.DEFINE_list("workdirs", [], "Folders that evaluate.py or tradeoff.py measured.")
_OUTCOMES = flags.DEFINE_list("outcomes", ["clean", "robust"], "What is compared; a table each.")
_BETWEEN = flags.DEFINE_enum("between", "nets", ["nets", "attacks"], "Compare nets (methods), or attacks on each.")
_TEST = flags.DEFINE_enum("test", None, ["mcnemar", "mid_p", "bootstrap", "seeds"], "Paired test; see above.")
_RESAMPLES = flags.DEFINE_integer("num_resamples", 10_000, "Of the bootstrap.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the bootstrap.", lower_bound=0)
_OUT = flags.DEFINE_string("out", None, "Folder to write to; default: the first workdir's report.")


def main(argv: Sequence[str]) -> None:
    """Compares, prints and writes; 2 with one line for what cannot be compared."""
    try:
        if argv[1:] or not _WORKDIRS.value:
            raise ComparisonError("name the folders: --workdirs=runs/a,runs/b")
        compare([pathlib.Path(folder) for folder in _WORKDIRS.value])
    except (ComparisonError, KnobError, results.ResultsError) as error:
        log.note(f"error: {error}")
        sys.exit(2)


def compare(folders: list[pathlib.Path]) -> None:
    """All tables of `folders`."""
    out, texts = pathlib.Path(_OUT.value or folders[0] / "report"), []
    for title, compared in _tables(sides.methods(folders)):
        if len(compared) < 2:
            raise ComparisonError(f"{title}: nothing to compare with {compared[0].name if compared else 'nothing'}")
        found = comparison.pairwise(compared, _test(compared))
        pairs = comparison_tables.comparison_table(found, f"{title}: all pairs")
        made = [comparison_tables.accuracy_table(compared, title), pairs]
        log.say("\n\n".join(map(tables.console_table, made)) + "\n")
        texts += map(tables.markdown_table, made)
        name = re.sub(r"[^\w.-]+", "_", title)
        replace_file(out / f"comparison_{name}.csv", comparison_tables.comparison_csv(found).encode())
    path = replace_file(out / "comparison.md", "\n".join(texts).encode())
    log.say(f"written  {path}   (and a comparison_*.csv a table)")


def _tables(methods: list[sides.Method]) -> Iterator[tuple[str, list[Side]]]:
    if _BETWEEN.value == "attacks":
        yield from ((f"attacks on {method.name}", sides.attacks(method)) for method in methods)
    else:
        yield from ((outcome, sides.nets(methods, outcome)) for outcome in _OUTCOMES.value)


def _test(compared: list[Side]) -> PairedTest:
    several = any(len(side.runs) > 1 for side in compared)
    made = {
        "mcnemar": comparison.exact_test,
        "mid_p": comparison.mid_p_test,
        "bootstrap": lambda: comparison.bootstrap_test(num_resamples=_RESAMPLES.value, seed=_SEED.value),
        "seeds": comparison.seeds_test,
    }
    return made[_TEST.value or ("seeds" if several else "mcnemar")]()


def parse(argv: list[str]) -> list[str]:
    """Flags; 2 with one line for what they do not take."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        log.note(f"error: {' '.join(str(error).split())}")
        sys.exit(2)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
