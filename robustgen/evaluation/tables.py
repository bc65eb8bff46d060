"""The headline numbers as a console table, Markdown and LaTeX: one table of cells, three ways to write it."""

import textwrap
from typing import NamedTuple

from robustgen.evaluation.metrics import OverSeeds
from robustgen.evaluation.summary import Row, Summary, percent
from robustgen.evaluation.verdict import attacked_by, significance


class Cell(NamedTuple):
    """A number with its interval over examples, and half the interval over seeds ("" with one seed)."""

    value: str
    interval: str = ""
    seeds: str = ""
    bold: bool = False

    @property
    def rest(self) -> str:
        return " ".join(filter(None, (self.interval, self.seeds)))


class Table(NamedTuple):
    """A title, column heads, rows of cells (the first is the row's name) and notes under the table."""

    title: str
    head: list[str]
    rows: list[list[Cell]]
    notes: list[str]


def tables(summary: Summary) -> list[Table]:
    """The accuracies, and (where training examples were evaluated) the generalization gaps."""
    made = [_accuracies(summary)]
    return made if summary.n_train is None else [*made, _gaps(summary)]


def console(summary: Summary) -> str:
    """Plain text, about 100 columns."""
    return "\n\n".join(map(console_table, tables(summary)))


def markdown(summary: Summary) -> str:
    """Pipe tables; bold is the best and whatever does not differ from it significantly."""
    return "\n".join(map(markdown_table, tables(summary)))


def latex(summary: Summary) -> str:
    r"""Tabulars that need only `\usepackage{booktabs}`."""
    return "% needs \\usepackage{booktabs}\n" + "\n".join(map(_latex, tables(summary)))


def escape_latex(text: str) -> str:
    """Text that typesets as itself with no package beyond booktabs."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _accuracies(summary: Summary) -> Table:
    proved = f"certified % ({', '.join(summary.certifiers)})" if summary.certifiers else "certified %"
    head = ["method", "", "clean %", f"robust % ({attacked_by(summary.attacks)})", proved, "seeds", "n"]
    rows = [
        [
            Cell(row.label), Cell("*" if row.pareto else ""), _cell(row.clean, bold=row.best_clean),
            _cell(row.robust, bold=row.best_robust), _cell(row.certified), *_sizes(row, str(summary.n)),
        ]
        for row in summary.rows
    ]  # fmt: skip
    certified = sum(row.certified is not None for row in summary.rows)
    checked = sum(len(row.runs) for row in summary.rows if row.certified) * summary.n
    notes = [_INTERVALS, _BOLD, "* Pareto-best: no row is as good on clean and robust and better on one"]
    notes += [f"{line} (paired, Holm)" for line in significance(summary)]
    notes += [f"contradictions (certified and yet broken): 0 of {checked}", _soundness(summary)] if certified else []
    return Table("Accuracy on test examples", head, rows, notes + _missing(summary))


def _soundness(summary: Summary) -> str:
    """Which certificates hold for the networks as executed: those of which every run says so of every example."""
    runs = [run for row in summary.rows for run in row.runs]
    sound = {
        name: all(f"sound:{name}" in run.columns and run.columns[f"sound:{name}"].all() for run in runs)
        for name in summary.certifiers
    }
    told = ", ".join(f"{name} {'yes' if holds else 'no'}" for name, holds in sound.items())
    return f"numerically sound (float32 rounding proved not to matter): {told}"


def _gaps(summary: Summary) -> Table:
    head = ["method", "clean gap", f"robust gap ({attacked_by(summary.gap_attacks)})", "seeds", "n train/test"]
    counts = f"{summary.n_train}/{summary.n}"
    rows = [
        [Cell(row.label), _cell(row.clean_gap, True), _cell(row.robust_gap, True), *_sizes(row, counts)]
        for row in summary.rows
    ]
    return Table("Generalization gaps: train minus test accuracy, in points", head, rows, [_INTERVALS])


def _sizes(row: Row, n: str) -> list[Cell]:
    return [Cell(str(len(row.runs))), Cell(n)]


def _cell(mean: OverSeeds | None, signed: bool = False, bold: bool = False) -> Cell:
    if mean is None:
        return Cell("–")
    e, half = mean.examples, mean.seeds.upper - mean.seeds.value
    interval = f"[{percent(e.lower, signed)}, {percent(e.upper, signed)}]"
    return Cell(percent(e.value, signed), interval, f"±{percent(half)}" if mean.seeds.n > 1 else "", bold)


def _missing(summary: Summary) -> list[str]:
    return [f"missing: {run.method} seed {run.seed}: {run.failure or 'no result'}" for run in summary.failed]


def console_table(table: Table) -> str:
    """One table as plain text."""
    texts = [table.head] + [[f"{c.value:>5} {c.rest}" if c.rest else c.value for c in row] for row in table.rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = [" " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in texts]
    notes = [note for note in table.notes if note != _BOLD]
    wrapped = [textwrap.fill(note, 100, initial_indent="   ", subsequent_indent="     ") for note in notes]
    return "\n".join([f" {table.title}", *lines, *wrapped])


def markdown_table(table: Table) -> str:
    """One table with pipes."""
    lines = [table.head, ["---"] * len(table.head)]
    lines += [[_md(f"**{c.value}** {c.rest}" if c.bold else f"{c.value} {c.rest}") for c in row] for row in table.rows]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"**{table.title}**\n\n{body}\n\n" + "".join(f"- {_md(note)}\n" for note in table.notes)


def _md(text: str) -> str:
    return text.strip().replace("|", "\\|") if text.strip() != "*" else "\\*"


def _latex(table: Table) -> str:
    def cell(c: Cell) -> str:
        value = escape_latex(c.value)
        value = rf"\textbf{{{value}}}" if c.bold else value
        return rf"{value} {{\scriptsize {escape_latex(c.rest)}}}" if c.rest else value

    body = [" & ".join(map(escape_latex, table.head)), *(" & ".join(map(cell, row)) for row in table.rows)]
    notes = "".join(f"% {note}\n" for note in [table.title, *table.notes])
    start = rf"\begin{{tabular}}{{{'l' * len(table.head)}}}" + "\n\\toprule\n"
    rows = "".join(f"{line} \\\\\n" for line in body[1:])
    return f"{notes}{start}{body[0]} \\\\\n\\midrule\n{rows}\\bottomrule\n\\end{{tabular}}\n"


_INTERVALS = "[ ] Wilson 95 % over n examples, of the mean over seeds; ± Student's 95 % over seeds"
_BOLD = "bold: the highest, and whatever is not significantly below it"
_GREEK = {"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "varepsilon", "κ": "kappa", "λ": "lambda",
          "ρ": "rho", "σ": "sigma", "τ": "tau", "μ": "mu", "≤": "leq", "≥": "geq", "×": "times", "±": "pm",
          "∞": "infty", "→": "rightarrow"}  # fmt: skip
_LATEX = {letter: rf"$\{name}$" for letter, name in _GREEK.items()}
_LATEX |= {letter: rf"\{letter}" for letter in "&%$#_{}"}
_LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$"}
_LATEX |= {"−": "$-$", "–": "--", "·": r"$\cdot$", "|": "$|$", "[": "{[}", "₁": "$_1$", "₂": "$_2$"}
