# shellcheck shell=bash disable=SC2034
# Where the corpora are. Only training parts are used; LIBRISPEECH may hold any of the parts named in run.sh.
LIBRISPEECH=
COMMONVOICE=
AN4=
