"""Write the results of a probe as one HTML page that needs no other file, and as a table in plain text."""

import base64
import shlex
import textwrap
from html import escape
from string import Template
from typing import Any

from hfftools.figure import plt, svg
from hfftools.probe import plot
from hfftools.probe.measures import Measure, Part, best_layer, best_value, mark, shown, spread, value, written
from hfftools.probe.results import LayerResult, ProbeResults

WIDTH = 110  # characters of a line of the plain text
BETTER = {-1: "lower", 0: "neither", 1: "higher"}
HTML = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { max-width: 80rem; margin: 0 auto; padding: 1rem 1.5rem 3rem; color: #1a1a1a; background: #fff;
  font: 1rem/1.5 system-ui, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
h1, h2 { line-height: 1.2; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid #bbb; padding-bottom: .2rem; }
p, li, figcaption { max-width: 54rem; overflow-wrap: anywhere; }
code, pre { font: .9rem/1.45 ui-monospace, "DejaVu Sans Mono", "Liberation Mono", monospace; }
pre { background: #f4f4f4; border: 1px solid #ddd; padding: .6rem .9rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
dl, dl div { display: flex; flex-wrap: wrap; gap: .1rem 1.8rem; } dl div { gap: .1rem .5rem; }
dt { color: #555; } dd { margin: 0; overflow-wrap: anywhere; }
.advice { border-left: 5px solid #006ba4; padding: .1rem 0 .1rem 1.1rem; }
.advice strong { font-size: 1.15rem; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; }
figcaption, small { color: #555; } figcaption { font-size: .92rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .5rem; vertical-align: top; text-align: left; border-bottom: 1px solid #ddd; }
.layers td, .layers th { text-align: right; white-space: nowrap; padding: .15rem .36rem; line-height: 1.25; }
.layers thead th { border-bottom: 1px solid #888; } .layers th[colspan] { text-align: center; }
.layers .first { border-left: 1px solid #bbb; }
.layers td:last-child { text-align: left; white-space: normal; font-size: .9em; }
.legend { max-width: 66rem; } .legend th, .legend td:nth-child(n+3) { white-space: nowrap; }
 .legend [colspan], .legend [scope=rowgroup] { background: #f4f4f4; }
.layers .chosen { background: #eaf2f8; } .layers small { display: block; font-size: .84em; }
@page { size: A4 landscape; margin: 12mm; }
@media print {
  body { max-width: none; padding: 0; font-size: 9.5pt; }
  h1 { font-size: 15pt; margin: 0; } h2 { font-size: 12pt; margin: 1em 0 .4em; break-after: avoid; }
  h2:has(+ .wide) { break-before: page; }
  figure, tr, pre, .advice { break-inside: avoid; } thead { display: table-header-group; }
  img { max-height: 140mm; } pre { font-size: 8pt; padding: 3pt 6pt; } p, ul, pre { margin: .5em 0; }
  .wide { overflow: visible; }
  table { font-size: 7.5pt; } .layers td, .layers th { padding: 1pt 3pt; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
</style>
</head>
<body>
$body
</body>
</html>
""")
CAVEATS = (
    "A linear head shows what is linearly readable from one layer alone. It does not show what a fusion of several "
    "layers, or a deeper head, can use: a layer with many errors by itself may still add what the others lack.",
    "Intervals are 95 % bootstrap intervals over utterances of the evaluated set. They hold for this trained head; they "
    "do not cover another seed, another set or other speakers. Two layers whose intervals overlap may still differ "
    "significantly, since both are scored on the same utterances.",
    "PWCCA, CKA, mutual information, isotropy and rank are estimates from the frames and segments counted at the top, and "
    "shift with their number: compare layers of one page rather than pages of different data. Where a sample is too "
    "small for an estimate, the cell has a dash.",
    "Layers are compared on a development set. The result of a system built on this choice belongs on another set.",
)


def _figure(drawn: plt.Figure | None, alt: str, caption: str) -> str:
    """Return a figure element; the image is in the page itself, so that the page can be sent as one file."""
    if drawn is None:
        return ""
    data = base64.b64encode(svg(drawn).encode()).decode()
    image = f'<img alt="{escape(alt)}" src="data:image/svg+xml;base64,{data}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def _inputs(results: ProbeResults) -> str:
    """Return what was probed, on which data and how: names and numbers, and what was assumed."""
    what: dict[str, Any] = {
        "Upstream": results.upstream,
        "Hash": results.hash,
        "Trained on": results.train,
        "Scored on": results.dev,
    }
    what["Layers"] = len(results.layers)
    what |= {key.replace("_", " ").capitalize(): number for key, number in results.facts.items()}
    texts = ((name, f"{it:,}" if isinstance(it, int) else str(it)) for name, it in what.items())
    lines = [f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in texts]
    assumed = "".join(f"<li>{escape(line)}</li>" for line in results.assumed)
    how = f"<p>{escape(results.how)}</p>" if results.how else ""
    return f"<dl>{''.join(lines)}</dl>{how}" + (
        f"<p>Assumed, since it was not given:</p><ul>{assumed}</ul>" if assumed else ""
    )


def _advice(results: ProbeResults, recommendation: str) -> str:
    """Return the recommended layers, the reason, and the command that trains on them; "" without a recommendation."""
    chosen = results.recommendation
    if not chosen:
        return ""
    layers = ", ".join(map(str, chosen.layers))
    words = f"Fuse layers {layers}" if len(chosen.layers) > 1 else f"Take layer {layers} alone"
    above = max(row.layer for row in results.layers) > chosen.stop
    more = f" Nothing above layer {chosen.stop} need be computed." if above else ""
    command = f"hff-train exp/fusion --config {shlex.quote(recommendation)}"
    return (
        f'<h2>Recommendation</h2><div class="advice"><p><strong>{words}.</strong>{more} '
        f"The best layer alone is {chosen.best}.</p><p>{escape(chosen.reason)}</p></div>"
        f"<pre>{escape(command)}</pre><p>with <code>recommendation.yaml</code>, in the folder of this page:</p>"
        f"<pre>{escape(chosen.yaml.rstrip())}</pre>"
    )


def _cell(results: ProbeResults, row: LayerResult, measure: Measure, kind: str) -> str:
    """Return a table cell: the value, bold if it is the best of its column, and its interval or deviation."""
    text, more = escape(written(row, measure)), spread(row, measure)
    if value(row, measure.key) is not None and value(row, measure.key) == best_value(results, measure):
        text = f"<b>{text}</b>"
    return f"<td{kind}>{text}{f'<small>{escape(more)}</small>' if more else ''}</td>"


def _layers(results: ProbeResults) -> str:
    """Return the table with one row for each layer; a vertical line marks where a part begins."""
    parts = shown(results)
    columns: list[tuple[Measure, str]] = []  # with the attribute of its cells
    for part in parts:
        columns += [(m, ' class="first"' if m is part.measures[0] else "") for m in part.measures]
    groups = (f'<th class="first" colspan="{len(p.measures)}" scope="colgroup">{escape(p.name)}</th>' for p in parts)
    heads = (f'<th{kind} scope="col">{escape(measure.head)}</th>' for measure, kind in columns)
    chosen = results.recommended_layers
    rows = []
    for row in results.layers:
        cells = "".join(_cell(results, row, measure, kind) for measure, kind in columns)
        kind = ' class="chosen"' if row.layer in chosen else ""
        rows.append(f'<tr{kind}><th scope="row">{row.layer}</th>{cells}<td>{escape(mark(results, row))}</td></tr>')
    return (
        f'<div class="wide"><table class="layers"><thead><tr><th rowspan="2" scope="col">layer</th>{"".join(groups)}'
        f'<td rowspan="2"></td></tr><tr>{"".join(heads)}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        "<p>Small: the 95 % interval, or ± one standard deviation. Bold: the best of a column, where one direction is "
        "better. –: undefined. Shaded: recommended.</p>"
    )


def _legend(results: ProbeResults) -> str:
    """Return the table that explains the columns."""
    rows = []
    for part in shown(results):
        links = (f'<a href="{link}">{escape(name)}</a>' if link else escape(name) for name, link in part.sources)
        says = " ".join([escape(part.says), "; ".join(links)]).strip()
        rows.append(f'<tr><th scope="rowgroup">{escape(part.name)}</th><td colspan="3">{says}</td></tr>')
        for m in part.measures:
            cells = (m.head, m.says, m.range, BETTER[m.better])
            rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("measure", "what it says", "range", "better"))
    return f'<table class="legend"><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def page(results: ProbeResults, recommendation: str = "recommendation.yaml") -> str:
    """Return a whole HTML5 page of `results`; `recommendation` is the path that its command names."""
    title = f"What the layers of {results.upstream} know"
    best, curves = best_layer(results), shown(results)
    best_note = "" if best is None else f" The best layer is {best}."
    errors = _figure(
        plot.layer_errors(results),
        f"Word and character error rate by layer, with 95 % intervals.{best_note} The table below has the numbers.",
        "How well words and characters are read from each layer alone; lower is better. Bars: 95 % intervals.",
    )
    everything = _figure(
        plot.layer_curves(results),
        f"Curves by layer of: {', '.join(p.name.removesuffix(', %') for p in curves)}. The table below has the numbers.",
        "All measures by layer; the last table explains each. A gap: undefined, or the probe diverged.",
    )
    alike = _figure(
        plot.cka_map(results),
        "Heat map of the linear CKA of each layer with each other and with the log-mel input.",
        "Linear CKA of each pair of layers: light blocks are layers that hold much the same. Set apart: the input.",
    )
    body = [f"<h1>{escape(title)}</h1>", _inputs(results), _advice(results, recommendation)]
    body += [f"<h2>{head}</h2>{it}" for head, it in (("Errors by layer", errors), ("All curves", everything)) if it]
    body += [f"<h2>Similarity of the layers</h2>{alike}"] if alike else []
    body += ["<h2>All numbers</h2>", _layers(results), "<h2>What the measures say</h2>", _legend(results)]
    body += ["<h2>How to read this</h2><ul>", *(f"<li>{escape(caveat)}</li>" for caveat in CAVEATS), "</ul>"]
    return HTML.substitute(title=escape(title), body="\n".join(part for part in body if part))


def _block(results: ProbeResults, part: Part) -> list[str]:
    """Return the lines of a part's columns, all of one width: its name, the headings, one line for each layer."""
    columns = []
    for m in part.measures:
        cells = [written(row, m) for row in results.layers]
        if m.key == "wer":
            ends = [spread(row, m) for row in results.layers]
            cells = [f"{cell} {f'({end})' if end else '':{max(map(len, ends)) + 2}}" for cell, end in zip(cells, ends)]
        width = max(map(len, [m.head, *cells]))
        columns.append([text.rjust(width) for text in (m.head, *cells)])
    lines = ["  ".join(line) for line in zip(*columns, strict=True)]
    width = max(len(lines[0]), len(part.name))
    return [part.name.center(width), *(line.rjust(width) for line in lines)]


def table(results: ProbeResults) -> str:
    """Return the numbers as plain text in lines of at most 110 characters, in as many tables as that takes."""
    heads = [f"What the layers of {results.upstream} know: trained on {results.train}, scored on {results.dev}"]
    heads += [f"assumed {line}" for line in results.assumed]
    layers = ["", "layer", *(str(row.layer).rjust(5) for row in results.layers)]
    marks = ["", "", *(mark(results, row) for row in results.layers)]
    tables, room = [[layers]], WIDTH - 5 - max(map(len, marks)) - 3
    for block in (_block(results, part) for part in shown(results)):
        if len(block[0]) + 3 > room and len(tables[-1]) > 1:
            tables.append([layers])
            room = WIDTH - 5
        tables[-1].append(block)
        room -= len(block[0]) + 3
    tables[0].append(marks)
    if results.recommendation:
        chosen = results.recommendation
        heads.append(f"Recommended: layers {', '.join(map(str, chosen.layers))}. {chosen.reason}")
    texts = [textwrap.fill(head, WIDTH, subsequent_indent="  ", break_on_hyphens=False) for head in heads]
    for columns in tables:
        columns[0] = [text.ljust(5) for text in columns[0]]
        texts += ["", *("   ".join(line).rstrip() for line in zip(*columns, strict=True))]
    return "\n".join(texts) + "\n"
