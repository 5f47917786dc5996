#!/usr/bin/env bash
# Rebuild hff_tiny, the upstream in the package, from training parts of public corpora. ./run.sh --help
set -euo pipefail
if [ ! -e utils/settings.sh ]; then echo "run.sh: error: run it in its own folder, as ./run.sh" >&2; exit 1; fi
. utils/settings.sh

help_message="Usage: ./run.sh [--stage N] [--stop-stage M] [--option value ...]
  --librispeech DIR    holds train-clean-5 and train-clean-100-1perspk (default: LIBRISPEECH in db.sh)
  --commonvoice DIR    a Common Voice English language folder (default: COMMONVOICE in db.sh)
  --an4 DIR            holds etc/ and wav/ or flac/ (default: AN4 in db.sh)
  --teacher UPSTREAM   whose hidden states are clustered (default hf:openai/whisper-base; or hf:FOLDER)
Stages: 1 data, 2 targets (20 minutes on two cores), 3 pre-training (9 minutes on an H200, 7 hours on two cores),
4 copy the checkpoint into the package."

stage=1
stop_stage=4
librispeech=${LIBRISPEECH}
commonvoice=${COMMONVOICE}
an4=${AN4}
teacher=hf:openai/whisper-base
. utils/parse_options.sh
. utils/stage.sh

sets="[data/librispeech/train_clean_5,data/librispeech/train_clean_100_1perspk,data/commonvoice/train,data/an4/train,data/mini/train]"

if stage 1 "data: training parts of LibriSpeech, Common Voice and AN4, and synthesised speech"; then
    hff-prepare librispeech --source "${librispeech}" --out data/librispeech
    hff-prepare commonvoice --source "${commonvoice}" --out data/commonvoice
    hff-prepare an4 --source "${an4}" --out data/an4
    hff-prepare mini --out data/mini
fi

pretrain=(hff-pretrain exp/hff_tiny --method hff_tiny data="${sets}" targets.source="${teacher}")

if stage 2 "targets: clusters of the hidden states of ${teacher}"; then
    "${pretrain[@]}" --targets-only
fi

if stage 3 "pre-training"; then
    "${pretrain[@]}"
fi

if stage 4 "copy the checkpoint into the package"; then
    cp exp/hff_tiny/encoder.safetensors "${hff_root}/hfftools/upstream/weights/hff_tiny.safetensors"
fi

recipe_done
