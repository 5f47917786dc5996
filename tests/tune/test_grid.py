"""Check every way to tune on every family of upstreams: initial identity, training, saving, and padding."""

from dataclasses import fields, replace
from itertools import product

import checkpoints
import pytest
import torch

from hfftools.config import plugin, plugin_names
from hfftools.data import datadir
from hfftools.data.batch import Speech
from hfftools.log import UserError
from hfftools.model import Model
from hfftools.text import units
from hfftools.train import checkpoint
from hfftools.train.experiment import configure
from hfftools.upstream.names import load_upstream

FORMS = ["conformer", *(name for name, form in checkpoints.FORMS.items() if form.tune)]  # the first is our own
SMALL = {"width": 8, "block_width": 4, "rank": 2, "length": 3}  # sizes that suit the tiny models, by option


def small(name: str) -> list[str]:
    """Return the options that choose a way to tune, in small sizes."""
    options = {field.name for field in fields(plugin("tune", name).Config)}
    return [f"tune.name={name}", *(f"tune.{key}={size}" for key, size in SMALL.items() if key in options)]


TUNES = {name: small(name) for name in plugin_names("tune") if name != "frozen"} | {
    "full_front": ["tune.name=full", "tune.front_end=true"],
    "full_top2": ["tune.name=full", "tune.layers=top2", "tune.input=false"],
    "houlsby_thomas": ["tune.name=houlsby", "tune.width=8", "tune.inner_norm=true"],
    "houlsby_chen": ["tune.name=houlsby", "tune.width=8", "tune.places=[feed_forward]", "tune.train_norms=false"],
    "houlsby_one": ["tune.name=houlsby", "tune.width=0", "tune.layers=[2]", "tune.train_norms=false"],
    "lora_all": ["tune.name=lora", "tune.rank=2", "tune.projections=[q,k,v,out,up,down]", "tune.layers=all_but_top"],
    "dora": ["tune.name=lora", "tune.rank=2", "tune.variant=dora", "tune.projections=[q,v,down]"],
    "pissa": ["tune.name=lora", "tune.rank=2", "tune.variant=pissa", "tune.projections=[q,v,down]"],
    "adapter_bias_wide": ["tune.name=adapter_bias", "tune.form=intermediate"],
    "prefix_shared": ["tune.name=prefix", "tune.length=3", "tune.shared=true"],
}
NORM_FIRST = ("wav2vec2_large", "wavlm_large", "hf_wav2vec2_large", "hf_wav2vec2_mms", "hf_whisper_cropped")
NORM_FIRST += ("hf_moonshine_partial",)
CHANGES_AT_FIRST = {  # their docstrings say why
    "prefix": FORMS,
    "prefix_shared": FORMS,
    "dora": ["tune.name=lora", "tune.rank=2", "tune.variant=dora", "tune.projections=[q,v,down]"],
    "pissa": ["tune.name=lora", "tune.rank=2", "tune.variant=pissa", "tune.projections=[q,v,down]"],
    "adapter_bias_wide": NORM_FIRST,
}
# Every pair is in the slow tier. A covering subset runs always: each tune on three or four forms, each form with four tunes.
GRID = [
    pytest.param(tune, form, id=f"{tune}-{form}", marks=[] if (row + column) % 4 == 0 else [pytest.mark.slow])
    for (row, tune), (column, form) in product(enumerate(TUNES), enumerate(FORMS))
]
ROTARY = ("wav2vec2conformer_rope", "hf_wav2vec2conformer_rot")


def softmax_cancels(name: str) -> bool:
    """A key bias shifts all scores of a query alike; what rounding leaves of it is no gradient."""
    return name.endswith((".k_proj.bias", ".k_proj.base.bias"))


@pytest.fixture(scope="module")
def upstreams(spelled, encoder):
    loaded = {}

    def load(form):
        if form not in loaded:
            name = str(encoder) if form == "conformer" else spelled(form)
            loaded[form] = (name, load_upstream(name).requires_grad_(False))
        return loaded[form]

    return load


