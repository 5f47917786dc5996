# shellcheck shell=bash disable=SC2034
# Where the corpora are. Only their training parts are used; run.sh --help says what each folder must hold.
LIBRISPEECH=
COMMONVOICE=
AN4=
