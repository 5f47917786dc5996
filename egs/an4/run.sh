#!/usr/bin/env bash
# CMU AN4: 0.8 hours of spelled names, numbers and dates; small enough for a laptop. ./run.sh --help
set -euo pipefail
. ./cmd.sh && . ./path.sh && . ./db.sh

help_message="Usage: ./run.sh [--stage N] [--stop-stage M] [--option value ...]
  --corpus DIR         AN4 as it was unpacked (default: AN4 in db.sh; downloaded where that is empty)
  --upstream NAME      foundation model (default hff_tiny, which is in the package)
  --methods 'A B'      methods of conf/method to train; hff goes to exp/fusion,
                       hff_recommended is hff on the layers that stage 3 recommends (default last_layer weighted_sum hff)
  --seeds '1 2'        seeds, one experiment each (default 1 2 3)
  --speeds 'A,B'       speeds at which the training speech is copied; 1.0 for none (default 0.85 to 1.15 in five steps)
  --unit-kind KIND     char, bpe (default) or unigram; --unit-size N for the latter two (default 120)
  --choose-rates true  choose each method's learning rate on dev first, by one run a value of --rates (--upstream-rates for
                       the upstream's own weights); otherwise that of --train-config is used
  --searches 'A B'     how to decode: greedy, beam, and beam_lm, a beam with a language model (default greedy)
  --lm WHICH           that model: words (default), a 3-gram of the training text; units, a 6-gram of its units, for text
                       without spaces; or FILE, an ARPA file or a KenLM binary
  --cache true|false   keep the frozen upstream's hidden states, so that no epoch computes them again (default true)
  --tag NAME           added to the experiments' names, for another --train-config
  --limit N            at most so many utterances a set (default all)
  --epochs N           epochs of training and probing (default: those of their configurations)"

stage=1
stop_stage=6
corpus=${AN4}
upstream=hff_tiny
methods="last_layer weighted_sum hff"
seeds="1 2 3"
speeds="0.85,0.925,1.0,1.075,1.15"
unit_kind=bpe
unit_size=120
choose_rates=false
rates="1e-3 2e-3 4e-3"
upstream_rates="1e-4 3e-4 1e-3"
searches=greedy
lm=words
cache=true
limit=
epochs=
tag=
train_config=conf/train.yaml
probe_config=conf/probe.yaml
. utils/parse_options.sh
. utils/stage.sh

train_set=train_sp${speeds//,/_} probe_set=train dev_set=dev test_sets="test" units=data/units_${unit_kind}
. utils/asr.sh

if stage 1 "data, units and language model"; then
    hff-prepare an4 ${corpus:+--source "${corpus}"} --out data ${limit:+--limit "${limit}"}
    hff-datadir speed data/train "data/${train_set}" --speeds "${speeds}"
    for set in train "${train_set}" dev test; do utils/validate_data_dir.sh "data/${set}"; done
    hff-units data/train --kind "${unit_kind}" --size "${unit_size}" --out "${units}"
    ln -sfn "units_${unit_kind}" data/units # where the bare commands look
    make_lm
fi

if stage 2 "upstream ${upstream}: load, verify, extract"; then
    verify_and_extract
fi

if stage 3 "layer-wise probing of ${upstream} and of log-mel"; then
    probe_layers "${upstream}" fbank
fi

if stage 4 "training: ${methods}"; then
    if "${choose_rates}"; then choose_rates; fi
    train_methods
fi

if stage 5 "decoding and scoring"; then
    decode_methods
fi

if stage 6 "report"; then
    report_methods
fi

recipe_done
