# shellcheck shell=bash disable=SC2034
# Where the corpora are. egs/mini makes its own speech and needs none.
