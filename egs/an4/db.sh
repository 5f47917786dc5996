# shellcheck shell=bash disable=SC2034
# Where the corpora are. AN4: the folder that holds etc/ and wav/ (or flac/). Empty: stage 1 downloads it.
AN4=
