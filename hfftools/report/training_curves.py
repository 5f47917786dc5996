"""Draw the history of a training run: loss, the task's metric and, where the fusion has them, layer weights."""

from pathlib import Path

from hfftools import score
from hfftools.expdir import ExpDir
from hfftools.figure import plt, save
from hfftools.log import require
from hfftools.records import read_json_lines

_FORM = {
    "epoch": int,
    "loss": float,
    "dev_loss": float,
    "dev_error": float,
    "metric": str,
    "layer_weights": {...: float},
}


def _axes(x_label: str, y_label: str, title: str) -> tuple[plt.Figure, plt.Axes]:
    figure, axes = plt.subplots(figsize=(6, 4))
    axes.set(xlabel=x_label, ylabel=y_label, title=title)
    axes.grid(alpha=0.3)
    return figure, axes


def training_curves(exp: ExpDir) -> list[Path]:
    """Write loss.png, wer.png or what the metric is, and layer_weights.png of a fusion that has them; return their paths."""
    history = read_json_lines(exp.history, _FORM)
    again = f"remove {exp.final} and run hff-train {exp.root} again, which writes both without training again"
    require(bool(history), f"{exp.history} is missing or damaged; {again}")
    epochs = [record["epoch"] for record in history]
    figure, axes = _axes("epoch", "loss per utterance (nats)", f"{exp.root.name}: loss")
    axes.plot(epochs, [r["loss"] for r in history], label="train")
    axes.plot(epochs, [r["dev_loss"] for r in history], "--", label="dev")
    axes.set_yscale("log")
    axes.legend()
    paths = [save(figure, exp.images / "loss.png")]
    metric = history[-1]["metric"]
    label = score.heading(metric, score.is_lower_better(history[-1]))
    figure, axes = _axes("epoch", f"{label}, %", f"{exp.root.name}: {score.title(metric)} on dev")
    axes.plot(epochs, [100 * score.dev_value(r) for r in history], marker=".")
    axes.set_ylim(bottom=0)
    paths.append(save(figure, exp.images / f"{metric}.png"))
    weights = history[-1]["layer_weights"]
    if weights:
        title = f"{exp.root.name}: layer weights, epoch {epochs[-1]}"
        figure, axes = _axes("layer", "share of the weighted sum", title)
        axes.bar(list(weights), list(weights.values()))
        paths.append(save(figure, exp.images / "layer_weights.png"))
    return paths
