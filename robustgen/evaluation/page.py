"""The look of a report: one page of HTML without scripts or requests, in light and dark, on screen and on A4."""

import html
from collections.abc import Iterable

from robustgen.evaluation.tables import Cell, Table


def page(title: str, body: Iterable[str]) -> str:
    """A whole document."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(filter(None, body))
        + "\n</main>\n</body>\n</html>\n"
    )


def section(heading: str, *parts: str) -> str:
    """A part of the page under its heading; nothing where there is nothing to show."""
    shown = "\n".join(filter(None, parts))
    return f"<section>\n<h2>{html.escape(heading)}</h2>\n{shown}\n</section>" if shown else ""


def figure(content: str, caption: str) -> str:
    """Content with its caption below."""
    return f"<figure>\n{content}\n<figcaption>{html.escape(caption)}</figcaption>\n</figure>"


def paragraph(text: str, kind: str = "") -> str:
    """Escaped text; `kind` is a class of the style sheet (verdict, warning, quiet)."""
    return f'<p class="{kind}">{html.escape(text)}</p>' if kind else f"<p>{html.escape(text)}</p>"


def facts_list(facts: dict[str, str]) -> str:
    """Names and values."""
    items = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(str(v))}</dd>\n" for k, v in facts.items())
    return f"<dl>\n{items}</dl>"


def listing(text: str, summary: str = "") -> str:
    """Preformatted text; folded under `summary` where one is given, unfolded in print."""
    body = f"<pre>{html.escape(text.rstrip())}</pre>"
    return f"<details><summary>{html.escape(summary)}</summary>\n{body}\n</details>" if summary else body


def table(content: Table) -> str:
    """The table with its notes."""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in content.head)
    rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>\n" for row in content.rows)
    notes = "".join(f"<li>{html.escape(note)}</li>\n" for note in content.notes)
    return (
        f'<div class="table"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n'
        f'<ul class="notes">\n{notes}</ul>'
    )


def _cell(cell: Cell) -> str:
    value = html.escape(cell.value)
    value = f"<strong>{value}</strong>" if cell.bold else value
    return f"<td>{value} <small>{html.escape(cell.rest)}</small></td>" if cell.rest else f"<td>{value}</td>"


_CSS = """
:root{--paper:#fff;--ink:#1b1f24;--quiet:#57606a;--line:#d8dee4;--wash:#f6f8fa;--accent:#2a7ab9;--alarm:#b42318}
@media (prefers-color-scheme:dark){:root{--paper:#12161b;--ink:#e6e9ed;--quiet:#a3acb7;--line:#323a44;--wash:#1a2027;
--accent:#5aa9e6;--alarm:#ff8a7a}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.6 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif}
main{max-width:60rem;margin:0 auto;padding:3.5rem 1.5rem 5rem}
header{margin-bottom:3rem}
h1{font-size:2rem;line-height:1.2;margin:0 0 1.25rem;letter-spacing:-.015em}
h2{font-size:1.25rem;line-height:1.3;margin:0 0 1.25rem;padding-top:1.75rem;border-top:1px solid var(--line)}
h3{font-size:1rem;margin:2rem 0 .75rem}
section{margin:3rem 0 0}
p{margin:0 0 .75rem;max-width:46rem}
.verdict{font-size:1.2rem;line-height:1.5;padding-left:1rem;border-left:3px solid var(--accent)}
.quiet,figcaption,.notes{color:var(--quiet);font-size:.875rem}
.warning{color:var(--alarm);border:1px solid currentColor;border-radius:6px;padding:.6rem .9rem;font-weight:600}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1.5rem;margin:0 0 1.25rem;font-size:.9rem}
dt{color:var(--quiet)}
dd{margin:0;overflow-wrap:anywhere}
.table{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
th{text-align:left;font-weight:600;padding:.5rem .75rem .5rem 0;border-bottom:1.5px solid var(--ink);
vertical-align:bottom}
td{padding:.5rem .75rem .5rem 0;border-bottom:1px solid var(--line);white-space:nowrap}
td small{color:var(--quiet);font-size:.8rem;margin-left:.25rem}
.notes{margin:.9rem 0 0;padding:0;list-style:none}
.notes li{margin:.15rem 0}
figure{margin:0 0 2.25rem}
figure svg{display:block;width:100%;height:auto;margin:0 auto}
svg *{stroke-linejoin:round;stroke-linecap:butt}
svg text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif!important}
figcaption{margin-top:.75rem;max-width:46rem}
pre{background:var(--wash);border:1px solid var(--line);border-radius:6px;padding:.9rem 1rem;margin:0 0 1rem;
font:.82rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;
overflow-x:auto;white-space:pre-wrap}
summary{cursor:pointer;margin-bottom:.75rem;color:var(--accent)}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(17rem,1fr));gap:1.5rem 2rem}
.card{break-inside:avoid;font-size:.8rem;line-height:1.35}
.card b{display:block;margin-bottom:.35rem;font-weight:600}
.trio{display:grid;grid-template-columns:repeat(3,1fr);gap:.5rem}
.trio img{display:block;width:100%;aspect-ratio:1;object-fit:contain;image-rendering:pixelated;border-radius:3px;
border:1px solid var(--line)}
.trio span{display:block;margin-top:.25rem;color:var(--quiet);white-space:nowrap}
.trio .wrong{color:var(--alarm)}
@page{size:A4;margin:16mm 14mm}
@media print{:root{--paper:#fff;--ink:#000;--quiet:#444;--line:#bbb;--wash:#f6f6f6;--accent:#1d5f94;--alarm:#a11}
:root{font-size:10.5px}body{font-size:1rem}main{max-width:none;padding:0}header{margin-bottom:1.5rem}
section{margin-top:1.5rem}h2{break-after:avoid;padding-top:1.25rem}p,figcaption{max-width:none}
figure,tr,.table,pre{break-inside:avoid}figure svg{width:86%}.grid{grid-template-columns:repeat(3,1fr)}
dl{grid-template-columns:max-content 1fr max-content 1fr}
details::details-content{content-visibility:visible;display:block}}
"""
