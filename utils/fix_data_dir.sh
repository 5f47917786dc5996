#!/usr/bin/env bash
# Keep the utterances of a Kaldi data directory that are valid in all its files, sorted; the originals go
# to .backup/:
#
#     utils/fix_data_dir.sh data/train
set -euo pipefail

exec hff-datadir fix "$@"
