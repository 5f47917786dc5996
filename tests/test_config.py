"""Configuration: later sources win, and every mistake is named together with what would have been right."""

from dataclasses import FrozenInstanceError, dataclass, field
from typing import Any

import pytest

from hfftools.config import parse_words, plugin, resolve, to_yaml, with_option
from hfftools.decode.search import configure as search_options
from hfftools.log import UserError
from hfftools.pretrain.masked import configure as pretrain_options
from hfftools.probe.job import configure as probe_options
from hfftools.recorded import compare_config, save_config
from hfftools.train.experiment import configure as train_options


@dataclass(frozen=True)
class Optim:
    lr: float = 1e-3
    warmup_steps: int = 100


@dataclass(frozen=True)
class Schema:
    optim: Optim = field(default_factory=Optim)
    epochs: int = 10
    name: str = "fusion"
    layers: Any = "all"
    amp: bool = False


def yaml(tmp_path, text, name="a.yaml"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_later_sources_win(tmp_path):
    first = yaml(tmp_path, "epochs: 20\noptim: {lr: 0.1}\n")
    second = yaml(tmp_path, "optim: {lr: 0.2}\n", "b.yaml")
    config = resolve(Schema, [first, second], ["optim.warmup_steps=7", "layers=[1,2]"])
    assert (config.epochs, config.optim.lr, config.optim.warmup_steps, config.name) == (20, 0.2, 7, "fusion")
    assert config.layers == [1, 2] and isinstance(config, Schema) and isinstance(config.optim, Optim)
    assert resolve(Schema, [second, first], []).optim.lr == 0.1


def test_the_result_is_read_only():
    with pytest.raises(FrozenInstanceError):
        resolve(Schema, [], []).epochs = 3


@pytest.mark.parametrize(
    ("word", "key", "suggestion"),
    [
        ("epoch=3", "epoch", "epochs"),
        ("optim.learn=3", "optim.learn", "known: lr, warmup_steps"),
        ("nmae=x", "nmae", "name"),
    ],
)
def test_unknown_keys_are_named_with_the_known_ones(tmp_path, word, key, suggestion):
    with pytest.raises(UserError) as error:
        resolve(Schema, [], [word])
    assert f"'{key}'" in str(error.value) and suggestion in str(error.value)
    path, dots, value = key.split("."), key.count("."), word.split("=")[1]
    text = f"{path[0]}: {{{path[1]}: {value}}}" if dots else f"{key}: {value}"
    with pytest.raises(UserError) as error:
        resolve(Schema, [yaml(tmp_path, text)], [])
    assert f"'{key}'" in str(error.value) and suggestion in str(error.value)


@pytest.mark.parametrize("word", ["epochs=many", "epochs=1.5", "optim.lr=fast", "amp=perhaps"])
def test_values_of_the_wrong_type_are_named(word):
    with pytest.raises(UserError, match=word.split("=")[0]):
        resolve(Schema, [], [word])


@pytest.mark.parametrize("word", ["epochs", "--epochs=3", "--epochs"])
def test_arguments_of_another_form_are_refused(word):
    with pytest.raises(UserError, match="not of the form key=value"):
        resolve(Schema, [], [word])


def test_files_that_are_missing_or_no_yaml_are_named(tmp_path):
    with pytest.raises(UserError, match="none.yaml is missing"):
        resolve(Schema, [tmp_path / "none.yaml"], [])
    with pytest.raises(UserError, match="a.yaml is not yaml"):
        resolve(Schema, [yaml(tmp_path, "epochs: [1, 2")], [])


def test_plugins_are_found_by_file_name():
    assert plugin("corpora", "mini").__name__ == "hfftools.corpora.mini"
    with pytest.raises(UserError, match="no corpus 'mimi'; did you mean mini"):
        plugin("corpora", "mimi")


def test_a_saved_config_refuses_what_changed_by_name(tmp_path):
    path = tmp_path / "config.yaml"
    save_config(resolve(Schema, [], ["optim.lr=0.1"]), path)
    frozen = path.read_text()
    compare_config(resolve(Schema, [], ["optim.lr=0.1"]), path)
    with pytest.raises(UserError) as error:
        compare_config(resolve(Schema, [], ["optim.lr=0.2", "epochs=11"]), path)
    assert "optim.lr was 0.1 and is now 0.2" in str(error.value) and "epochs was 10 and is now 11" in str(error.value)
    assert "name" not in str(error.value).replace(str(path), "")
    assert path.read_text() == frozen


def test_a_saved_config_takes_over_what_may_differ(tmp_path):
    path = tmp_path / "config.yaml"
    save_config(resolve(Schema, [], []), path)
    compare_config(resolve(Schema, [], ["epochs=11"]), path, may_differ=["epochs"])
    with pytest.raises(UserError, match="amp was False and is now True"):
        compare_config(resolve(Schema, [], ["epochs=11", "amp=true"]), path, may_differ=["epochs"])


def test_an_option_younger_than_the_saved_config_was_at_its_default(tmp_path):
    path = tmp_path / "config.yaml"
    save_config(resolve(Schema, [], ["epochs=11"]), path)
    path.write_text(path.read_text().replace("  warmup_steps: 100\n", "").replace("amp: false\n", ""))
    compare_config(resolve(Schema, [], ["epochs=11"]), path)
    with pytest.raises(UserError, match="amp was False and is now True, optim.warmup_steps was 100 and is now 7;"):
        compare_config(resolve(Schema, [], ["epochs=11", "amp=true", "optim.warmup_steps=7"]), path)


def test_an_option_of_a_plugin_younger_than_the_saved_config_was_at_its_default(tmp_path):
    path, words = tmp_path / "config.yaml", ["fuse.name=hff", "tune.name=lora", "optim.upstream.lr=1e-4"]
    save_config(train_options([], words), path)
    text = path.read_text()
    for line in ("  normalize: false\n", "  variant: lora\n", "    hold: 0.4\n"):
        assert line in text
        text = text.replace(line, "")
    path.write_text(text)
    compare_config(train_options([], words), path)
    with pytest.raises(
        UserError, match="options: fuse.normalize was False and is now True, tune.variant was 'lora' and"
    ):
        compare_config(train_options([], [*words, "fuse.normalize=true", "tune.variant=dora"]), path)


def test_a_saved_config_resolves_to_itself(tmp_path):
    config = resolve(Schema, [], ["layers=[3,1]", "optim.lr=1e-5", "amp=true"])
    save_config(config, tmp_path / "config.yaml")
    assert resolve(Schema, [tmp_path / "config.yaml"], []) == config


def test_nothing_after_the_sign_is_an_empty_text():
    assert resolve(Schema, [], ["name="]).name == ""


BAD = {  # by command, options out of their range: each must be named by its whole dotted key
    "hff-train": (
        train_options,
        ["seed=-1", "data.batch_seconds=0", "data.workers=-1", "perturb.noise_share=1.5", "optim.clip=0"]
        + [
            "optim.fuse.lr=-1",
            "optim.upstream.schedule=sine",
            "optim.head.warmup=1.1",
            "optim.upstream.freeze_steps=-1",
        ]
        + ["optim.weight_decay=-1", "train.epochs=0", "train.accumulate=0", "train.average=0", "train.patience=-1"]
        + ["train.blank_epochs=-1", "train.minutes=-1", "train.save_minutes=-1", "augment.time_masks=-1"]
        + [
            "augment.channel_width=1.5",
            "mask.time=1.5",
            "task.head=rnn",
            "task.head_layers=0",
            "task.head_layers=1001",
            "task.dropout=1",
        ]
        + ["task.name=asr_transducer task.context=0", "task.name=asr_transducer task.ctc=-1"]
        + [
            "tune.name=adapter_bias tune.form=input",
            "tune.name=compacter tune.rank=0",
            "tune.name=houlsby tune.width=-1",
        ]
        + ["tune.name=conv_adapter tune.block_width=-1", "tune.name=lora tune.alpha=0", "tune.name=lora tune.dropout=1"]
        + ["tune.name=prefix tune.length=0", "fuse.join=mean", "fuse.group=1", "fuse.out_dim=-1"]
        + ["fuse.name=grouped fuse.groups=0", "fuse.name=ladder fuse.reduction=0", "fuse.name=concat fuse.out_dim=-1"]
        + ["fuse.name=l_adapter fuse.width=-1"],
    ),
    "hff-probe": (
        probe_options,
        ["parts=[smell]", "epochs=0", "lr=0", "frames=1", "seed=-1", "head=rnn", "head_dim=0"],
    ),
    "hff-pretrain": (
        pretrain_options,
        [
            "steps=0",
            "lr=0",
            "alpha=2",
            "seed=-1",
            "threads=-1",
            "encoder.heads=0",
            "encoder.dim=50",
            "encoder.kernel=4",
            "encoder.layers=1001",
            "targets.clusters=40000",
            "bf16=2",
        ],
    ),
    "hff-decode": (
        search_options,
        ["search.name=wide", "search.beam_size=0", "search.nbest=0", "search.beam_tokens=0"],
    ),
}


@pytest.mark.parametrize(("command", "words"), [(command, words) for command, (_, bad) in BAD.items() for words in bad])
def test_a_value_out_of_its_range_is_named_by_its_whole_key(command, words):
    with pytest.raises(UserError) as error:
        BAD[command][0]([], words.split())
    key = words.split()[-1].partition("=")[0]
    assert str(error.value).startswith(f"{key}: ")


@pytest.mark.parametrize(("command", "words"), [(command, bad[-1]) for command, (_, bad) in BAD.items()])
def test_a_value_out_of_its_range_is_named_with_its_yaml_file(command, words, tmp_path):
    nested = to_yaml(parse_words(words.split()))
    path, key = yaml(tmp_path, nested), words.split()[-1].partition("=")[0]
    with pytest.raises(UserError) as error:
        BAD[command][0]([path], [])
    assert str(error.value).startswith(f"{path}: {key}: ")


def test_the_last_to_set_an_option_is_to_blame(tmp_path):
    first, second = yaml(tmp_path, "train: {epochs: 0}"), yaml(tmp_path, "train: {epochs: -1}", "b.yaml")
    with pytest.raises(UserError, match=r"/b.yaml: train.epochs: -1 is below 1"):
        train_options([first, second], ["seed=3"])
    with pytest.raises(UserError, match=r"^train.epochs: -2 is below 1"):
        train_options([first, second], ["train.epochs=-2"])
    with pytest.raises(UserError, match=r"^optim.clip: 0.0 is not above 0"):
        train_options([yaml(tmp_path, "train: {epochs: 1}")], ["optim.clip=0"])


def test_a_yaml_file_that_names_no_plugin_is_named(tmp_path):
    path = yaml(tmp_path, "fuse: {name: hfff}\n")
    with pytest.raises(UserError, match=r"a.yaml: there is no fuse 'hfff'; did you mean hff"):
        train_options([path], [])
    with pytest.raises(UserError, match=r"^there is no fuse 'hffff'"):
        train_options([path], ["fuse.name=hffff"])
    assert train_options([path], ["fuse.name=hff"]).fuse.name == "hff"


def test_an_option_of_a_nested_part_can_be_replaced():
    config = resolve(Schema, [], ["epochs=3"])
    changed = with_option(config, "optim.lr", 0.5)
    assert changed == resolve(Schema, [], ["epochs=3", "optim.lr=0.5"]) and config.optim.lr == 1e-3
