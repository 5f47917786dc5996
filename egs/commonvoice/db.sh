# shellcheck shell=bash disable=SC2034
# Where the corpora are. COMMONVOICE: a release's tarball, or the folder it was unpacked to, or one language's folder.
COMMONVOICE=
