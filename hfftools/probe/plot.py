"""Draw pictures of layers from the results of a probe, as figures for the page and as PNG files."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from hfftools.expdir import ExpDir
from hfftools.figure import MaxNLocator, plt, save
from hfftools.probe.measures import best_layer, measured, value
from hfftools.probe.results import ProbeResults

STYLES = (
    ("C0", "o-"),
    ("C1", "s--"),
    ("C3", "^:"),
    ("C4", "d-."),
)  # of a panel's curves: they differ in grey print too
VIEWS = {"mel": "log-mel", "phone": "phones", "word": "words", "first": "first layer"}
PANELS = [  # title, label of the axis, {measure: name of its curve}
    ("Error rates", "errors (%)", {"wer": "WER", "cer": "CER", "per": "PER"}),
    ("Accuracies", "accuracy (%)", {"frame_accuracy": "phone of a frame", "speaker_accuracy": "speaker"}),
    ("PWCCA with …", "PWCCA (0 to 1)", {f"pwcca_{key}": name for key, name in VIEWS.items()}),
    ("Mutual information with …", "share of the labels' entropy", {"mi_phone": "phones", "mi_word": "words"}),
    ("CKA with log-mel", "linear CKA (0 to 1)", {"cka_mel": "linear CKA"}),
    ("Isotropy", "0 to 1 (1: even)", {"isotropy": "isotropy, scaled frames", "isoscore": "IsoScore"}),
    ("Isotropy of raw frames", "natural logarithm (0: even)", {"log_isotropy": "ln of isotropy"}),
    ("Effective rank", "dimensions", {"effective_rank": "exp. of the spectrum's entropy"}),
    ("Norm of a frame", "Euclidean norm", {"norm_mean": "mean ± 1 s.d."}),
]
DECADES = {"log_isotropy", "effective_rank", "norm_mean"}  # log scale where the largest is over 30 times the smallest


def _column(results: ProbeResults, key: str) -> np.ndarray:
    """Return a measure by layer; nan, which is drawn as a gap, where it is undefined."""
    return np.array([value(row, key) for row in results.layers], dtype=float)


def _draw_curves(axes: plt.Axes, results: ProbeResults, curves: dict[str, str], size: float) -> None:
    """Draw one curve for each measure, with its own colour, mark and line, and its interval or deviation as error bars."""
    layers = [row.layer for row in results.layers]
    for key, (colour, line) in zip(curves, STYLES, strict=False):
        if not measured(results, [key]):
            continue
        y_L = _column(results, key)
        bars_2L = np.stack([y_L - _column(results, f"{key}_low"), _column(results, f"{key}_high") - y_L]).clip(min=0)
        if key == "norm_mean":
            bars_2L = np.stack([_column(results, "norm_std")] * 2)
        spread: dict[str, Any] = {"yerr": np.nan_to_num(bars_2L)} if np.isfinite(bars_2L).any() else {}
        style: dict[str, Any] = {
            "color": colour,
            "markersize": size,
            "linewidth": 1.3,
            "elinewidth": 0.9,
            "capsize": size / 3,
        }
        axes.errorbar(layers, y_L, fmt=line, label=curves[key], **spread, **style)
    everything = np.concatenate([_column(results, key) for key in curves])
    everything = everything[np.isfinite(everything)]
    sizes = np.abs(everything)
    if DECADES & set(curves) and sizes.max() > 30 * sizes.min() > 0:
        axes.set_yscale("log" if everything.min() > 0 else "symlog")
    elif everything.min() >= 0:
        axes.set_ylim(0, 1.08 * axes.dataLim.y1 or 1)
    axes.set(xlabel="layer", xlim=(min(layers) - 0.6, max(layers) + 0.6))
    axes.grid(alpha=0.3)
    axes.set_xticks(layers, minor=len(layers) > 13)
    if len(layers) > 13:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=13, integer=True, steps=[1, 2, 4, 5, 10]))


def layer_errors(results: ProbeResults) -> plt.Figure | None:
    """Draw WER and CER by layer with intervals, and mark the best and the recommended layers; None without WER and CER."""
    curves = {key: name for key, name in PANELS[0][2].items() if key in measured(results, ("wer", "cer"))}
    if not curves:
        return None
    figure, axes = plt.subplots(figsize=(9, 4.5))
    _draw_curves(axes, results, curves, 6 if len(results.layers) <= 26 else 4)
    known, chosen = {row.layer: row for row in results.layers}, results.recommended_layers
    for place, layer in enumerate(chosen):
        label = "_" if place else "recommended layers"  # once in the legend
        axes.axvspan(layer - 0.4, layer + 0.4, color="0.88", linewidth=0, zorder=0, label=label)
    best = best_layer(results)
    height = None if best not in known else value(known[best], next(iter(curves)))
    if best is not None and height is not None and len(known) > 1:  # of one layer alone there is no best
        rates = ", ".join(f"{name} {value(known[best], key):.1f} %" for key, name in curves.items())
        text = f"best layer: {best} ({rates})"
        axes.plot(best, height, "o", color="k", fillstyle="none", markersize=15, label=text)
    lost = [layer for layer, row in known.items() if "asr" in row.diverged]
    if lost:
        axes.plot(lost, [0.03] * len(lost), "kx", transform=axes.get_xaxis_transform(), label="diverged")
    axes.set_ylabel("errors (%), 95 % intervals")
    title = f"Words and characters read from each layer of {results.upstream}, on {results.dev}"
    axes.set_title(textwrap.fill(title, 85), parse_math=False)
    entries = sorted(zip(*axes.get_legend_handles_labels(), strict=True), key=lambda e: e[1] not in curves.values())
    axes.legend(*zip(*entries, strict=True), loc="upper center", bbox_to_anchor=(0.5, -0.13), ncol=3, frameon=False)
    return figure


def layer_curves(results: ProbeResults) -> plt.Figure | None:
    """Draw everything that was measured by layer, one panel for each group of comparable measures; None without any."""
    panels = [panel for panel in PANELS if measured(results, panel[2])]
    if not panels:
        return None
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(4.2 * columns, 3.3 * rows), squeeze=False)
    for axes, (title, label, curves) in zip(grid.flat, panels, strict=False):
        _draw_curves(axes, results, curves, 4.5 if len(results.layers) <= 26 else 3)
        axes.set_ylabel(label)
        axes.set_title(title, fontsize=11, fontweight="bold", loc="left", pad=22)
        style = {"ncol": 4, "frameon": False, "fontsize": 8.5, "columnspacing": 1.0, "handletextpad": 0.4}
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.98), borderaxespad=0.2, **style)  # never on the data
    for axes in list(grid.flat)[len(panels) :]:
        axes.remove()
    figure.set_layout_engine("constrained", w_pad=0.1)
    figure.suptitle(textwrap.fill(f"Layers of {results.upstream}", 45 * columns), parse_math=False)
    return figure


def cka_map(results: ProbeResults) -> plt.Figure | None:
    """Draw linear CKA of every pair of layers, and with the input, set apart; None where it was not measured."""
    if not results.cka:
        return None
    names = results.cka.names
    cka_LL = np.array(results.cka.matrix, dtype=float)
    count = sum(name.isdecimal() for name in names)  # the layers; what is not a layer comes after them
    side = 6.0 if len(names) <= 13 else 7.5
    figure, axes = plt.subplots(figsize=(side + 0.8, side))
    picture = axes.imshow(cka_LL, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
    for edge in (axes.axhline, axes.axvline) if count < len(names) else ():
        edge(count - 0.5, color="w", linewidth=4 if len(names) <= 13 else 2)
    if len(names) <= 13:
        for (row, column), number in np.ndenumerate(cka_LL):
            text = "–" if np.isnan(number) else f"{number:.2f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color="w" if number < 0.55 else "k")
    step = -(-count // 13)
    ticks = [*range(0, count, step), *range(count, len(names))]
    ticks = [tick for tick in ticks if not count - step / 2 < tick < count] if count < len(names) else ticks
    axes.set_xticks(ticks, [names[tick] for tick in ticks], rotation=0 if len(names) <= 13 else 90)
    axes.set_yticks(ticks, [names[tick] for tick in ticks])
    axes.set(xlabel="layer", ylabel="layer")
    axes.set_title(textwrap.fill(f"Similarity of the layers of {results.upstream}", 60), parse_math=False)
    figure.colorbar(
        picture, ax=axes, label="linear CKA (1: the same up to rotation and scale)", fraction=0.046, pad=0.03
    )
    return figure


def layer_pictures(exp: ExpDir, results: ProbeResults) -> list[Path]:
    """Write layers.png, curves.png and cka.png, each where its measures are there; return their paths."""
    drawn = {
        exp.layers_image: layer_errors(results),
        exp.curves_image: layer_curves(results),
        exp.cka_image: cka_map(results),
    }
    return [save(figure, path) for path, figure in drawn.items() if figure is not None]
