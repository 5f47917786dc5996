"""The measures of a layer: what each says, where it comes from, and its numbers as they are drawn and printed."""

import math
from collections.abc import Iterable
from typing import NamedTuple

from hfftools.probe.results import LayerResult, ProbeResults


class Measure(NamedTuple):
    """A column of the table."""

    key: str  # of a layer's row
    head: str
    digits: int  # after the point; of a negative number, as many significant ones
    better: int  # the sign of the better direction, 0 where neither is
    range: str
    says: str


class Part(NamedTuple):
    """Columns under one heading, with what they have in common and where they come from."""

    name: str
    says: str
    sources: tuple[tuple[str, str], ...]  # name, address or nothing
    measures: tuple[Measure, ...]


PASAD = (
    ("Pasad et al. 2021", "https://arxiv.org/abs/2107.04734"),
    ("Pasad et al. 2023", "https://arxiv.org/abs/2211.03929"),
)
PARTS = (
    Part(
        "Errors, %",
        "A head, linear unless another was asked for, is trained by CTC on the frozen states of this layer alone and "
        "read by its best path, without a language model.",
        (("CTC: Graves et al. 2006", ""),),
        (
            Measure(
                "wer",
                "WER",
                1,
                -1,
                "0 to 100, or more",
                "Word error rate: substituted, deleted and inserted words per word.",
            ),
            Measure("cer", "CER", 1, -1, "0 to 100, or more", "Character error rate of the same output."),
            Measure(
                "per", "PER", 1, -1, "0 to 100, or more", "Phone error rate of a linear head trained by CTC on phones."
            ),
        ),
    ),
    Part(
        "Accuracy, %",
        "A linear classifier trained on the frozen states of this layer alone.",
        (),
        (
            Measure("frame_accuracy", "frame", 1, 1, "0 to 100", "Frames whose phone, or silence, is recognised."),
            Measure(
                "speaker_accuracy",
                "speaker",
                1,
                1,
                "0 to 100",
                "Held-out utterances of known speakers whose speaker is recognised, from mean and deviation over frames. "
                "Higher: the layer keeps more of the voice, which by itself does not help to recognise words.",
            ),
        ),
    ),
    Part(
        "PWCCA",
        "Projection-weighted canonical correlation, cross-validated: how well linear maps bring the layer and a second view "
        "together.",
        (("Morcos et al. 2018", "https://arxiv.org/abs/1806.05759"), *PASAD),
        (
            Measure("pwcca_phone", "phone", 2, 1, "0 to 1", "Mean-pooled phone segments with which phone each is."),
            Measure("pwcca_word", "word", 2, 1, "0 to 1", "Mean-pooled word segments with which word each is."),
            Measure(
                "pwcca_mel", "mel", 2, 0, "0 to 1", "Frames with the log-mel input. Higher: closer to the sound itself."
            ),
            Measure(
                "pwcca_first",
                "first",
                2,
                0,
                "0 to 1",
                "Frames with the first layer. Falls as layers move away from it.",
            ),
        ),
    ),
    Part(
        "CKA",
        "Linear centred kernel alignment: similarity up to rotation and scale, dominated by directions of large variance.",
        (("Kornblith et al. 2019", "https://arxiv.org/abs/1905.00414"),),
        (
            Measure(
                "cka_mel", "mel", 2, 0, "0 to 1", "Frames with the log-mel input. Higher: closer to the sound itself."
            ),
        ),
    ),
    Part(
        "MI",
        "Mutual information of k-means clusters of mean-pooled segments with their labels, as a share of the labels' "
        "entropy; what chance alone would give is subtracted from both.",
        (("Hsu et al. 2021 (HuBERT)", "https://arxiv.org/abs/2106.07447"), *PASAD),
        (
            Measure("mi_phone", "phone", 2, 1, "0 to 1", "With phones: how much the cluster says about the phone."),
            Measure("mi_word", "word", 2, 1, "0 to 1", "With words: how much the cluster says about the word."),
        ),
    ),
    Part(
        "Isotropy",
        "How evenly the frames spread over the directions of their space.",
        (
            ("isotropy: Mu and Viswanath 2018", "https://arxiv.org/abs/1702.01417"),
            ("IsoScore: Rudman et al. 2021", "https://arxiv.org/abs/2108.07344"),
        ),
        (
            Measure(
                "isotropy",
                "scaled",
                3,
                0,
                "0 to 1",
                "Smallest over largest partition function along the principal directions, both signs, of frames divided "
                "by their root-mean-square norm. 1: the same in all directions.",
            ),
            Measure(
                "log_isotropy", "ln, raw", 1, 0, "up to 0", "Natural logarithm of the same for frames as they are."
            ),
            Measure(
                "isoscore",
                "IsoScore",
                3,
                0,
                "0 to 1",
                "Share of dimensions in use, by how even the principal variances are.",
            ),
        ),
    ),
    Part(
        "Size",
        "How much room the frames take.",
        (("effective rank: Roy and Vetterli 2007", ""),),
        (
            Measure(
                "effective_rank",
                "rank",
                1,
                0,
                "1 to width",
                "Exponential of the entropy of the singular values of centred frames: dimensions in use.",
            ),
            Measure("norm_mean", "norm", 1, 0, "from 0", "Euclidean norm of a frame: mean ± standard deviation."),
        ),
    ),
)
PERCENT = {measure.key for part in PARTS if part.name.endswith("%") for measure in part.measures}


