#!/usr/bin/env bash
# Common Voice: one language of a release, all of its training speech or some hours of it. ./run.sh --help
set -euo pipefail
if [ ! -e utils/settings.sh ]; then echo "run.sh: error: run it in its own folder, as ./run.sh" >&2; exit 1; fi
. utils/settings.sh

help_message="Usage: ./run.sh [--stage N] [--stop-stage M] [--option value ...]
  --corpus PATH        a release's tarball, or the folder it was unpacked to (default: COMMONVOICE in db.sh)
  --lang CODE          language, such as fr or zh-CN, which is added to all names; needed if the release has several
  --hours N            train on N hours, taken from every training speaker (default all)
  --dev-hours N        use N hours of dev (default all, whose decoding after each epoch takes long)
  --text 'KEY=VALUE'   how transcripts are written: case=lower|upper|keep punctuation=true numbers=spell (default lower
                       case, no punctuation, digits as they stand)
  --upstream NAME      foundation model (default hff_tiny, which is in the package)
  --methods 'A B'      methods of conf/method; hff is written to exp/fusion (default last_layer weighted_sum hff)
  --seeds '1 2'        seeds, one experiment each (default 1)
  --speeds 'A,B'       speeds at which the training speech is copied, such as 0.9,1.0,1.1 (default 1.0, no copies)
  --unit-kind KIND     char (for text without spaces), bpe (default) or unigram; --unit-size N for the latter two
                       (default 300)
  --choose-rates true  first choose each method's learning rate on dev, by one run for each value of --rates
                       (--upstream-rates for the upstream's own weights); otherwise --train-config sets it
  --searches 'A B'     searches: greedy, beam, beam_lm (beam with a language model) (default greedy beam_lm)
  --lm WHICH           the language model: words (default), a 3-gram of the training text; units, a 6-gram of its units,
                       for text without spaces; or FILE, an ARPA file or a KenLM binary
  --cache true|false   store the frozen upstream's hidden states, so that no epoch computes them again (default true);
                       README.md says how large they are
  --tag NAME           added to experiments' names, for runs with another --train-config or --hours (default: --lang)
  --limit N            at most N utterances per set (default all)
  --epochs N           epochs of training and probing (default: those of their configurations)"

stage=1
stop_stage=6
corpus=${COMMONVOICE}
lang=
hours=
dev_hours=
text=
upstream=hff_tiny
methods="last_layer weighted_sum hff"
seeds="1"
speeds="1.0"
unit_kind=bpe
unit_size=300
choose_rates=false
rates="1e-3 2e-3 4e-3"
upstream_rates="1e-4 3e-4 1e-3"
searches="greedy beam_lm"
lm=words
cache=true
limit=
epochs=
tag=
train_config=conf/train.yaml
probe_config=conf/probe.yaml
. utils/parse_options.sh
. utils/stage.sh

hours=${hours:+$(printf %g "${hours}")} dev_hours=${dev_hours:+$(printf %g "${dev_hours}")} # 10.0 is 10 in names
of=${lang:+_${lang//-/_}} # sets, units and experiments of one language, apart from those of another
probe_set=train${of}${hours:+_${hours}h} dev_set=dev${of}${dev_hours:+_${dev_hours}h} test_sets="test${of}"
train_set=${probe_set}
if [ "${speeds}" != 1.0 ]; then train_set=${probe_set}_sp${speeds//,/_}; fi
units=data/units_${probe_set}_${unit_kind}
if [ "${unit_kind}" != char ]; then units+=${unit_size}; fi
tag=${tag:-${of#_}}
. utils/asr.sh

if stage 1 "data, units and language model"; then
    read -ra options <<<"${text}"
    hff-prepare commonvoice ${corpus:+--source "${corpus}"} --out data ${limit:+--limit "${limit}"} \
        ${lang:+lang="${lang}"} ${hours:+hours="${hours}"} ${dev_hours:+dev_hours="${dev_hours}"} "${options[@]/#/text.}"
    if [ "${train_set}" != "${probe_set}" ]; then
        hff-datadir speed "data/${probe_set}" "data/${train_set}" --speeds "${speeds}"
    fi
    for set in "${probe_set}" "${train_set}" "${dev_set}" ${test_sets}; do utils/validate_data_dir.sh "data/${set}"; done
    hff-units "data/${probe_set}" --kind "${unit_kind}" --size "${unit_size}" --out "${units}"
    ln -sfn "$(basename "${units}")" data/units # the default of hff-train and hff-probe
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
