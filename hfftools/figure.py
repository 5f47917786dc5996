"""Matplotlib, set up once for all pictures: no screen, colours for the colour-blind, files written whole or not at all."""

import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # before pyplot is imported, which would otherwise look for a screen

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402

from hfftools.expdir import write_aside  # noqa: E402

__all__ = ["MaxNLocator", "plt", "save", "svg"]  # with what others take from matplotlib

plt.style.use("tableau-colorblind10")
plt.rcParams["svg.hashsalt"] = "hff"  # else the ids in an SVG differ from call to call


def save(figure: plt.Figure, path: Path) -> Path:
    """Write a PNG, whole or not at all, close the figure, and return the path."""
    with write_aside(path) as aside:
        figure.savefig(aside, format="png", dpi=150, bbox_inches="tight")
    plt.close(figure)  # pyplot holds every open figure in memory
    return path


def svg(figure: plt.Figure) -> str:
    """Return the text of an SVG file, the same at each call, and close the figure.

    Letters are outlines, so that the picture looks alike whatever fonts a reader has.
    """
    text = io.StringIO()
    figure.savefig(text, format="svg", dpi=200, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return text.getvalue()
