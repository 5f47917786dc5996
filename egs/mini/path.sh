# shellcheck shell=bash disable=SC2034
# The environment of the recipe: the repository's .venv if `make install` has made it, otherwise the active one.
hff_root=$(cd ../.. && pwd)
if [ -x "${hff_root}/.venv/bin/hff-train" ]; then PATH="${hff_root}/.venv/bin:${PATH}"; fi
export PATH LC_ALL=C.UTF-8 PYTHONIOENCODING=utf-8
command -v hff-train >/dev/null || { echo "path.sh: hff-train is not on PATH; run 'make install' in ${hff_root}" >&2; exit 1; }
