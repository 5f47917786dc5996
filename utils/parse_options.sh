# shellcheck shell=bash
# To be sourced. Set variables of the sourcing script from arguments `--name value`, and leave the others in "$@".
#
# Every variable that the script assigns at its top, at the start of a line and before it sources this file, is an option:
# `train_set=train` is set by `--train-set dev`. A variable whose default is true or false accepts no other
# values. `--config file`, a shell file of such assignments, is read before all other options. `--help`
# prints $help_message and the options.

recipe_command="$0${*:+ $*}" # for the report, which says how it was made
: "${recipe_command}"

_options_die() {
    printf '%s: error: %s\n' "${0##*/}" "$1" >&2
    exit 1
}

# Print the names that file $1 assigns at the start of a line, or after a `;` there, before it sources this file.
_options_in() {
    sed '/parse_options\.sh/q' "$1" | LC_ALL=C grep -oE "^([a-z][a-z0-9_]*=[^;\"']*;[[:space:]]*)*[a-z][a-z0-9_]*=" |
        LC_ALL=C grep -oE '[a-z][a-z0-9_]*=' | tr -d '=' || true
}

# Print a clause for an error message: the known option nearest to $1 by edit distance, and all known ones.
_options_near() {
    local known="${_options_known[*]//_/-}"
    awk -v given="$1" -v known="$known" '
        function distance(a, b,    i, j, d, cost, best) {
            for (i = 0; i <= length(a); i++) d[i, 0] = i
            for (j = 0; j <= length(b); j++) d[0, j] = j
            for (i = 1; i <= length(a); i++)
                for (j = 1; j <= length(b); j++) {
                    cost = substr(a, i, 1) != substr(b, j, 1)
                    best = d[i - 1, j - 1] + cost
                    if (d[i - 1, j] + 1 < best) best = d[i - 1, j] + 1
                    if (d[i, j - 1] + 1 < best) best = d[i, j - 1] + 1
                    d[i, j] = best
                }
            return d[length(a), length(b)]
        }
        BEGIN {
            count = split(known, names, " ")
            near = ""; limit = length(given) / 3 + 1
            for (n = 1; n <= count; n++) {
                gap = distance(given, names[n])
                if (gap < limit) { limit = gap; near = names[n] }
            }
            if (near != "") printf "did you mean --%s? ", near
            printf "known:"
            for (n = 1; n <= count; n++) printf " --%s", names[n]
        }'
}

# Return 0 if $1 is the name of an option.
_options_is_known() {
    local name
    for name in "${_options_known[@]}"; do
        if [ "$name" = "$1" ]; then return 0; fi
    done
    return 1
}

# Print the answer to --help.
_options_help() {
    local name
    if [ -n "${help_message:-}" ]; then printf '%s\n\n' "$help_message"; fi
    echo "Options and their values:"
    echo "  --config <file>     read first"
    for name in "${_options_known[@]}"; do
        printf '  --%s %s\n' "${name//_/-}" "${!name}"
    done
}

# Set variable $1 to value $2; $3 is what the user wrote.
_options_set() {
    case "${_options_default[$1]}" in
        true | false)
            if [ "$2" != true ] && [ "$2" != false ]; then _options_die "$3 takes true or false, not '$2'"; fi
            ;;
    esac
    printf -v "$1" '%s' "$2"
}

_options_file=${BASH_SOURCE[1]}
if [ ! -r "$_options_file" ]; then _options_file=${_options_file##*/}; fi # the script has changed to its own folder
_options_known=()
declare -A _options_default=()
for _options_name in $(_options_in "$_options_file"); do
    if [ -n "${!_options_name+set}" ] && [ "$_options_name" != help_message ] && ! _options_is_known "$_options_name"; then
        _options_known+=("$_options_name")
        _options_default[$_options_name]=${!_options_name}
    fi
done

_options_words=("$@")
for ((_options_i = 0; _options_i < ${#_options_words[@]}; _options_i++)); do
    if [ "${_options_words[_options_i]}" = -- ]; then break; fi
    if [ "${_options_words[_options_i]}" = --config ]; then
        _options_path=${_options_words[_options_i + 1]:-}
        if [ ! -r "$_options_path" ]; then _options_die "--config: there is no file '$_options_path'"; fi
        for _options_name in $(_options_in "$_options_path"); do
            if ! _options_is_known "$_options_name"; then
                _options_die "$_options_path: there is no option '$_options_name'; $(_options_near "${_options_name//_/-}")"
            fi
        done
        # shellcheck disable=SC1090
        . "$_options_path"
        for _options_name in "${_options_known[@]}"; do
            _options_set "$_options_name" "${!_options_name}" "$_options_path: $_options_name"
        done
    fi
done

while [ $# -gt 0 ]; do
    case "$1" in
        --)
            shift
            break
            ;;
        --help | -h)
            _options_help
            exit 0
            ;;
        --*=*) _options_die "write ${1%%=*} ${1#*=}, with a space" ;;
        --config) shift 2 ;;
        --*)
            _options_name=${1#--}
            if ! _options_is_known "${_options_name//-/_}"; then
                _options_die "there is no option $1; $(_options_near "$_options_name")"
            fi
            _options_next=${2-}
            _options_next=${_options_next#--}
            if [ $# -lt 2 ] || { [ "$2" != "$_options_next" ] && _options_is_known "${_options_next//-/_}"; }; then
                _options_die "$1 needs a value"
            fi
            _options_set "${_options_name//-/_}" "$2" "$1"
            shift 2
            ;;
        -?*) _options_die "there is no option $1; options are written --name value" ;;
        *) break ;;
    esac
done
