"""Histories and tables in, PNG pictures out; the one door to matplotlib. Colours suit the colour-blind and print."""

import matplotlib

matplotlib.use("Agg")

from pathlib import Path  # noqa: E402

import matplotlib.pyplot as plt  # noqa: E402

from hfftools.expdir import ExpDir, read_json_lines, write_aside  # noqa: E402

plt.style.use("tableau-colorblind10")


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
    """loss.png, wer.png and, where the fusion has layer weights, layer_weights.png of an experiment."""
    history = read_json_lines(exp.history)
    epochs = [record["epoch"] for record in history]
    figure, axes = _axes("epoch", "CTC loss per utterance (nats)", f"{exp.root.name}: loss")
    axes.plot(epochs, [r["loss"] for r in history], label="train")
    axes.plot(epochs, [r["dev_loss"] for r in history], "--", label="dev")
    axes.set_yscale("log")
    axes.legend()
    paths = [save(figure, exp.images / "loss.png")]
    figure, axes = _axes("epoch", "WER (%)", f"{exp.root.name}: WER on dev")
    axes.plot(epochs, [100 * r["dev_wer"] for r in history], marker=".")
    axes.set_ylim(bottom=0)
    paths.append(save(figure, exp.images / "wer.png"))
    weights = history[-1]["layer_weights"]
    if weights:
        figure, axes = _axes(
            "layer", "share of the weighted sum", f"{exp.root.name}: layer weights, epoch {epochs[-1]}"
        )
        axes.bar(list(weights), list(weights.values()))
        paths.append(save(figure, exp.images / "layer_weights.png"))
    return paths


def layer_curve(path: Path, title: str, curves: dict[str, dict[int, float]]) -> Path:
    """Error rates in percent by layer, one curve a name; a curve of a single layer becomes a horizontal line."""
    figure, axes = _axes("layer", "%", title)
    marks = iter(("o-", "s--", "^:", "d-."))
    for name, values in curves.items():
        if len(values) == 1:
            axes.axhline(next(iter(values.values())), linestyle="--", color="0.4", label=name)
        else:
            axes.plot(list(values), list(values.values()), next(marks), label=name)
            axes.set_xticks(list(values))
    axes.set_ylim(bottom=0)
    axes.legend()
    return save(figure, path)
