#!/usr/bin/env bash
# A Kaldi data directory in; `Successfully validated data-directory …` and exit code 0 out, or what is wrong and 1:
#
#     utils/validate_data_dir.sh [--no-text] data/train
#
# Kaldi's --no-feats is taken too, and says what is so here anyway: feats.scp need not be there.
set -euo pipefail

words=()
for word in "$@"; do
    case "$word" in
        --no-feats) ;;
        *) words+=("$word") ;;
    esac
done
exec hff-datadir validate "${words[@]}"
