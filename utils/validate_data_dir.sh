#!/usr/bin/env bash
# Check a Kaldi data directory: print `Successfully validated data-directory …` and exit with 0, or print
# the error and exit with 1:
#
#     utils/validate_data_dir.sh [--no-text] data/train
#
# Kaldi's --no-feats is accepted and has no effect: feats.scp may always be missing.
set -euo pipefail

words=()
for word in "$@"; do
    case "$word" in
        --no-feats) ;;
        *) words+=("$word") ;;
    esac
done
exec hff-datadir validate "${words[@]}"
