"""Results of a probe: what probe.json holds comes back, and parts that were stored one by one are joined by layer."""

import json

import pytest

from hfftools.probe.results import LayerResult, ProbeResults

STORED = {
    "upstream": "tiny", "hash": "7bb8", "train": "data/train", "dev": "data/dev", "how": "Quickly.", "assumed": ["a set"],
    "layers": [
        {"layer": 0, "diverged": ["asr"], "wer": None, "cka_mel": 0.5},
        {"layer": 4, "diverged": [], "wer": 0.25, "cka_mel": 0.125},
    ],
    "facts": {"frames": 7},
    "cka": {"names": ["0", "4", "mel"], "matrix": [[1.0, 0.5, 0.5], [0.5, 1.0, None], [0.5, None, 1.0]]},
    "recommendation": {"layers": [4], "stop": 4, "best": 4, "reason": "It is best.", "yaml": "fuse: {name: hff}\n"},
}  # fmt: skip


@pytest.mark.parametrize("absent", [(), ("cka",), ("cka", "recommendation")])
def test_probe_json_comes_back_as_it_was_written_in_the_same_order(absent):
    stored = {key: value for key, value in STORED.items() if key not in absent}
    assert json.dumps(ProbeResults.from_json(stored).to_json()) == json.dumps(stored)


def test_parts_are_joined_by_layer():
    results = ProbeResults("tiny", "7bb8", "data/train", "data/dev", layers=[LayerResult(0), LayerResult(4)])
    results.add_part({"layers": [{"diverged": ["asr"], "wer": None}, {"wer": 0.25}], "facts": {"train": 9}})
    results.add_part({"layers": [{"layer": 0, "cka_mel": 0.5}, {"layer": 4, "cka_mel": 0.1}], "facts": {"frames": 7}})
    assert results.layers[0] == LayerResult(0, ["asr"], {"wer": None, "cka_mel": 0.5})
    assert results.layers[1].figures == {"wer": 0.25, "cka_mel": 0.1} and results.facts == {"train": 9, "frames": 7}
    with pytest.raises(ValueError, match="shorter"):
        results.add_part({"layers": [{}], "facts": {}})
