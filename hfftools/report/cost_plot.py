"""Draw the error rates of methods against their costs."""

from pathlib import Path

from hfftools.figure import plt, save
from hfftools.report.experiments import Plot

# the colours of Okabe and Ito, which colour-blind readers can distinguish, and a marker for each
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#8A6D00")
MARKS = "os^Dv*PX"
LABELS = ("trainable encoder parameters", "GFLOP of a training step per second of audio, upstream run")


def error_against_cost(plot: Plot) -> Path:
    """Draw error rate against trainable encoder parameters and, where they are known, against operations of training.

    A point is the mean over runs, its bar the 95 % interval of that mean over utterances. Return the path of the picture.
    """
    operations = [gflop for *_, gflop in plot.points if gflop is not None]
    known = len(operations) == len(plot.points)
    figure, axes = plt.subplots(1, 1 + known, figsize=(6 * (1 + known), 4), sharey=True, squeeze=False)
    for column, panel in enumerate(axes[0]):
        for place, (name, errors, *costs) in enumerate(plot.points):
            mean = sum(errors.rates) / len(errors.rates)
            turn = place // len(COLOURS)  # the next eight methods have the same colours with other, hollow markers
            style = {
                "fmt": MARKS[(place + turn) % len(MARKS)],
                "color": COLOURS[place % len(COLOURS)],
                "markerfacecolor": "white" if turn else None,
            }
            bars = [[max(0.0, mean - errors.low)], [max(0.0, errors.high - mean)]]
            panel.errorbar(costs[column], mean, bars, markersize=8, capsize=3, elinewidth=1, label=name, **style)
        panel.set(xlabel=LABELS[column])
        panel.grid(alpha=0.3)
    axes[0, 0].set_xscale("symlog", linthresh=1)
    axes[0, 0].set_xlim(left=-0.5)
    axes[0, 0].set_ylabel(f"{plot.metric} (%), 95 % intervals")
    axes[0, 0].set_ylim(0, 1.1 * max(errors.high for _, errors, *_ in plot.points) or 1)
    if known:
        axes[0, 1].set_xlim(0, 1.1 * max(operations) or 1)
    figure.suptitle(plot.title)
    axes[0, -1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return save(figure, plot.path)
