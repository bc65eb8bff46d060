"""A folder that holds a result: `report.html` in one file, its figures as SVG, the tables, and every example as CSV."""

import html
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from robustgen.evaluation import images, page, plots, tables
from robustgen.evaluation.draw import inline, svg
from robustgen.evaluation.results import Examples, Run, results_csv
from robustgen.evaluation.summary import Row, Summary, highest, percent, summarize
from robustgen.evaluation.validity.finding import Finding, findings_table
from robustgen.evaluation.verdict import attacked_by, sizes, verdict
from robustgen.files import replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write(
    folder: pathlib.Path,
    runs: Sequence[Run],
    *,
    title: str,
    facts: dict[str, str],
    config_text: str,
    diff_text: str,
    eps: float | None = None,
    findings: Sequence[Finding] = (),
) -> pathlib.Path:
    """Writes report.html, table.md, table.tex, results.csv and the figures as .svg to `folder`; returns the page.

    Each file is replaced whole; equal arguments give equal bytes.

    Args:
      facts: what to say of the run, in order (run, date, commit, versions, hardware, time); "command" is set apart.
      config_text, diff_text: the resolved configuration, and how it differs from its file.
      eps: the radius that the tables are for, marked in the robust-vs-eps figure.
      findings: what the checks of the evaluation's validity found, for a section of its own.

    Raises `ContradictionError` and ValueError as `summarize` does.
    """
    folder, summary = pathlib.Path(folder), summarize(runs)
    figures = {name: (svg(drawn, name), caption) for name, (drawn, caption) in _figures(summary, eps).items()}
    body = _body(summary, runs, figures, title, facts, config_text, diff_text, findings)
    for name, (document, _) in figures.items():
        replace_file(folder / f"{name}.svg", document.encode())
    for name, text in (("table.md", tables.markdown(summary)), ("table.tex", tables.latex(summary))):
        replace_file(folder / name, text.encode())
    replace_file(folder / "results.csv", results_csv(runs).encode())
    return replace_file(folder / "report.html", page.page(title, body).encode())


def _body(
    summary: Summary, runs: Sequence[Run], figures: dict, title: str, facts: dict[str, str], config: str, diff: str,
    findings: Sequence[Finding],
) -> list[str]:  # fmt: skip
    shown = {name: page.figure(inline(text, name, caption), caption) for name, (text, caption) in figures.items()}
    made = tables.tables(summary)
    return [
        _header(summary, title, facts),
        page.section("Accuracy", page.table(made[0])),
        page.section("Is this evaluation valid?", *([page.table(findings_table(findings))] if findings else [])),
        page.section("The trade-off", shown["tradeoff"]),
        page.section("Robustness against the radius", *_unfinished(summary.rows), shown.get("radius", "")),
        page.section("Generalization gaps", shown.get("gaps", ""), *map(page.table, made[1:])),
        page.section("Training", shown.get("training", "")),
        page.section("Adversarial examples", *map(_gallery, _galleries(summary))),
        page.section("Failed and missing", *map(_failure, summary.failed)),
        page.section(
            "Configuration",
            page.paragraph("Changed from the file:", "quiet") if diff.strip() else "",
            page.listing(diff) if diff.strip() else page.paragraph("Nothing changed from the file.", "quiet"),
            page.listing(config, "the whole configuration"),
        ),
    ]


def _header(summary: Summary, title: str, facts: dict[str, str]) -> str:
    first, *more = verdict(summary)
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        page.paragraph(first, "verdict"),
        *map(page.paragraph, more),
        page.paragraph(f"95 % intervals; p-values paired over examples and seeds, by Holm; {sizes(summary)}.", "quiet"),
        page.facts_list({name: text for name, text in facts.items() if name != "command"}),
        page.listing(facts["command"]) if "command" in facts else "",
    ]
    return "<header>\n" + "\n".join(filter(None, parts)) + "\n</header>"


def _figures(summary: Summary, eps: float | None) -> "dict[str, tuple[Figure, str]]":
    size, rows = sizes(summary), summary.rows
    robust = f"Robust: {attacked_by(summary.attacks)}."
    drawn = {
        "tradeoff": (
            plots.tradeoff(summary),
            f"Clean against robust accuracy, means over seeds with 95 % Wilson intervals; the dashed line joins the "
            f"Pareto-best rows. {robust} On {size}.",
        ),
        "radius": (plots.radius(rows, eps), _radius_caption(summary)),
        "gaps": (
            plots.gaps(rows),
            "Train minus test accuracy with 95 % intervals (Newcombe): the generalization gap and the robust "
            f"generalization gap. {robust} On {size}, {summary.n_train} training examples.",
        ),
        "training": (
            plots.training(rows),
            "Accuracy during training, means over seeds; robust accuracy is under the attack that the trainer monitors "
            f"with, not that of the tables. {_seeds(rows)}{_first_panels(rows)}",
        ),
    }
    return {name: (figure, caption) for name, (figure, caption) in drawn.items() if figure is not None}


