#!/usr/bin/env bash
# LibriSpeech: read English; mini_librispeech's 5 hours, 100 h or 960 h, or Libri-Light's 10 min to 10 h. ./run.sh --help
set -euo pipefail
if [ ! -e utils/settings.sh ]; then echo "run.sh: error: run it in its own folder, as ./run.sh" >&2; exit 1; fi
. utils/settings.sh

help_message="Usage: ./run.sh [--stage N] [--stop-stage M] [--option value ...]
  --corpus DIR         the unpacked corpus (default: LIBRISPEECH in db.sh; if that is empty, it is downloaded)
  --train-part PART    training part (default train-clean-5, mini_librispeech); train-clean-100, train-clean-460 and
                       train-960 are the usual 100, 460 and 960 hours
  --librilight SIZE    train on Libri-Light's limited supervision in place of a part: 10min, 1h or 10h
  --dev-part PART      development part (default dev-clean-2, mini_librispeech)
  --test-parts 'A B'   test parts (default test-clean)
  --upstream NAME      foundation model (default hff_tiny, which is in the package)
  --methods 'A B'      methods of conf/method; hff is written to exp/fusion (default last_layer weighted_sum hff)
  --seeds '1 2'        seeds, one experiment each (default 1)
  --speeds 'A,B'       speeds at which the training speech is copied, such as 0.9,1.0,1.1 (default 1.0, no copies)
  --unit-kind KIND     char, bpe (default) or unigram; --unit-size N for the latter two (default 300)
  --choose-rates true  first choose each method's learning rate on dev, by one run for each value of --rates
                       (--upstream-rates for the upstream's own weights); otherwise --train-config sets it
  --searches 'A B'     searches: greedy, beam, beam_lm (beam with a language model) (default greedy beam_lm)
  --lm WHICH           the language model: words (default), a 3-gram of the training text; units, a 6-gram of its units,
                       for text without spaces; NAME, one of LibriSpeech's 3-gram, 4-gram, 3-gram.pruned.1e-7,
                       3-gram.pruned.3e-7; or FILE, an ARPA file or a KenLM binary, in upper case like the transcripts
  --cache true|false   store the frozen upstream's hidden states, so that no epoch computes them again (default true);
                       README.md says how large they are
  --tag NAME           added to experiments' names, for runs with another --train-config or another training part
  --limit N            at most N utterances per set (default all)
  --epochs N           epochs of training and probing (default: those of their configurations)"

stage=1
stop_stage=6
corpus=${LIBRISPEECH}
train_part=train-clean-5
librilight=
dev_part=dev-clean-2
test_parts="test-clean"
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

probe_set=${train_part//-/_}
if [ -n "${librilight}" ]; then train_part='' probe_set=train_${librilight}; fi
train_set=${probe_set}
if [ "${speeds}" != 1.0 ]; then train_set=${probe_set}_sp${speeds//,/_}; fi
dev_set=${dev_part//-/_} test_sets=${test_parts//-/_} units=data/units_${probe_set}_${unit_kind}
if [ "${unit_kind}" != char ]; then units+=${unit_size}; fi
lm_names="3-gram 3-gram.pruned.1e-7 3-gram.pruned.3e-7 4-gram"
. utils/asr.sh

if stage 1 "data, units and language model"; then
    read -ra parts <<<"${train_part} ${dev_part} ${test_parts}"
    hff-prepare librispeech ${corpus:+--source "${corpus}"} --out data ${limit:+--limit "${limit}"} \
        "parts=[$(IFS=, && echo "${parts[*]}")]" "librilight=${librilight}"
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
