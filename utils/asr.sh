# shellcheck shell=bash disable=SC2154
# Stages 2 to 6 of the recipes as functions, each a few hff commands. Source it after parse_options.sh, with these set:
# upstream methods seeds units train_config probe_config train_set probe_set dev_set test_sets searches lm cache epochs tag
# (probe_set is what layers are probed on). Experiments lie in exp/, or in exp_<upstream>/ for another than hff_tiny.

exp=exp
if [ "${upstream}" != hff_tiny ]; then exp=exp_$(basename "${upstream}" | tr -c 'A-Za-z0-9_.\n' '_'); fi
feats=${exp}/feats

# What would fail in stage 5 is refused before stage 1. lm_names: language models that are downloaded by name.
case ${lm} in
words) lm_file=data/lm_${probe_set}/lm.arpa ;;
units) lm_file=data/lm_${units##*/}/lm.arpa ;;
*)
    lm_file=${lm}
    if [[ " ${lm_names:-} " = *" ${lm} "* ]]; then
        lm_file=data/lm/${lm}.arpa.gz
    elif [ ! -f "${lm}" ]; then
        _options_die "--lm: there is no file '${lm}'; give one, words, units${lm_names:+, or one of ${lm_names}}"
    fi
    ;;
esac
for search in ${searches:-''}; do
    case ${search} in
    greedy | beam) ;;
    beam_lm)
        if grep -q asr_transducer "${train_config}"; then
            _options_die "--searches: a transducer's search takes no language model; say --searches 'greedy beam'"
        elif [ "${stage}" -gt 1 ] && [ "${stage}" -le 5 ] && [ "${stop_stage}" -ge 5 ] && [ ! -f "${lm_file}" ]; then
            _options_die "--lm ${lm}: ${lm_file} is not there; run stage 1 with it"
        fi
        ;;
    *) _options_die "--searches: '${search}' is not one of greedy, beam, beam_lm" ;;
    esac
done

job() { # LOG COMMAND...: here, with its progress bar, or through ${cmd}, with its output in LOG
    local log=$1
    shift
    if [ "${cmd_backend}" = local ]; then "$@"; else ${cmd} "${log}" "$@"; fi
}

queued=()
queue() { queued+=("$(printf '%q ' "$@")"); } # COMMAND...: for run_queue

run_queue() { # NAME CMD: what was queued: here, one by one, or as one array through CMD: log/NAME.list, and line N's log/NAME.N.log
    local line list=${exp}/log/$1.list
    if [ "${cmd_backend}" = local ]; then
        for line in "${queued[@]}"; do eval "${line}"; done
    else
        mkdir -p "${exp}/log"
        printf '%s\n' "${queued[@]}" >"${list}"
        # shellcheck disable=SC2016
        $2 "JOB=1:${#queued[@]}" "${exp}/log/$1.JOB.log" \
            bash -c 'line=$(sed -n JOBp "$0"); echo "# ${line}"; eval "exec ${line}"' "${list}"
    fi
    queued=()
}

experiment() { # METHOD SEED -> the experiment's folder; hff is called fusion, the tag and seeds other than 1 are named
    local name=$1
    if [ "${name}" = hff ]; then name=fusion; fi
    name=${name}${tag:+_${tag}}
    if [ "$2" != 1 ]; then name=${name}_seed$2; fi
    echo "${exp}/${name}"
}

experiments() { # every experiment of the recipe, one a line
    local method seed
    for method in ${methods}; do for seed in ${seeds}; do experiment "${method}" "${seed}"; done; done
}

verify_and_extract() { # load the upstream, check it, and keep its hidden states where cache=true
    local set sets=()
    for set in "${train_set}" "${probe_set}" "${dev_set}" ${test_sets}; do sets+=("data/${set}"); done
    if "${cache}"; then
        job "${exp}/log/extract.log" hff-extract --upstream "${upstream}" --out "${feats}" "${sets[@]}"
    else
        job "${exp}/log/extract.log" hff-extract --upstream "${upstream}" "data/${dev_set}"
    fi
}

probe_folder() { # UPSTREAM -> where its probing lies
    echo "${exp}/probe_$(basename "$1" | tr -c 'A-Za-z0-9_.\n' '_')${tag:+_${tag}}"
}

probe_layers() { # UPSTREAM...: what each of its layers knows; the alignments are the same for all
    local name states
    for name in "$@"; do
        states=
        if "${cache}" && [ "${name}" = "${upstream}" ]; then states=${feats}; fi
        job "${exp}/log/probe.log" hff-probe --upstream "${name}" --out "$(probe_folder "${name}")" \
            --config "${probe_config}" train="data/${probe_set}" dev="data/${dev_set}" units="${units}" features="${states}" \
            alignments="${exp}/align${tag:+_${tag}}" ${epochs:+epochs="${epochs}"}
    done
}

