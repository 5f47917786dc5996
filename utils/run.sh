#!/usr/bin/env bash
# Run a command as jobs on this machine, each with a log:
#
#     utils/run.sh [--max-jobs N] [JOB=1:8] log/x.JOB.log command … JOB …
#
# The command is run once for each number of the range, as many at a time as there are cores (or N), with the number in
# place of JOB in the log's name and in every argument. A log begins with the command and the time of its start, and
# ends with `# Ended (code 0) at …, elapsed time … seconds`. If a job fails, the others still run; the exit code is
# then 1, and the path and the last lines of the first failed job's log are shown.
set -euo pipefail

die() {
    echo "${0##*/}: error: $1" >&2
    exit 1
}

usage="usage: ${0##*/} [--max-jobs N] [JOB=first:last] log-file command …"
max_jobs=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
while [ $# -gt 0 ]; do
    case "$1" in
        --help)
            echo "$usage"
            exit 0
            ;;
        --max-jobs)
            max_jobs=${2:-}
            case "$max_jobs" in '' | *[!0-9]* | 0) die "--max-jobs takes a number above 0, not '$max_jobs'" ;; esac
            shift 2
            ;;
        -*) die "there is no option $1; $usage" ;;
        *) break ;;
    esac
done
first=1 last=1 array=false
if [[ ${1:-} == JOB=* ]]; then
    [[ $1 =~ ^JOB=([0-9]+)(:([0-9]+))?$ ]] || die "'$1' is not JOB=first:last"
    first=${BASH_REMATCH[1]} last=${BASH_REMATCH[3]:-${BASH_REMATCH[1]}} array=true
    [ "$first" -le "$last" ] || die "'$1' is an empty range"
    shift
fi
[ $# -ge 2 ] || die "$usage"
if [ "$first" -lt "$last" ] && [[ $1 != *JOB* ]]; then die "log $1 needs JOB in its name, or all jobs would write to it"; fi

# Print $1 with the number $2 in place of JOB.
filled() { if $array; then printf '%s' "${1//JOB/$2}"; else printf '%s' "$1"; fi; }

# Print the words as one would type them into a shell.
quoted() {
    local word
    for word in "$@"; do
        if [[ $word =~ ^[A-Za-z0-9_./:=,+@%-]+$ ]]; then printf ' %s' "$word"; else printf ' %s' "${word@Q}"; fi
    done
}

# NUMBER LOG COMMAND...: run one job and return its exit code.
run_job() {
    local number=$1 log code=0 began=$SECONDS pid="" words=() word
    shift
    log=$(filled "$1" "$number")
    shift
    for word in "$@"; do words+=("$(filled "$word" "$number")"); done
    mkdir -p "$(dirname "$log")"
    {
        echo "#$(quoted "${words[@]}")"
        echo "# Started at $(date '+%Y-%m-%dT%H:%M:%S') on $(uname -n)"
        echo "#"
    } >"$log"
    # in the background, so that a signal is passed on at once instead of after the command
    "${words[@]}" >>"$log" 2>&1 </dev/null &
    pid=$!
    trap 'kill -TERM "$pid" 2>/dev/null || true' TERM
    wait "$pid" || code=$?
    while kill -0 "$pid" 2>/dev/null; do wait "$pid" || code=$?; done # a signal ends `wait` before the command
    echo "# Ended (code $code) at $(date '+%Y-%m-%dT%H:%M:%S'), elapsed time $((SECONDS - began)) seconds" >>"$log"
    return "$code"
}

# Stop all jobs and exit with code $1.
stop() {
    local pid
    for pid in $(jobs -p); do kill -TERM "$pid" 2>/dev/null || true; done
    wait || true
    exit "$1"
}
trap 'stop 130' INT
trap 'stop 143' TERM

for ((number = first; number <= last; number++)); do
    rm -f "$(filled "$1" "$number")" # otherwise a log of an earlier run would count for a job that could not start
    while [ "$(jobs -pr | wc -l)" -ge "$max_jobs" ]; do wait -n || true; done
    run_job "$number" "$@" &
done
wait || true

# by the logs, not by exit codes: a job that was killed could not report anything, and its log lacks the last line
failed=()
for ((number = first; number <= last; number++)); do
    log=$(filled "$1" "$number")
    if ! tail -n 1 "$log" 2>/dev/null | grep -q '^# Ended (code 0) at '; then failed+=("$log"); fi
done
if [ ${#failed[@]} -gt 0 ]; then
    {
        echo "${0##*/}: ${#failed[@]} of $((last - first + 1)) jobs failed; the log ${failed[0]} ends with:"
        tail -n 10 "${failed[0]}" | sed 's/^/    /' || true
    } >&2
    exit 1
fi
