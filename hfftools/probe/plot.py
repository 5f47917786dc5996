"""Histories and tables in, PNG and SVG pictures out; the one door to matplotlib. Colours suit the colour-blind and print."""

import io
import textwrap

import matplotlib

matplotlib.use("Agg")

from pathlib import Path  # noqa: E402

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

from hfftools.expdir import ExpDir, read_json_lines, write_aside  # noqa: E402
from hfftools.probe.measures import best_layer, measured, value  # noqa: E402

plt.style.use("tableau-colorblind10")
plt.rcParams["svg.hashsalt"] = "hff"  # else the ids in an SVG differ from call to call

STYLES = (
    ("C0", "o-"),
    ("C1", "s--"),
    ("C3", "^:"),
    ("C4", "d-."),
)  # of a panel's curves: they differ in grey print too
VIEWS = {"mel": "log-mel", "phone": "phones", "word": "words", "first": "first layer"}
PANELS = [  # title, label of the axis, {measure: name of its curve}
    ("Error rates", "errors (%)", {"wer": "WER", "cer": "CER", "per": "PER"}),
    ("Accuracies", "right (%)", {"frame_accuracy": "phone of a frame", "speaker_accuracy": "speaker"}),
    ("PWCCA with …", "PWCCA (0 to 1)", {f"pwcca_{key}": name for key, name in VIEWS.items()}),
    ("Mutual information with …", "share of the labels' entropy", {"mi_phone": "phones", "mi_word": "words"}),
    ("CKA with log-mel", "linear CKA (0 to 1)", {"cka_mel": "linear CKA"}),
    ("Isotropy", "0 to 1 (1: even)", {"isotropy": "isotropy, scaled frames", "isoscore": "IsoScore"}),
    ("Isotropy of raw frames", "natural logarithm (0: even)", {"log_isotropy": "ln of isotropy"}),
    ("Effective rank", "dimensions", {"effective_rank": "exp. of the spectrum's entropy"}),
    ("Norm of a frame", "Euclidean norm", {"norm_mean": "mean ± 1 s.d."}),
]
DECADES = {"log_isotropy", "effective_rank", "norm_mean"}  # log scale where the largest is over 30 times the smallest


def save(figure: plt.Figure, path: Path) -> Path:
    """Write a PNG, whole or not at all, and let go of the figure."""
    with write_aside(path) as aside:
        figure.savefig(aside, format="png", dpi=150, bbox_inches="tight")
    plt.close(figure)
    return path


def _axes(x_label: str, y_label: str, title: str) -> tuple[plt.Figure, plt.Axes]:
    figure, axes = plt.subplots(figsize=(6, 4))
    axes.set(xlabel=x_label, ylabel=y_label, title=title)
    axes.grid(alpha=0.3)
    return figure, axes


def training_curves(exp: ExpDir) -> list[Path]:
    """loss.png, wer.png or cer.png and, where the fusion has layer weights, layer_weights.png of an experiment."""
    history = read_json_lines(exp.history)
    epochs = [record["epoch"] for record in history]
    figure, axes = _axes("epoch", "loss per utterance (nats)", f"{exp.root.name}: loss")
    axes.plot(epochs, [r["loss"] for r in history], label="train")
    axes.plot(epochs, [r["dev_loss"] for r in history], "--", label="dev")
    axes.set_yscale("log")
    axes.legend()
    paths = [save(figure, exp.images / "loss.png")]
    metric = history[-1]["metric"]
    figure, axes = _axes("epoch", f"{metric.upper()} (%)", f"{exp.root.name}: {metric.upper()} on dev")
    axes.plot(epochs, [100 * r["dev_error"] for r in history], marker=".")
    axes.set_ylim(bottom=0)
    paths.append(save(figure, exp.images / f"{metric}.png"))
    weights = history[-1]["layer_weights"]
    if weights:
        figure, axes = _axes(
            "layer", "share of the weighted sum", f"{exp.root.name}: layer weights, epoch {epochs[-1]}"
        )
        axes.bar(list(weights), list(weights.values()))
        paths.append(save(figure, exp.images / "layer_weights.png"))
    return paths


