# shellcheck shell=bash
# To be sourced after parse_options.sh. Run the stages of a recipe from $stage to $stop_stage:
#
#     if stage 3 "layer-wise probing"; then
#         ${cmd} exp/probe/probe.log hff-probe …
#     fi
#     recipe_done
#
# If a command fails, the recipe ends with a message that has the stage's title, the line and the command; it also
# ends at an interrupt. `stage 4 "training" exp/fusion/log.txt` names a log, whose path and last lines are then shown.

set -o errtrace

_stage_title=""
_stage_log=""
_stage_number=""
_stage_failed=""
_stage_count=0
_stage_began=$SECONDS

_stage_line() { # WHERE MESSAGE...: print the time, the place (file:line:function) and the message
    local where=$1
    shift
    printf '%s (%s) %s\n' "$(date '+%Y-%m-%dT%H:%M:%S')" "$where" "$*"
}

# Print a message with the time and the place from which it was called.
log() { _stage_line "${BASH_SOURCE[1]##*/}:${BASH_LINENO[0]}:${FUNCNAME[1]}" "$*"; }

# stage NUMBER TITLE [LOG]: return 0 if this stage is to be run, and print its title.
stage() {
    # shellcheck disable=SC2154
    if [ "$1" -lt "$stage" ] || [ "$1" -gt "$stop_stage" ]; then return 1; fi
    _stage_number=$1 _stage_title="stage $1: $2" _stage_log=${3:-}
    _stage_count=$((_stage_count + 1))
    _stage_line "${BASH_SOURCE[1]##*/}:${BASH_LINENO[0]}:${FUNCNAME[1]}" "$_stage_title"
}

# End a recipe: print the elapsed time, or fail if no stage was run, as for a --stage beyond the last one.
recipe_done() {
    if [ "$_stage_count" -eq 0 ]; then
        _stage_line "${BASH_SOURCE[1]##*/}:${BASH_LINENO[0]}:${FUNCNAME[1]}" \
            "there is no stage from --stage $stage to --stop-stage $stop_stage; nothing was run" >&2
        exit 1
    fi
    _stage_title=""
    local elapsed=$((SECONDS - _stage_began))
    _stage_line "${BASH_SOURCE[1]##*/}:${BASH_LINENO[0]}:${FUNCNAME[1]}" \
        "done, elapsed time $elapsed seconds ($(printf '%d:%02d:%02d' $((elapsed / 3600)) $((elapsed / 60 % 60)) $((elapsed % 60))))"
}

# Print, if a stage failed or was interrupted, where it did and how to resume; $1 is the exit code.
_stage_at_exit() {
    local code=$1
    if [ "$code" -eq 0 ] || [ -z "$_stage_title" ]; then return; fi
    {
        case "$code" in
            130 | 143) _stage_line "${0##*/}" "$_stage_title was interrupted" ;;
            *) _stage_line "${0##*/}" "$_stage_title failed with exit code $code${_stage_failed:+, at $_stage_failed}" ;;
        esac
        if [ -n "$_stage_log" ] && [ -r "$_stage_log" ]; then
            echo "the log $_stage_log ends with:"
            tail -n 10 "$_stage_log" | sed 's/^/    /'
        fi
        echo "to resume here: $0 --stage $_stage_number, with the other options as before"
    } >&2
}

for _stage_bound in stage stop_stage; do
    case "${!_stage_bound:-}" in
        '' | *[!0-9]* | ??????????*) # more than nine digits are no number to bash
            echo "${0##*/}: error: --${_stage_bound//_/-} takes a number, not '${!_stage_bound:-}'" >&2
            exit 1
            ;;
    esac
done

trap '_stage_failed="${BASH_SOURCE[0]##*/}:$LINENO: $BASH_COMMAND"' ERR
trap '_stage_at_exit $?' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
