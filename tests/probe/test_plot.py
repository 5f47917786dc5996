"""Pictures of layers: the same at each call, a picture or a panel only for what was measured, gaps for the unknown."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest

from hfftools.expdir import ExpDir
from hfftools.figure import svg
from hfftools.probe import plot
from hfftools.probe.results import LayerResult, ProbeResults


def found(count: int, **more) -> ProbeResults:
    rows = [
        {"layer": i, "diverged": [], "wer": 0.9 - i / 100, "wer_low": 0.88 - i / 100, "wer_high": 0.93 - i / 100}
        | {"mi_phone": i / 100, "norm_mean": 1.5**i, "norm_std": 0.1}
        for i in range(count)
    ]
    of = {
        "upstream": "a/$odd$ one",
        "hash": "7bb8",
        "train": "data/train",
        "dev": "data/dev",
        "layers": rows,
        "facts": {},
    }
    return ProbeResults.from_json(of | more)


def drawn(figure) -> list[np.ndarray]:
    """What the curves of a figure's first panel show."""
    curves = [bars[0].get_ydata() for bars in figure.axes[0].containers]
    plt.close(figure)
    return curves


def cka(count: int) -> dict:
    return {"names": [*map(str, range(count)), "mel"], "matrix": np.eye(count + 1).tolist()}


def test_pictures_are_the_same_at_each_call():
    of = found(3, cka=cka(3), recommendation={"layers": [0], "stop": 0, "best": 0, "reason": "", "yaml": ""})
    for draw in (plot.layer_errors, plot.layer_curves, plot.cka_map):
        first = svg(draw(of))
        assert first == svg(draw(of))
        assert "<dc:date>" not in first and "<text" not in first


@pytest.mark.parametrize("count", [1, 50])
def test_pictures_of_any_depth(count, tmp_path):
    of = found(count, cka=cka(count), recommendation={"layers": [0], "stop": 0, "best": 0, "reason": "", "yaml": ""})
    exp = ExpDir(tmp_path)
    paths = plot.layer_pictures(exp, of)
    assert paths == [exp.layers_image, exp.curves_image, exp.cka_image]
    assert all(path.stat().st_size > 3000 for path in paths)
    assert not plt.get_fignums(), "a figure was left open"


def test_what_was_not_measured_is_not_drawn(tmp_path):
    of = found(4)
    for row in of.layers:
        row.figures |= {"wer": None, "wer_low": None, "wer_high": None}
    assert plot.layer_errors(of) is None and plot.cka_map(of) is None
    figure = plot.layer_curves(of)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Mutual information with …", "Norm of a frame"]
    plt.close(figure)
    of.layers = [LayerResult(0)]
    assert plot.layer_pictures(ExpDir(tmp_path), of) == []


def test_an_undefined_layer_is_a_gap_and_a_diverged_one_is_marked():
    of = found(4)
    of.layers[2].figures |= {"wer": None, "wer_low": None, "wer_high": None}
    of.layers[2].diverged = ["asr"]
    of.layers[3].figures["wer"] = math.nan
    figure = plot.layer_errors(of)
    assert "diverged" in [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    (curve,) = drawn(figure)
    assert np.isfinite(curve).tolist() == [True, True, False, False]


def test_error_rates_are_in_percent_with_their_intervals():
    figure = plot.layer_errors(found(2))
    bars = figure.axes[0].containers[0]
    segment, _ = bars[2][0].get_segments()
    assert segment[:, 1] == pytest.approx([88, 93])
    assert drawn(figure)[0] == pytest.approx([90, 89])


def test_values_that_span_decades_are_on_a_log_scale():
    for count, scale in ((4, "linear"), (20, "log")):
        figure = plot.layer_curves(found(count))
        assert figure.axes[-1].get_title(loc="left") == "Norm of a frame"
        assert figure.axes[-1].get_yscale() == scale
        plt.close(figure)


def test_curves_of_a_panel_differ_without_colour():
    lines = [line for _, line in plot.STYLES]
    assert len({line[0] for line in lines}) == len({line[1:] for line in lines}) == len(lines)
    assert max(len(curves) for *_, curves in plot.PANELS) <= len(lines)
