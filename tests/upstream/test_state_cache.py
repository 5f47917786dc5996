"""The cache of hidden states: what was written comes back, anyone's kaldiio reads it, a wrong one is refused."""

import shutil

import kaldiio
import numpy as np
import pytest

from hfftools.expdir import write_json
from hfftools.log import UserError
from hfftools.upstream.state_cache import HiddenCache

STATES = {f"s1-u{i}": {layer: np.random.randn(5 + i, 4).astype(np.float32) for layer in (0, 2)} for i in range(3)}


@pytest.fixture
def cache(tmp_path):
    made = HiddenCache(tmp_path, "dev")
    assert made.write(STATES.items(), [0, 2], "some", {"upstream": "abc", "data: audio": "data1"}) == 18
    return HiddenCache(tmp_path, "dev")


def test_round_trip(cache):
    for utt, hidden in STATES.items():
        back = cache.read(utt, [2, 0])
        assert all(np.array_equal(back[layer], hidden[layer]) for layer in (0, 2))
    anyone = kaldiio.load_scp(str(cache.folder / "layer_02.scp"))
    assert all(np.array_equal(anyone[utt], STATES[utt][2]) for utt in STATES)


def test_it_matches_its_own_upstream_layers_and_utterances_only(cache):
    mine = {"upstream": "abc", "data: audio": "data1"}
    assert cache.lacks([2], mine) == []
    assert cache.lacks([2], {**mine, "upstream": "abd"}) == ["upstream"]
    assert cache.lacks([1, 2], mine) == ["layer 1"]
    assert cache.lacks([2], {**mine, "data: audio": "data2"}) == ["data: audio"]
    with pytest.raises(UserError, match="no states of the present upstream, layer 1; run stage 2 again"):
        cache.check([1], {**mine, "upstream": "abd"})


def test_a_cache_of_an_older_version_is_of_its_upstream_and_data(cache):
    write_json(cache.info_file, {"upstream": "some", "hash": "abc", "data": "d", "layers": [0, 2], "frames": 18})
    new = {"upstream settings": "s", "data: audio": "a"}  # which the older version did not look at
    assert cache.lacks([2], {"upstream": "abc", "data": "d", **new}) == []
    assert cache.lacks([2], {"upstream": "abd", "data": "e", **new}) == ["upstream", "data"]


def test_an_interrupted_write_leaves_no_cache(tmp_path):
    def cut():
        yield "s1-u0", STATES["s1-u0"]
        raise KeyboardInterrupt

    cache = HiddenCache(tmp_path, "dev")
    cache.write(STATES.items(), [0, 2], "some", {"upstream": "abc", "data: audio": "data1"})
    with pytest.raises(KeyboardInterrupt):
        cache.write(cut(), [0, 2], "some", {"upstream": "abc", "data: audio": "data1"})
    assert HiddenCache(tmp_path, "dev").lacks([0], {}) == ["everything"]


def test_a_copy_reads_its_own_archives(cache, tmp_path):
    shutil.copytree(cache.folder, tmp_path / "copy" / "dev")
    cache.write(((utt, {0: -hidden[0]}) for utt, hidden in STATES.items()), [0], "other", {"upstream": "abd"})
    copy = HiddenCache(tmp_path / "copy", "dev")
    for utt, hidden in STATES.items():
        assert np.array_equal(copy.read(utt, [0])[0], hidden[0])


@pytest.mark.parametrize("name", ["a\u2028b", "a\x0bb", "a\x85b", "a:b 1", "é"])
def test_names_may_have_any_character_but_a_line_break(name, tmp_path):
    cache = HiddenCache(tmp_path / name, "dev")
    cache.write([(f"s1-{name.replace(' ', '')}", STATES["s1-u0"])], [0], "some", {"upstream": "abc"})
    back = HiddenCache(tmp_path / name, "dev").read(f"s1-{name.replace(' ', '')}", [0])
    assert np.array_equal(back[0], STATES["s1-u0"][0])
    with pytest.raises(UserError, match="allow no line break in a path"):
        HiddenCache(tmp_path / "a\nb", "dev").write(STATES.items(), [0], "some", {"upstream": "abc"})


def test_a_damaged_archive_is_named(cache):
    (cache.folder / "layer_00.ark").write_bytes(b"")
    with pytest.raises(UserError, match="dev: cannot read s1-u1"):
        cache.read("s1-u1", [0])


def test_states_that_are_not_finite_are_damage(cache):
    cache.write([("u", {0: np.full((2, 3), np.inf)})], [0], "some", {"upstream": "abc"})
    with pytest.raises(UserError, match="cannot read u .layer 0 has values that are not finite"):
        cache.read("u", [0])
