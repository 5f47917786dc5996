"""The recommendation: what lies above the lowest layer that is as good as any is not computed, and twins are not fused."""

import numpy as np

from hfftools.config import resolve
from hfftools.model import ROOMS, Config
from hfftools.probe.recommendation import confidently_as_good, recommend
from hfftools.probe.results import SimilarityMatrix


def counts(rate: float, seed: int, utterances: int = 2000) -> list[int]:
    """Errors in utterances of 20 characters."""
    return np.random.default_rng(seed).binomial(20, rate, utterances).tolist()


def test_as_good_is_what_can_be_sure():
    assert confidently_as_good(counts(0.4, 1), counts(0.4, 2))
    assert confidently_as_good(counts(0.3, 1), counts(0.4, 2))
    assert not confidently_as_good(counts(0.43, 1), counts(0.4, 2))  # worse by more than a twentieth
    assert not confidently_as_good(counts(0.4, 1, 20), counts(0.4, 2, 20))  # so few cannot tell


def test_it_stops_at_the_lowest_layer_that_is_confidently_as_good_as_the_best():
    errors = {0: counts(0.6, 0), 1: counts(0.5, 1), 2: counts(0.402, 2), 3: counts(0.398, 3), 4: counts(0.55, 4)}
    found = recommend(errors, None, {})
    assert found.best == 3 and found.stop == 2
    assert found.layers == [0, 2]  # every second one, without CKA
    few = recommend({layer: row[:10] for layer, row in errors.items()}, None, {})
    assert few.stop == few.best


def test_of_layers_that_are_alike_one_is_taken():
    errors = {layer: counts(0.6 - 0.1 * layer, layer) for layer in range(4)}
    matrix = [[1.0, 0.5, 0.3, 0.2], [0.5, 1.0, 0.95, 0.6], [0.3, 0.95, 1.0, 0.7], [0.2, 0.6, 0.7, 1.0]]
    found = recommend(errors, SimilarityMatrix(["0", "1", "2", "3"], matrix), {})
    assert found.stop == 3 and found.layers == [0, 2, 3]  # 1 tells what 2 tells


def test_the_yaml_is_a_configuration_of_training(tmp_path):
    path = tmp_path / "recommendation.yaml"
    path.write_text(recommend({0: counts(0.5, 0), 1: counts(0.2, 1)}, None, {"upstream": "fbank"}).yaml)
    config = resolve(Config, [path], [], ROOMS)
    assert config.upstream == "fbank"
    assert (config.tune.name, config.fuse.name, list(config.fuse.layers)) == ("frozen", "hff", [1])
