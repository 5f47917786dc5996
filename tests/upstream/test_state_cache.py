"""The cache of hidden states: what was written comes back, other readers read it, a wrong one is refused."""

import shutil

import kaldiio
import numpy as np
import pytest
from safetensors.numpy import load_file

from hfftools.expdir import write_json
from hfftools.log import UserError
from hfftools.upstream import state_shards
from hfftools.upstream.state_cache import FORMS, HiddenCache
from hfftools.upstream.state_shards import pack

MADE_FROM = {"upstream": "abc", "data: audio": "data1"}
STATES = {f"s1-u{i}": {layer: np.random.randn(5 + i, 4).astype(np.float32) for layer in (0, 2)} for i in range(3)}


@pytest.fixture(params=FORMS)
def cache(tmp_path, request):
    made = HiddenCache(tmp_path, "dev")
    assert made.write(STATES.items(), [0, 2], "some", MADE_FROM, request.param) == 18
    return HiddenCache(tmp_path, "dev")


def test_round_trip(cache):
    error = {"float32": 0, "kaldi": 0, "float16": 2.0**-11, "int8": 0.5 / 127}[cache.form()]
    for utt, hidden in STATES.items():
        back = cache.read(utt, [2, 0])
        for layer in (0, 2):
            assert back[layer].dtype == np.float32
            scale_T1 = 1 if error == 0 else np.abs(hidden[layer]).max(axis=1, keepdims=True)
            assert (np.abs(back[layer] - hidden[layer]) <= 1.001 * error * scale_T1).all()


def test_others_read_archives_and_shards(tmp_path):
    for form in ("kaldi", "float16"):
        HiddenCache(tmp_path, form).write(STATES.items(), [0, 2], "some", MADE_FROM, form)
    anyone = kaldiio.load_scp(str(tmp_path / "kaldi" / "layer_02.scp"))
    tensors = load_file(tmp_path / "float16" / "states_00000.safetensors")
    assert len(tensors) == 6
    for utt in STATES:
        assert np.array_equal(anyone[utt], STATES[utt][2])
        assert np.array_equal(tensors[f"2/{utt}"], STATES[utt][2].astype(np.float16))


def test_eight_bits_by_the_formula():
    """h = q s, with s = max |h| / 127 over 64 channels of a frame, and q = h / s rounded."""
    h_TD = np.random.randn(7, 150).astype(np.float32) * 10.0 ** np.arange(-3, 4)[:, None]
    h_TD[2, 64:128] = 0
    packed = pack(h_TD, "int8")
    assert packed[""].dtype == np.int8 and packed["scale "].shape == (7, 3)
    for t in range(7):
        for group, start in enumerate((0, 64, 128)):
            h_G, scale = h_TD[t, start : start + 64], packed["scale "][t, group]
            assert scale == pytest.approx(np.abs(h_G).max() / 127, rel=1e-6)
            q_G = [round(float(h) / float(scale)) if scale else 0 for h in h_G]
            assert np.abs(packed[""][t, start : start + 64] - q_G).max() <= 1
            assert np.abs(packed[""][t, start : start + 64] * scale - h_G).max() <= 0.5001 * scale


@pytest.mark.parametrize("form", ["float16", "int8"])
def test_what_a_form_cannot_hold_stays_float32(form, tmp_path):
    large = np.array([[1.0, -70_000.0], [0.5, 2.0]], np.float32)
    packed = pack(large, "float16")
    assert packed[""].dtype == np.float32 and np.array_equal(packed[""], large)
    assert pack(np.full((2, 3), np.nan), form)[""].dtype == np.float32


