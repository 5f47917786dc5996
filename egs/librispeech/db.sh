# shellcheck shell=bash disable=SC2034
# Where the corpora are. LIBRISPEECH: the folder that holds the parts (train-clean-5, dev-clean-2 …), or one above it,
# with librispeech_finetuning/ beside for --librilight; empty: stage 1 downloads what is asked for.
LIBRISPEECH=