@pytest.fixture
def build(options, upstreams):
    """(form, options) -> a model over a view of the form's upstream, its data, and the upstream itself, untouched."""

    def make(form, *more, seed=0):
        name, upstream = upstreams(form)
        config = configure([], [*options, f"upstream={name}", "fuse.name=weighted_sum", "task.head=linear", *more])
        table = units.load(config.data.units)
        torch.manual_seed(seed)
        read = datadir.read(config.data.train)[:3]
        frames_enough = [replace(u, text=u.text[: int(6 * u.duration_s)]) for u in read]  # in frames of 80 ms too
        return Model(config, table, upstream.view()), Speech(frames_enough, table), upstream

    return make


def nudge(model):
    """Off the zeros that factors start from, the same for all calls."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


def states(upstream, data, rows):
    batch = data.collate([data[row] for row in rows])
    with torch.no_grad():
        return upstream(batch.wav_BN, batch.num_samples_B, upstream.all_layers)


@pytest.mark.parametrize("tune, form", GRID)
def test_initially_the_output_of_the_upstream_is_unchanged(build, tune, form):
    model, data, upstream = build(form, *TUNES[tune])
    now, lens_B = states(model.eval().upstream, data, [0, 1, 2])
    before, lens_before_B = states(upstream, data, [0, 1, 2])
    assert torch.equal(lens_B, lens_before_B) and now.keys() == before.keys()
    same = all((now[layer] - h).abs().max() < 1e-5 for layer, h in before.items())
    assert same == (form not in CHANGES_AT_FIRST.get(tune, ()))


def one_step(model, data, upstream, rotary):
    """Every trainable parameter gets a finite gradient that moves it, and no other moves, nor the upstream in view."""
    model.train()
    nudge(model)
    batch = data.collate([data[row] for row in range(3)])
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    untouched = [p.detach().clone() for p in upstream.parameters()]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    model.loss(batch, batch.random_seeds(0, 0)).mean().backward()
    optimizer.step()
    assert any(n.startswith("upstream.") for n, p in model.named_parameters() if p.requires_grad)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None and torch.equal(parameter, before[name]), name
        elif rotary or not softmax_cancels(name):
            assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().max() > 0, name
            assert not torch.equal(parameter, before[name]), name
    for old, new in zip(untouched, upstream.parameters(), strict=True):
        assert torch.equal(old, new)


@pytest.mark.parametrize("tune, form", GRID)
def test_one_step_moves_what_trains_and_nothing_else(build, tune, form):
    one_step(*build(form, *TUNES[tune]), rotary=form in ROTARY)


@pytest.mark.parametrize(
    "tune, fuse, form",
    [
        ("houlsby_chen", "hff", "wavlm_base"),
        ("lora", "hconv", "wav2vec2_large"),
        ("prefix", "concat", "conformer"),
        ("compacter", "grouped", "data2vec_base"),
        ("bitfit", "ladder", "hubert_base"),
        ("houlsby_thomas", "l_adapter", "hf_wavlm_base"),
        ("full", "hff", "conformer"),
        ("houlsby", "hff", "conformer+wav2vec2_base"),
        ("full_top2", "concat", "wavlm_base+conformer"),
    ],
)
def test_pairs_across(build, upstreams, spelled, encoder, options, tune, fuse, form):
    if "+" not in form:
        return one_step(*build(form, *TUNES[tune], f"fuse.name={fuse}"), rotary=False)
    name = "+".join(str(encoder) if half == "conformer" else spelled(half) for half in form.split("+"))
    config = configure([], [*options, f"upstream={name}", "task.head=linear", *TUNES[tune], f"fuse.name={fuse}"])
    table, upstream = units.load(config.data.units), load_upstream(name).requires_grad_(False)
    torch.manual_seed(0)
    data = Speech(datadir.read(config.data.train)[:3], table)
    one_step(Model(config, table, upstream.view()), data, upstream, rotary=False)


@pytest.mark.parametrize("tune, form", GRID)
def test_padding_changes_no_valid_frame(build, tune, form):
    model, data, upstream = build(form, *TUNES[tune])
    nudge(model)
    model.eval()
    together, lens_B = states(model.upstream, data, [0, 1, 2])
    assert list(together) == upstream.all_layers
    for row in range(3):
        alone, len_1 = states(model.upstream, data, [row])
        assert len_1[0] == lens_B[row] == upstream.out_lens(torch.tensor([round(data.durations_s[row] * 16000)]))[0]
        for layer, h in alone.items():
            assert (h[0, : len_1[0]] - together[layer][row, : len_1[0]]).abs().max() < 1e-4 * max(
                1, h.abs().max()
            ), layer


@pytest.mark.parametrize("tune, form", GRID)
def test_saved_and_loaded_it_gives_the_same_hypotheses(build, tune, form, tmp_path):
    model, data, _ = build(form, *TUNES[tune])
    nudge(model)
    batch = data.collate([data[row] for row in range(3)])
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, model.trained_state(), model)
    other, _, _ = build(form, *TUNES[tune], seed=1)
    checkpoint.load(path, other)
    model.eval(), other.eval()
    with torch.no_grad():
        assert torch.equal(model.task.log_probs(*model.encode(batch)), other.task.log_probs(*other.encode(batch)))
    assert model.predict(batch) == other.predict(batch)
    tensors, info = checkpoint.read(path)
    assert info["upstream_hash"] == model.upstream.hash
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    kept = {name for name in tensors if name in dict(model.named_parameters())}
    assert kept == trained
    assert path.stat().st_size < 4 * sum(t.numel() for t in tensors.values()) + 200 * len(tensors) + 4000
    del tensors[next(name for name in tensors if name.startswith("upstream."))]
    checkpoint.save(path, tensors, model)
    with pytest.raises(UserError, match="has no 'upstream"):
        checkpoint.load(path, other)


@pytest.mark.parametrize("variant", ["lora", "dora", "pissa"])
@pytest.mark.parametrize("form", FORMS)
def test_merged_lora_gives_the_same_output(build, form, variant):
    from hfftools.upstream import graft

    model, data, upstream = build(form, *TUNES["lora_all"], f"tune.variant={variant}")
    nudge(model)
    before, lens_B = states(model.eval().upstream, data, [0, 1, 2])
    untouched = [p.detach().clone() for p in upstream.parameters()]
    assert graft.merge(model.upstream) == 6 * 2
    after, _ = states(model.upstream, data, [0, 1, 2])
    plain, _ = states(upstream, data, [0, 1, 2])
    assert all(torch.equal(old, new) for old, new in zip(untouched, upstream.parameters(), strict=True))
    for layer, h in before.items():
        assert (h - after[layer]).abs().max() < 1e-5 * max(1, h.abs().max())
    assert (plain[3] - after[3]).abs().max() > 1e-2  # there was something to merge
    assert [n for n, _ in model.upstream.named_parameters()] == [n for n, _ in upstream.named_parameters()]


@pytest.mark.parametrize("form", ["conformer", "wav2vec2_base", "wav2vec2_large", "wavlm_base"])
@pytest.mark.parametrize("tune", TUNES)
def test_what_the_tapped_layers_do_not_need_does_not_train(build, tune, form):
    model, data, upstream = build(form, *TUNES[tune], "fuse.layers=[0,2]")
    nudge(model)
    model.train()
    batch = data.collate([data[row] for row in range(3)])
    model.loss(batch).mean().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not softmax_cancels(name):
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    blocks = model.upstream.blocks()
    shared = {id(p) for p in blocks[0].parameters()}  # Compacter's rule
    assert not any(p.requires_grad for p in blocks[2].parameters() if id(p) not in shared)