rate_keys() { # METHOD -> the learning rate that sets it apart: the upstream's, or that of what is inserted, or all there is
    case "$1" in
    full* | bitfit) echo optim.upstream.lr ;;
    *houlsby* | lora | *adapter* | prefix | compacter) echo optim.fuse.lr ;;
    *) echo optim.fuse.lr optim.head.lr ;;
    esac
}

choose_rates() { # by one run a value: lr/<method>/best.yaml, which train_methods then takes; the best run is that of the first seed
    local method keys values options how seed=${seeds%% *} first
    for method in ${methods}; do
        set_options
        read -ra keys <<<"$(rate_keys "${method}")"
        if [ "${keys[0]}" = optim.upstream.lr ]; then read -ra values <<<"${upstream_rates}"; else read -ra values <<<"${rates}"; fi
        queue hff-sweep "${exp}/lr/${method}${tag:+_${tag}}" "${how[@]}" \
            --keys "${keys[@]}" --values "${values[@]}" --options "${options[@]}" \
            seed="${seed}" ${epochs:+train.epochs="${epochs}"}
    done
    run_queue rates "${train_cmd}"
    for method in ${methods}; do
        first=$(experiment "${method}" "${seed}")
        if [ ! -e "${first}" ]; then
            cp -r "${exp}/lr/${method}${tag:+_${tag}}/best/." "${first}.tmp"
            mv "${first}.tmp" "${first}"
        fi
    done
}

set_options() { # `how` says the method, `options` what all runs have; kept states serve methods that leave the upstream as it is
    local set tests='' states=''
    how=(--method "${method}" --config "${train_config}")
    if [ "${method}" = hff_recommended ]; then # hff on the layers that stage 3 recommends
        how=(--method hff --config "${train_config}" --config "$(probe_folder "${upstream}")/recommendation.yaml")
    fi
    for set in ${test_sets}; do tests=${tests:+${tests},}data/${set}; done
    if "${cache}"; then states=${feats}; fi
    options=("upstream=${upstream}" "data.train=data/${train_set}" "data.dev=data/${dev_set}" "data.test=[${tests}]"
        "data.units=${units}" "data.features=${states}")
}

train_methods() { # every method with every seed; finished ones are skipped, interrupted ones go on
    local method seed rate options how launch=()
    if [ "${train_procs}" != 1 ]; then launch=(torchrun --standalone --nproc-per-node "${train_procs}" --no-python); fi
    for method in ${methods}; do
        set_options
        rate=${exp}/lr/${method}${tag:+_${tag}}/best.yaml
        if [ -f "${rate}" ]; then rate=(--config "${rate}"); else rate=(); fi
        for seed in ${seeds}; do
            queue "${launch[@]}" hff-train "$(experiment "${method}" "${seed}")" \
                "${how[@]}" "${rate[@]}" seed="${seed}" "${options[@]}" \
                ${epochs:+train.epochs="${epochs}"}
        done
    done
    run_queue train "${train_cmd}"
}

make_lm() { # what the search beam_lm needs: an n-gram of the training text's words or units, or one that is there
    local from
    if [[ " ${searches} " != *" beam_lm "* ]]; then return; fi
    case ${lm} in
    words) from=("data/${probe_set}") ;;
    units) from=("data/${probe_set}" --units "${units}" --order 6) ;;
    *) from=(--model "${lm}") ;;
    esac
    hff-lm "${from[@]}" --out "${lm_file%/*}" --held-out "data/${dev_set}"
}

decode_methods() { # the test sets with every experiment by every search; each is decoded once
    local name search set how names sets=()
    mapfile -t names < <(experiments)
    for set in ${test_sets}; do sets+=(--data "data/${set}"); done
    for search in ${searches}; do
        case ${search} in
        greedy) how=() ;;
        beam) how=(search.name=beam) ;;
        beam_lm)
            how=(search.name=beam "search.lm=${lm_file}")
            if [ "${lm}" != words ]; then how+=("search.tag=beam_lm_$(basename "${lm%.gz}" .arpa)"); fi
            ;;
        esac
        if [ "${cmd_backend}" = local ]; then
            hff-decode "${names[@]}" "${sets[@]}" "${how[@]}" # they share the upstream in memory
        else
            for name in "${names[@]}"; do queue hff-decode "${name}" "${sets[@]}" "${how[@]}"; done
        fi
    done
    if [ "${cmd_backend}" != local ]; then run_queue decode "${cmd}"; fi
}

report_methods() { # RESULTS.md and plots, beside the experiments
    # shellcheck disable=SC2046
    hff-report $(experiments) --out "${exp}/RESULTS.md" --title "${PWD##*/} with ${upstream}" --command "${recipe_command}"
}
