"""The methods' parameters at full size, against the published counts and shares that ../shared tells the making of."""

import pytest
import torch

from hfftools.bench.measurement import made_up_units
from hfftools.config import conf_file
from hfftools.meter.resources import parameters
from hfftools.model import Model
from hfftools.nn.adapter import Bottleneck
from hfftools.train.experiment import configure
from hfftools.upstream.names import parse

HEAD = 768 * 32 + 32  # a linear CTC head over 32 letters, as the shares were published with
MASK = 768  # the mask embedding, which is in the published totals


@pytest.fixture(scope="module")
def count():
    """(upstream, method, options) -> its counts; each upstream is built once."""
    built = {}

    def counts(name, method, *options):
        if name not in built:
            torch.manual_seed(0)
            built[name] = parse(name).random()
        config = configure([conf_file("method", method)], [f"upstream={name}", "task.head=linear", *options])
        return parameters(Model(config, made_up_units(32), built[name].view()))

    return counts


@pytest.mark.parametrize(
    "method, options, published",
    [
        ("houlsby_chen", [], 599_424),
        ("lora", [], 294_912),
        ("bitfit", [], 104_704),
        ("bitfit", ["tune.outside=false"], 101_376),
        ("adapter_bias", [], 18_444),
        ("adapter_bias", ["tune.form=intermediate"], 46_092),
        ("prefix", [], 184_320),
        ("prefix", ["tune.shared=true"], 92_160),
        ("weighted_sum", [], 13),
        ("last_layer", [], 0),
    ],
)
def test_parameters_added_to_hubert_base(count, method, options, published):
    """Chen et al., arXiv:2210.06175."""
    assert count("hubert_base", method, *options)["trainable_encoder"] == published


@pytest.mark.parametrize(
    "method, options, share",
    [
        ("full", [], 95.55),  # printed as 95.6
        ("full_top8", [], 65.5),
        ("full_top8", ["tune.input=false"], 60.1),
        ("houlsby_thomas", [], 9.2),
        ("houlsby_top6", [], 4.85),
    ],
)
def test_shares_of_wav2vec2_base(count, method, options, share):
    """Thomas et al., arXiv:2202.03218: what trains beside all there is, the CTC head with it."""
    counts = count("wav2vec2_base", method, *options)
    everything = counts["upstream_total"] + MASK + counts["inserted"] + HEAD
    assert 100 * (counts["trainable_encoder"] + HEAD) / everything == pytest.approx(share, abs=0.06)


def test_l_and_e_adapters_on_wavlm_base(count):
    """arXiv:2212.02780 has 9.13 M: L-adapters on twelve blocks, E-adapters in eleven, all blocks' norms; within 0.1 %."""
    counts = count("wavlm_base", "le_adapter")
    assert counts["fuse"] == 12 * (768 * 512 + 512 + 2 * 512) + 12
    assert counts["inserted"] == 11 * (768 * 256 * 2 + 256 + 768 + 2 * 768)
    assert counts["upstream"] == 12 * 2 * 2 * 768
    assert counts["trainable_encoder"] == pytest.approx(9.13e6, rel=1e-3)


def test_compacter(count):
    counts = count("hubert_base", "compacter")
    adapter = (768 + 24 + 24) + (24 + 768 + 768)  # s, t and bias of each of the two layers, rank 1
    assert counts["inserted"] == 24 * adapter + 4**3 and counts["upstream"] == 12 * 2 * 2 * 768


def test_hff_with_adapters_is_97_percent_fewer(count):
    """At 24 × 1024: 9.6 M of fusion (tests/fuse/test_hff.py) and an adapter of an eighth in each block."""
    adapters = 24 * sum(p.numel() for p in Bottleneck(1024, 128).parameters())
    assert adapters == pytest.approx(6.3e6, rel=0.01)
    assert (9.6e6 + adapters) / 600e6 == pytest.approx(0.0265, abs=2e-4)
    assert count("hubert_base", "hff_houlsby")["inserted"] == 12 * (768 * 96 * 2 + 96 + 768)
