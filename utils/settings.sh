# shellcheck shell=bash
# Read the recipe's settings: cmd.sh, path.sh and db.sh. Lines that end in CR LF, as editors on Windows leave them, are
# refused: bash takes the CR for a part of each value, where it is invisible in messages.
for _file in cmd.sh path.sh db.sh; do
    if _line=$(grep -n -m1 $'\r' "${_file}"); then
        printf "%s: line %s ends in CR LF; run: sed -i 's/\\\\r\$//' %s\\n" "${_file}" "${_line%%:*}" "${_file}" >&2
        exit 1
    fi
    # shellcheck source=/dev/null
    . "./${_file}"
done
unset _file _line