def _radius_caption(summary: Summary) -> str:
    found = [curve for row in summary.rows for curve in plots.curves(row)]
    if not found:
        return ""
    n = found[0].robust.shape[-1]
    return (
        "Accuracy against the radius: above, what no attack broke; below, what is certified; the truth lies between "
        f"(shaded). Each point is a mean over seeds of n = {n} test examples, with a 95 % interval of at most "
        f"±{percent(0.98 / np.sqrt(n))} points. {_seeds(summary.rows)}{_first_panels(summary.rows)}"
    )


def _seeds(rows: Sequence[Row]) -> str:
    counts = sorted({len(row.runs) for row in rows})
    return f"Seeds: {counts[0]}." if len(counts) == 1 else f"Seeds: {counts[0]} to {counts[-1]}."


def _first_panels(rows: Sequence[Row]) -> str:
    return f" The first {plots.MOST_PANELS} of {len(rows)} rows." if len(rows) > plots.MOST_PANELS else ""


def _unfinished(rows: Sequence[Row]) -> list[str]:
    """An attack that cannot break everything at a large radius is too weak to be believed at a small one."""
    found = {row.label: plots.curves(row) for row in rows if plots.curves(row)}
    left = [(name, max(curve.robust[-1].mean() for curve in curves)) for name, curves in found.items()]
    names = [f"{label} ({percent(share)} %)" for label, share in left if share > 0]
    text = (
        f"Robust accuracy does not reach 0 at the largest radius for {', '.join(names)}: "
        "extend the radii, or suspect the attack."
    )
    return [page.paragraph(text, "warning")] if names else []


def _failure(run: Run) -> str:
    knobs = ", ".join(f"{name}={value:g}" for name, value in run.knobs.items())
    name = " ".join(filter(None, (run.method, knobs)))
    return page.paragraph(f"{name}, seed {run.seed}: {run.failure or 'no result'}")


def _galleries(summary: Summary) -> list[tuple[Row, Run]]:
    """Of the first row, the most robust and the most certified: the first run that has examples to show."""
    rows = [summary.rows[0], highest(summary.rows, "robust"), highest(summary.rows, "certified")]
    distinct = {row.label: row for row in rows}.values()
    found = [(row, run) for row in distinct for run in row.runs if run.examples is not None]
    first = {row.label: (row, run) for row, run in reversed(found)}
    return [first[row.label] for row in distinct if row.label in first and _showable(first[row.label][1].examples)]


def _showable(examples: Examples) -> bool:
    return len(examples.x) > 0 and images.is_image(examples.x[0])


def _gallery(shown: tuple[Row, Run]) -> str:
    row, run = shown
    cards = "\n".join(_card(run.examples, i) for i in range(len(run.examples.x)))
    caption = (
        f"{row.label}, seed {run.seed}, {run.examples.attack}: examples with the worst and the median margin under "
        "attack among those that are right when clean, and some that hold, drawn by the seed; none chosen by hand. "
        "Beneath each image the predicted class and its confidence."
    )
    return page.figure(f'<div class="grid">\n{cards}\n</div>', caption)


def _card(e: Examples, i: int) -> str:
    shift, factor = images.perturbation(e.x[i], e.x_adv[i])
    before, after = e.prediction[i], e.prediction_adv[i]
    trio = [
        _image(e.x[i], f"{before} ({100 * e.confidence[i]:.0f} %)", before != e.label[i]),
        _image(e.x_adv[i], f"{after} ({100 * e.confidence_adv[i]:.0f} %)", after != e.label[i]),
        _image(shift, f"change ×{factor:g}", False),
    ]
    return (
        f'<div class="card"><b>{html.escape(str(e.kind[i]))} · label {e.label[i]} · no. {e.index[i]}</b>'
        f'<div class="trio">{"".join(trio)}</div></div>'
    )


def _image(image: np.ndarray, text: str, wrong: bool) -> str:
    kind = ' class="wrong"' if wrong else ""
    words = f"{text}, wrong" if wrong else text
    return f'<div><img alt="{words}" src="{images.data_uri(image)}"><span{kind}>{text}</span></div>'
