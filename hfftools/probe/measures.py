"""A layer's row of what a probe found in, numbers to draw and print out; what each measure says, and where it comes from.

A row is {"layer": its number, "diverged": names of probes given up, measure: number or None}, as in probe.json.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple


class Measure(NamedTuple):
    """A column of the table."""

    key: str  # of a layer's row
    head: str
    digits: int  # after the point; of a negative number, as many significant ones
    better: int  # the sign of the better direction, 0 where neither is
    range: str
    says: str


class Part(NamedTuple):
    """Columns under one head, with what they have in common and where they come from."""

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
        "Right, %",
        "A linear classifier trained on the frozen states of this layer alone.",
        (),
        (
            Measure("frame_accuracy", "frame", 1, 1, "0 to 100", "Frames whose phone, or silence, is named rightly."),
            Measure(
                "speaker_accuracy",
                "speaker",
                1,
                1,
                "0 to 100",
                "Held-out utterances of known speakers whose speaker is named rightly, from mean and deviation over frames. "
                "Higher: more of the voice is left, which of itself is of no use to the recognition of words.",
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
        "Linear centred kernel alignment: likeness up to rotation and scale, ruled by directions of large variance.",
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
        "entropy; what chance would give is taken off both.",
        (("Hsu et al. 2021 (HuBERT)", "https://arxiv.org/abs/2106.07447"), *PASAD),
        (
            Measure("mi_phone", "phone", 2, 1, "0 to 1", "With phones: how much of the phone its cluster tells."),
            Measure("mi_word", "word", 2, 1, "0 to 1", "With words: how much of the word its cluster tells."),
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
                "by their root-mean-square norm. 1: alike in all directions.",
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


def value(row: dict, key: str) -> float | None:
    """A measure, or an end of its interval; error rates and accuracies in percent. None where it is undefined."""
    number, percent = row.get(key), key.removesuffix("_low").removesuffix("_high") in PERCENT
    return None if number is None or not math.isfinite(number) else 100 * number if percent else number


def measured(found: dict, keys: Iterable[str]) -> list[str]:
    """Those of `keys` that at least one layer has."""
    return [key for key in keys if any(value(row, key) is not None for row in found["layers"])]


def shown(found: dict) -> list[Part]:
    """The parts that were run, each with the measures that at least one layer has."""
    parts = []
    for part in PARTS:
        keys = measured(found, [measure.key for measure in part.measures])
        if keys:
            parts.append(part._replace(measures=tuple(m for m in part.measures if m.key in keys)))
    return parts


def best_layer(found: dict) -> int | None:
    """The layer that the recommendation calls the best, else the one of the lowest WER; None where neither is there."""
    if found.get("recommendation"):
        return found["recommendation"]["best"]
    rows = [row for row in found["layers"] if value(row, "wer") is not None]
    return min(rows, key=lambda row: row["wer"])["layer"] if rows else None


def best_value(found: dict, measure: Measure) -> float | None:
    """The best of a column; None where neither direction is better, or where there is nothing to choose from."""
    values = [number for row in found["layers"] if (number := value(row, measure.key)) is not None]
    return max(values, key=lambda number: measure.better * number) if measure.better and len(values) > 1 else None


def written(row: dict, measure: Measure) -> str:
    """The number as it is printed; – where it is undefined."""
    return _digits(value(row, measure.key), measure.digits)


def spread(row: dict, measure: Measure) -> str:
    """The 95 % interval of a measure, or ± its standard deviation, as it is printed; nothing where it is not known."""
    low, high = (value(row, f"{measure.key}_{end}") for end in ("low", "high"))
    if None not in (value(row, measure.key), low, high):
        return f"{_digits(low, measure.digits)}–{_digits(high, measure.digits)}"
    deviation = value(row, "norm_std") if measure.key == "norm_mean" else None
    return "" if deviation is None else f"±{_digits(deviation, measure.digits)}"


def _digits(number: float | None, digits: int) -> str:
    return "–" if number is None else f"{number:.{digits}f}" if digits >= 0 else f"{number:.{-digits}g}"


def mark(found: dict, row: dict) -> str:
    """What is to be said beside a row: that it is the best or recommended, and which of its probes diverged."""
    marks = ["best"] if row["layer"] == best_layer(found) and len(found["layers"]) > 1 else []
    marks += ["recommended"] if row["layer"] in (found.get("recommendation") or {}).get("layers", ()) else []
    return "; ".join(marks + ([f"diverged: {', '.join(row['diverged'])}"] if row.get("diverged") else []))
