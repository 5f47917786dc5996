#!/usr/bin/env bash
# A Kaldi data directory in; the utterances that all its files have left in it, sorted, and the originals in .backup/:
#
#     utils/fix_data_dir.sh data/train
set -euo pipefail

exec hff-datadir fix "$@"
