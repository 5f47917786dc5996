# shellcheck shell=bash disable=SC2034
# Where the corpora are. LIBRISPEECH: the folder of the parts (train-clean-5, dev-clean-2 …), or its parent, which for
# --librilight also holds librispeech_finetuning/. Empty: stage 1 downloads the parts that are needed.
LIBRISPEECH=