def test_an_interrupted_write_is_completed(tmp_path, monkeypatch):
    monkeypatch.setattr(state_shards, "SHARD_BYTES", 1)  # an utterance a shard

    def cut():
        yield from list(STATES.items())[:2]
        raise KeyboardInterrupt

    whole, cache = HiddenCache(tmp_path / "whole", "dev"), HiddenCache(tmp_path, "dev")
    whole.write(STATES.items(), [0, 2], "some", MADE_FROM)
    with pytest.raises(KeyboardInterrupt):
        cache.write(cut(), [0, 2], "some", MADE_FROM)
    assert cache.lacks([0], {}) == ["everything"]
    assert cache.kept([0, 2], MADE_FROM, "float16") == {"s1-u0", "s1-u1"}
    rest = [("s1-u0", {0: np.zeros((1, 1)), 2: np.zeros((1, 1))}), ("s1-u2", STATES["s1-u2"])]
    assert cache.write(rest, [0, 2], "some", MADE_FROM) == 18
    assert {p.name: p.read_bytes() for p in cache.folder.iterdir()} == {
        p.name: p.read_bytes() for p in whole.folder.iterdir()
    }
    for change in ({"layers": [0]}, {"made_from": {"upstream": "abd"}}, {"form": "int8"}):
        with pytest.raises(KeyboardInterrupt):
            cache.write(cut(), [0, 2], "some", MADE_FROM)
        assert cache.kept(**{"layers": [0, 2], "made_from": MADE_FROM, "form": "float16"} | change) == set()
        assert not list(cache.folder.glob("states_*"))


def test_it_matches_its_own_upstream_layers_and_utterances_only(cache):
    mine = MADE_FROM
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
    cache.write(STATES.items(), [0, 2], "some", MADE_FROM)
    with pytest.raises(KeyboardInterrupt):
        cache.write(cut(), [0, 2], "some", MADE_FROM | {"upstream": "abd"})
    assert HiddenCache(tmp_path, "dev").lacks([0], {}) == ["everything"]


def test_a_copy_reads_its_own_states(cache, tmp_path):
    before = {utt: cache.read(utt, [0])[0] for utt in STATES}
    shutil.copytree(cache.folder, tmp_path / "copy" / "dev")
    others = [(utt, {0: -hidden[0]}) for utt, hidden in STATES.items()]
    cache.write(others, [0], "other", {"upstream": "abd"}, cache.form())
    copy = HiddenCache(tmp_path / "copy", "dev")
    for utt, hidden in STATES.items():
        assert np.array_equal(copy.read(utt, [0])[0], before[utt])
        assert np.allclose(cache.read(utt, [0])[0], -before[utt])


@pytest.mark.parametrize("form", ["float32", "kaldi"])
@pytest.mark.parametrize("name", ["a\u2028b", "a\x0bb", "a\x85b", "a:b/ 1", "é"])
def test_names_may_have_any_character_but_a_line_break(name, form, tmp_path):
    cache = HiddenCache(tmp_path / name, "dev")
    cache.write([(f"s1-{name.replace(' ', '')}", STATES["s1-u0"])], [0], "some", {"upstream": "abc"}, form)
    back = HiddenCache(tmp_path / name, "dev").read(f"s1-{name.replace(' ', '')}", [0])
    assert np.array_equal(back[0], STATES["s1-u0"][0])
    with pytest.raises(UserError, match="allow no line break in a path"):
        HiddenCache(tmp_path / "a\nb", "dev").write(STATES.items(), [0], "some", {"upstream": "abc"}, "kaldi")


@pytest.mark.parametrize("keep", [0, 7, 200])
def test_a_damaged_file_is_named(cache, keep):
    name = "layer_00.ark" if cache.form() == "kaldi" else "states_00000.safetensors"
    (cache.folder / name).write_bytes((cache.folder / name).read_bytes()[:keep])
    with pytest.raises(UserError, match="dev: cannot read s1-u2"):
        cache.read("s1-u2", [0])
    (cache.folder / name).unlink()
    with pytest.raises(UserError, match="dev: cannot read s1-u2"):
        cache.read("s1-u2", [0])


def test_states_that_are_not_finite_are_damage(cache):
    cache.write([("u", {0: np.full((2, 3), np.inf)})], [0], "some", {"upstream": "abc"}, cache.form())
    with pytest.raises(UserError, match="cannot read u .layer 0 has values that are not finite"):
        cache.read("u", [0])
