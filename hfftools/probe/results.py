"""The results of a probe as typed records, and their form in probe.json.

In probe.json a layer is one flat object, {"layer", "diverged", measure: number or null, …}; a measure that was not taken
has no key.
"""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class LayerResult:
    """What was measured on one layer."""

    layer: int
    diverged: list[str] = field(default_factory=list)  # names of the probing tasks whose training was given up
    # {measure: its value}, with its interval as <measure>_low and <measure>_high; None where it is undefined
    figures: dict[str, float | None] = field(default_factory=dict)


@dataclass
class SimilarityMatrix:
    """Linear CKA of every pair of views."""

    names: list[str]  # layer numbers, then "mel" for the log-mel input
    matrix: list[list[float | None]]  # [view][view]; None where it is undefined


@dataclass
class Recommendation:
    """Which layers to fuse, and why."""

    layers: list[int]  # to fuse, lowest first
    stop: int  # the highest of them; nothing above it need be computed
    best: int  # the layer with the lowest character error rate
    reason: str  # a sentence or two for the reader
    yaml: str  # a configuration of hff-train


@dataclass
class ProbeResults:
    """All results of one probe."""

    upstream: str  # its name
    hash: str  # of the upstream's weights
    train: str  # data directories
    dev: str
    how: str = ""  # a sentence on the settings
    assumed: list[str] = field(default_factory=list)  # what was not given, and what was taken in its place
    layers: list[LayerResult] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)  # numbers of utterances, frames, classes …
    cka: SimilarityMatrix | None = None
    recommendation: Recommendation | None = None

    @property
    def recommended_layers(self) -> list[int]:
        """Return the layers to fuse; none where nothing was recommended."""
        return self.recommendation.layers if self.recommendation else []

    def add_part(self, part: dict) -> None:
        """Add what one part of the probe measured: {"layers": a row for each layer, "facts", "cka" where it has one}."""
        for result, row in zip(self.layers, part["layers"], strict=True):
            figures = dict(row)
            assert figures.pop("layer", result.layer) == result.layer, "rows in another order"
            result.diverged += figures.pop("diverged", [])
            result.figures |= figures
        self.facts |= part["facts"]
        if "cka" in part:
            self.cka = SimilarityMatrix(**part["cka"])

    def to_json(self) -> dict[str, Any]:
        """Return the content of probe.json."""
        stored = asdict(self)
        for row in stored["layers"]:
            row |= row.pop("figures")
        for key in ("cka", "recommendation"):
            if stored[key] is None:
                del stored[key]
        return stored

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "ProbeResults":
        """Return the results that `to_json` wrote."""
        fields = dict(stored)
        rows = fields.pop("layers")
        cka, recommendation = fields.pop("cka", None), fields.pop("recommendation", None)
        results = cls(
            **fields,
            layers=[LayerResult(row["layer"]) for row in rows],
            recommendation=Recommendation(**recommendation) if recommendation else None,
        )
        results.add_part({"layers": rows, "facts": {}} | ({"cka": cka} if cka else {}))
        return results