def value(row: LayerResult, key: str) -> float | None:
    """Return a measure, or an end of its interval; error rates and accuracies in percent. None where it is undefined.

    nan and infinity count as undefined too, so that one broken layer leaves a gap and not a broken axis.
    """
    number = row.figures.get(key)
    if number is None or not math.isfinite(number):
        return None
    return 100 * number if key.removesuffix("_low").removesuffix("_high") in PERCENT else number


def measured(results: ProbeResults, keys: Iterable[str]) -> list[str]:
    """Return those of `keys` that at least one layer has."""
    return [key for key in keys if any(value(row, key) is not None for row in results.layers)]


def shown(results: ProbeResults) -> list[Part]:
    """Return the parts that were run, each with the measures that at least one layer has."""
    parts = []
    for part in PARTS:
        keys = measured(results, [measure.key for measure in part.measures])
        if keys:
            parts.append(part._replace(measures=tuple(m for m in part.measures if m.key in keys)))
    return parts


def best_layer(results: ProbeResults) -> int | None:
    """Return the best layer of the recommendation, else the one of the lowest WER; None where neither is known.

    The recommendation goes by character errors, which are more numerous and so decide between layers sooner.
    """
    if results.recommendation:
        return results.recommendation.best
    wers = _column(results, "wer")
    return min(wers, key=lambda layer: wers[layer]) if wers else None


def best_value(results: ProbeResults, measure: Measure) -> float | None:
    """Return the best value of a column; None where neither direction is better or fewer than two layers have it."""
    values = _column(results, measure.key).values()
    return max(values, key=lambda number: measure.better * number) if measure.better and len(values) > 1 else None


def _column(results: ProbeResults, key: str) -> dict[int, float]:
    """Return {layer: the measure} of the layers where it is defined."""
    values = {row.layer: value(row, key) for row in results.layers}
    return {layer: number for layer, number in values.items() if number is not None}


def written(row: LayerResult, measure: Measure) -> str:
    """Return the number as it is printed; – where it is undefined."""
    return _digits(value(row, measure.key), measure.digits)


def spread(row: LayerResult, measure: Measure) -> str:
    """Return the 95 % interval of a measure, or ± its standard deviation, as printed; "" where it is not known."""
    low, high = (value(row, f"{measure.key}_{end}") for end in ("low", "high"))
    if value(row, measure.key) is not None and low is not None and high is not None:
        return f"{_digits(low, measure.digits)}–{_digits(high, measure.digits)}"
    deviation = value(row, "norm_std") if measure.key == "norm_mean" else None
    return "" if deviation is None else f"±{_digits(deviation, measure.digits)}"


def _digits(number: float | None, digits: int) -> str:
    if number is None:
        return "–"
    return f"{number:.{digits}f}" if digits >= 0 else f"{number:.{-digits}g}"


def mark(results: ProbeResults, row: LayerResult) -> str:
    """Return the remark at the end of a row: whether it is the best or recommended, and which of its probes diverged."""
    marks = ["best"] if row.layer == best_layer(results) and len(results.layers) > 1 else []
    marks += ["recommended"] if row.layer in results.recommended_layers else []
    marks += [f"diverged: {', '.join(row.diverged)}"] if row.diverged else []
    return "; ".join(marks)
