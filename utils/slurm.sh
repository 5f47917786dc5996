#!/usr/bin/env bash
# Run a command as an array of Slurm jobs, with the logs that utils/run.sh writes:
#
#     utils/slurm.sh [--sbatch-option=value …] [JOB=1:8] log/x.JOB.log command … JOB …
#
# Options before JOB= go to sbatch as they are (--partition=gpu --gres=gpu:1 --mem=32G --cpus-per-task=4), each as one
# word. This folder and the working directory must be on a file system that the nodes share.
set -euo pipefail

die() {
    echo "${0##*/}: error: $1" >&2
    exit 1
}

sbatch_options=()
while [[ ${1:-} == -* ]]; do
    sbatch_options+=("$1")
    shift
done
first=1 last=1 array=false
if [[ ${1:-} == JOB=* ]]; then
    [[ $1 =~ ^JOB=([0-9]+)(:([0-9]+))?$ ]] || die "'$1' is not JOB=first:last"
    first=${BASH_REMATCH[1]} last=${BASH_REMATCH[3]:-${BASH_REMATCH[1]}}
    array=true
    shift
fi
[ $# -ge 2 ] || die "usage: ${0##*/} [--sbatch-option=value …] [JOB=first:last] log-file command …"
if [ "$first" -lt "$last" ] && [[ $1 != *JOB* ]]; then die "log $1 needs JOB in its name, or all jobs would write to it"; fi
command -v sbatch >/dev/null || die "there is no sbatch on this machine; set cmd_backend=local in cmd.sh"

# Print the log $1 of job $2.
log_of() { if $array; then printf '%s' "${1//JOB/$2}"; else printf '%s' "$1"; fi; }
# Return 0 if the job of log $1 ended without an error.
ended() { tail -n 1 "$1" 2>/dev/null | grep -q '^# Ended (code 0) at '; }

mkdir -p "$(dirname "$1")"
script=$1.sbatch slurm_log=$1.slurm # the latter: what a node prints before the job opens its own log
for ((number = first; number <= last; number++)); do rm -f "$(log_of "$1" "$number")"; done
rm -f "$slurm_log"
{
    echo "#!/usr/bin/env bash"
    printf 'cd %q\n' "$PWD"
    printf '%q ' "$(cd "$(dirname "$0")" && pwd)/run.sh"
    # shellcheck disable=SC2016
    if $array; then printf '"JOB=$SLURM_ARRAY_TASK_ID" '; fi
    printf '%q ' "$@"
    echo
} >"$script"

name=$(basename "$1" .log).$$ # unique, so that an interrupted recipe removes its own jobs from the queue and no others
stop() {
    scancel --user="$(id -un)" --name="$name" || true
    kill "$!" 2>/dev/null || true
    exit "$1"
}
trap 'stop 130' INT
trap 'stop 143' TERM

code=0
sbatch --wait --job-name="$name" --array="$first-$last" --output="$slurm_log" --open-mode=append \
    "${sbatch_options[@]}" "$script" &
wait "$!" || code=$? # in the background, so that a signal is handled at once and not after the jobs

failed=()
for ((number = first; number <= last; number++)); do
    log=$(log_of "$1" "$number")
    # a shared file system may show a node's last line some seconds late
    for ((tries = 0; code == 0 && tries < 20; tries++)); do if ended "$log"; then break; else sleep 1; fi; done
    if ! ended "$log"; then failed+=("$log"); fi
done
if [ "$code" -ne 0 ] || [ ${#failed[@]} -gt 0 ]; then
    {
        log=${failed[0]:-$slurm_log}
        if [ ! -r "$log" ]; then log=$slurm_log; fi
        echo "${0##*/}: ${#failed[@]} of $((last - first + 1)) jobs failed, sbatch exit code $code; $log ends with:"
        tail -n 10 "$log" 2>/dev/null | sed 's/^/    /'
    } >&2
    exit 1
fi
