#!/usr/bin/env bash
# CMU AN4: 0.8 hours of spelled names, numbers and dates; small enough for a laptop. ./run.sh --help
set -euo pipefail
if [ ! -e utils/settings.sh ]; then echo "run.sh: error: run it in its own folder, as ./run.sh" >&2; exit 1; fi
. utils/settings.sh

help_message="Usage: ./run.sh [--stage N] [--stop-stage M] [--option value ...]
  --corpus DIR         the unpacked corpus (default: AN4 in db.sh; if that is empty, it is downloaded)
  --upstream NAME      foundation model (default hff_tiny, which is in the package)
  --methods 'A B'      methods of conf/method to train; hff is written to exp/fusion,
                       hff_recommended is hff on the layers that stage 3 recommends (default last_layer weighted_sum hff)
  --seeds '1 2'        seeds, one experiment each (default 1 2 3)
  --speeds 'A,B'       speeds of the copies of training speech; 1.0 makes none (default 0.85 to 1.15 in five steps)
  --unit-kind KIND     char, bpe (default) or unigram; --unit-size N for the latter two (default 120)
  --choose-rates true  first choose each method's learning rate on dev, by one run for each value of --rates
                       (--upstream-rates for the upstream's own weights); otherwise --train-config sets it
  --searches 'A B'     searches: greedy, beam, beam_lm (beam with a language model) (default greedy)
  --lm WHICH           the language model: words (default), a 3-gram of the training text; units, a 6-gram of its units,
                       for text without spaces; or FILE, an ARPA file or a KenLM binary
  --cache true|false   store the frozen upstream's hidden states, so that no epoch computes them again (default true)
  --tag NAME           added to experiments' names, for runs with another --train-config
  --limit N            at most N utterances per set (default all)
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
    ln -sfn "units_${unit_kind}" data/units # the default of hff-train and hff-probe
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
