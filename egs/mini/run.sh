#!/usr/bin/env bash
# The demo: synthesised speech, the bundled upstream, and three ways to use its frozen layers. ./run.sh --help
set -euo pipefail
if [ ! -e utils/settings.sh ]; then echo "run.sh: error: run it in its own folder, as ./run.sh" >&2; exit 1; fi
. utils/settings.sh

help_message="Usage: ./run.sh [--stage N] [--stop-stage M] [--option value ...]
  --upstream NAME      foundation model (default hff_tiny, which is in the package)
  --methods 'A B'      methods of conf/method to train; hff is written to exp/fusion,
                       hff_recommended is hff on the layers that stage 3 recommends (default last_layer weighted_sum hff)
  --seeds '1 2'        seeds, one experiment each (default 1)
  --unit-kind KIND     char, bpe (default) or unigram; --unit-size N for the latter two (default 100)
  --cache true|false   store the frozen upstream's hidden states, so that no epoch computes them again (default true)
  --tag NAME           added to experiments' names, for runs with another --train-config
  --limit N            at most N utterances per set (default all)
  --epochs N           epochs of training and probing (default: those of their configurations)"

stage=1
stop_stage=6
upstream=hff_tiny
methods="last_layer weighted_sum hff"
seeds="1"
unit_kind=bpe
unit_size=100
cache=true
limit=
epochs=
tag=
train_config=conf/train.yaml
probe_config=conf/probe.yaml
. utils/parse_options.sh
. utils/stage.sh

train_set=train probe_set=train dev_set=dev test_sets="test" units=data/units_${unit_kind} searches=greedy lm=words
. utils/asr.sh

if stage 1 "data and units"; then
    hff-prepare mini --out data ${limit:+--limit "${limit}"}
    for set in train dev test; do utils/validate_data_dir.sh "data/${set}"; done
    hff-units data/train --kind "${unit_kind}" --size "${unit_size}" --out "${units}"
    ln -sfn "units_${unit_kind}" data/units # the default of hff-train and hff-probe
fi

if stage 2 "upstream ${upstream}: load, verify, extract"; then
    verify_and_extract
fi

if stage 3 "layer-wise probing of ${upstream}"; then
    probe_layers "${upstream}"
fi

if stage 4 "training: ${methods}"; then
    train_methods
fi

if stage 5 "decoding and scoring"; then
    decode_methods
fi

if stage 6 "report"; then
    report_methods
fi

recipe_done
