"""List the kinds of files that tests/fuzz.py damages."""

from pathlib import Path

from fuzz import Kind
from fuzz_data import audio_kinds, corpus_kinds, data_kinds, text_kinds
from fuzz_experiment import experiment_kinds, state_kinds, yaml_kinds


def make_kinds(root: Path) -> dict[str, Kind]:
    """Return all kinds, whose files are in `root`."""
    kinds: dict[str, Kind] = {}
    for make in (data_kinds, text_kinds, audio_kinds, corpus_kinds, experiment_kinds, yaml_kinds, state_kinds):
        kinds |= make(root)
    return kinds
