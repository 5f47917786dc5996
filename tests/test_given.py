"""Options as they are given: text is kept as it is written, and what could not be meant is one line that names it."""

import argparse

import pytest

from hfftools.cli import number
from hfftools.decode.search import configure as search_options
from hfftools.log import UserError
from hfftools.pretrain.masked import configure as pretrain_options
from hfftools.probe.job import configure as probe_options
from hfftools.train.experiment import configure as train_options

TEXTS = [
    "1e3",
    "007",
    "yes",
    "null #2",
    "a #b",
    "a: b",
    "[a",
    "{a",
    "*a",
    "@a",
    "%a",
    " a",
    "!!str x",
    "é",
    "😀",
]


@pytest.mark.parametrize("text", TEXTS)
def test_an_option_that_takes_text_gets_the_text_as_it_is_written(text):
    assert train_options([], [f"data.train={text}"]).data.train == text
    assert search_options([], [f"search.tag={text}"]).tag == text


def test_a_text_in_quotes_is_what_they_hold():
    assert train_options([], ['data.train="a\\tb"', "data.dev='c d'"]).data.train == "a\tb"
    assert train_options([], ["data.train="]).data.train == ""


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("data.train=a\nb", r"'data.train=a\\nb' has a line break"),
        ("data.test=[a,b\x0bc]", "another character that cannot be seen"),
        ("data.train=a\u2028b", r"a\\u2028b' has a line break"),
        ("data.train=${x}", r"data.train: hff fills nothing in for '\$\{x\}'"),
        ("data.test=[a,'${x}']", "data.test: hff fills nothing in"),
        ("data.train=???", "data.train: hff fills nothing in for"),
        ("data.test=[a", "is not yaml"),
        ("data.test.0=a", "takes a list"),
        ("seed=[1]", "seed: takes a single value"),
        ("upstream.x=1", "upstream: takes a single value"),
        ("fuse=hff", "fuse takes a name and options, as in fuse.name="),
        ("optim.head=0.1", "optim.head takes options, as in optim.head.lr="),
        ("train=5", "train takes options, as in train.epochs="),
    ],
)
def test_what_cannot_be_meant_is_named(word, named):
    with pytest.raises(UserError, match=named):
        train_options([], [word])


def test_files_have_no_variables_either(tmp_path):
    (tmp_path / "a.yaml").write_text("data: {train: '${oc.env:HOME}/train'}\n")
    with pytest.raises(UserError, match="a.yaml: data.train: hff fills nothing in"):
        train_options([tmp_path / "a.yaml"], [])


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400"])
def test_numbers_are_finite(value, tmp_path):
    beam = ["search.name=beam", "search.lm=a.arpa"]
    for options, words, key in (
        (train_options, [f"optim.head.lr={value}"], "optim.head.lr"),
        (train_options, [f"perturb.snr_db=[10,{value}]"], "perturb.snr_db"),
        (probe_options, [f"clip={value}"], "clip"),
        (pretrain_options, [f"minutes={value}"], "minutes"),
        (search_options, [*beam, f"search.lm_weight={value}"], "search.lm_weight"),
        (search_options, [*beam, f"search.word_score={value}"], "search.word_score"),
    ):
        with pytest.raises(UserError, match=key):
            options([], words)
    (tmp_path / "a.yaml").write_text(f"train: {{minutes: {value.replace('inf', '.inf').replace('nan', '.nan')}}}\n")
    with pytest.raises(UserError, match="a.yaml: train.minutes: "):
        train_options([tmp_path / "a.yaml"], [])
    with pytest.raises(argparse.ArgumentTypeError, match=f"'{value}' is not a finite number"):
        number(value)