def svg(figure: plt.Figure) -> str:
    """The text of an SVG file, the same at each call; letters are outlines, so that it looks alike everywhere."""
    text = io.StringIO()
    figure.savefig(text, format="svg", dpi=200, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return text.getvalue()


def _column(found: dict, key: str) -> np.ndarray:
    """A measure by layer; not a number, which is drawn as a gap, where it is undefined."""
    return np.array([value(row, key) for row in found["layers"]], dtype=float)


def _draw_curves(axes: plt.Axes, found: dict, curves: dict[str, str], size: float) -> None:
    """One curve a measure, each with its own colour, mark and line, and what is known of its spread as error bars."""
    layers = [row["layer"] for row in found["layers"]]
    for key, (colour, line) in zip(curves, STYLES, strict=False):
        if not measured(found, [key]):
            continue
        y_L = _column(found, key)
        bars_2L = np.stack([y_L - _column(found, f"{key}_low"), _column(found, f"{key}_high") - y_L]).clip(min=0)
        if key == "norm_mean":
            bars_2L = np.stack([_column(found, "norm_std")] * 2)
        spread = {"yerr": np.nan_to_num(bars_2L)} if np.isfinite(bars_2L).any() else {}
        style = {"color": colour, "markersize": size, "linewidth": 1.3, "elinewidth": 0.9, "capsize": size / 3}
        axes.errorbar(layers, y_L, fmt=line, label=curves[key], **spread, **style)
    everything = np.concatenate([_column(found, key) for key in curves])
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
        axes.xaxis.get_major_locator().set_params(nbins=13, integer=True, steps=[1, 2, 4, 5, 10])


def layer_errors(found: dict) -> plt.Figure | None:
    """WER and CER by layer with their intervals, the best layer and the recommended ones marked; None without them."""
    curves = {key: name for key, name in PANELS[0][2].items() if key in measured(found, ("wer", "cer"))}
    if not curves:
        return None
    figure, axes = plt.subplots(figsize=(9, 4.5))
    _draw_curves(axes, found, curves, 6 if len(found["layers"]) <= 26 else 4)
    known, chosen = {row["layer"]: row for row in found["layers"]}, found.get("recommendation") or {"layers": []}
    for place, layer in enumerate(chosen["layers"]):
        label = "_" if place else "recommended layers"  # once in the legend
        axes.axvspan(layer - 0.4, layer + 0.4, color="0.88", linewidth=0, zorder=0, label=label)
    best, key = best_layer(found), next(iter(curves))
    if best in known and len(known) > 1 and value(known[best], key) is not None:
        text = f"best layer: {best} ({', '.join(f'{n} {value(known[best], k):.1f} %' for k, n in curves.items())})"
        axes.plot(best, value(known[best], key), "o", color="k", fillstyle="none", markersize=15, label=text)
    lost = [layer for layer, row in known.items() if "asr" in row.get("diverged", ())]
    if lost:
        axes.plot(lost, [0.03] * len(lost), "kx", transform=axes.get_xaxis_transform(), label="diverged")
    axes.set_ylabel("errors (%), 95 % intervals")
    title = f"Words and characters read from each layer of {found['upstream']}, on {found['dev']}"
    axes.set_title(textwrap.fill(title, 85), parse_math=False)
    entries = sorted(zip(*axes.get_legend_handles_labels(), strict=True), key=lambda e: e[1] not in curves.values())
    axes.legend(*zip(*entries, strict=True), loc="upper center", bbox_to_anchor=(0.5, -0.13), ncol=3, frameon=False)
    return figure


def layer_curves(found: dict) -> plt.Figure | None:
    """Everything that was measured by layer, a panel a group of measures that compare; None where nothing was."""
    panels = [panel for panel in PANELS if measured(found, panel[2])]
    if not panels:
        return None
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(4.2 * columns, 3.3 * rows), squeeze=False, layout="constrained")
    for axes, (title, label, curves) in zip(grid.flat, panels, strict=False):
        _draw_curves(axes, found, curves, 4.5 if len(found["layers"]) <= 26 else 3)
        axes.set_ylabel(label)
        axes.set_title(title, fontsize=11, fontweight="bold", loc="left", pad=22)
        style = {"ncol": 4, "frameon": False, "fontsize": 8.5, "columnspacing": 1.0, "handletextpad": 0.4}
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.98), borderaxespad=0.2, **style)  # never on the data
    for axes in list(grid.flat)[len(panels) :]:
        axes.remove()
    figure.get_layout_engine().set(w_pad=0.1)
    figure.suptitle(textwrap.fill(f"Layers of {found['upstream']}", 45 * columns), parse_math=False)
    return figure


def cka_map(found: dict) -> plt.Figure | None:
    """Linear CKA of each layer with each other, and with the input, which stands apart; None where it was not measured."""
    if not found.get("cka"):
        return None
    names = found["cka"]["names"]
    cka_LL = np.array(found["cka"]["matrix"], dtype=float)
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
    axes.set_title(textwrap.fill(f"Likeness of the layers of {found['upstream']}", 60), parse_math=False)
    figure.colorbar(picture, ax=axes, label="linear CKA (1: alike up to rotation and scale)", fraction=0.046, pad=0.03)
    return figure


def layer_pictures(exp: ExpDir, found: dict) -> list[Path]:
    """layers.png, curves.png and cka.png of what a probe found; what was not measured is left out."""
    drawn = {
        exp.layers_image: layer_errors(found),
        exp.curves_image: layer_curves(found),
        exp.cka_image: cka_map(found),
    }
    return [save(figure, path) for path, figure in drawn.items() if figure is not None]
