# shellcheck shell=bash disable=SC2154
# Define stages 2 to 6 of the recipes as functions of a few hff commands. Source it after parse_options.sh; set before:
# upstream methods seeds units train_config probe_config train_set probe_set dev_set test_sets searches lm cache epochs tag
# (probe_set: the set on which layers are probed). Experiments of hff_tiny are in exp/, of others in exp_<upstream>/.

exp=exp
if [ "${upstream}" != hff_tiny ]; then exp=exp_$(basename "${upstream}" | tr -c 'A-Za-z0-9_.\n' '_'); fi
feats=${exp}/feats

# Names of experiments are made of these, and separated by spaces.
if [ -z "${methods// /}" ]; then _options_die "--methods: name a method of conf/method"; fi
if [ -z "${seeds// /}" ]; then _options_die "--seeds: give a number"; fi
for seed in ${seeds}; do
    case ${seed} in *[!0-9]*) _options_die "--seeds: '${seed}' is not a whole number" ;; esac
done
case ${tag} in
*[[:space:]/\*\?\[]*) _options_die "--tag: '${tag}' is a part of folders' names, and takes no spaces, no slash, and none of *?[" ;;
esac

# Options that would fail in stage 5 are refused before stage 1. lm_names: language models that are downloaded by name.
case ${lm} in
words) lm_file=data/lm_${probe_set}/lm.arpa ;;
units) lm_file=data/lm_${units##*/}/lm.arpa ;;
*)
    lm_file=${lm}
    if [[ " ${lm_names:-} " = *" ${lm} "* ]]; then
        lm_file=data/lm/${lm}.arpa.gz
    elif [ ! -f "${lm}" ]; then
        _options_die "--lm: there is no file '${lm}'; give a file, words, units${lm_names:+, or one of ${lm_names}}"
    fi
    ;;
esac
offered=greedy # what every task offers
if [ "${searches}" != greedy ]; then offered=$(hff-decode --searches "${train_config}"); fi
for search in ${searches:-''}; do
    if [[ " ${offered} " != *" ${search} "* ]]; then
        _options_die "--searches: '${search}' is not one of ${offered}, which the task of ${train_config} offers"
    elif [ "${search}" = beam_lm ]; then
        if [ "${stage}" -gt 1 ] && [ "${stage}" -le 5 ] && [ "${stop_stage}" -ge 5 ] && [ ! -f "${lm_file}" ]; then
            _options_die "--lm ${lm}: ${lm_file} is missing; run stage 1 with this option first"
        fi
    fi
done

job() { # LOG COMMAND...: run it here, with its progress bar, or through ${cmd}, with its output in LOG
    local log=$1
    shift
    if [ "${cmd_backend}" = local ]; then "$@"; else ${cmd} "${log}" "$@"; fi
}

queued=()
queue() { queued+=("$(printf '%q ' "$@")"); } # COMMAND...: add it to the queue that run_queue runs

# NAME CMD: run the queued commands here, one by one, or as one array of jobs through CMD; log/NAME.list lists them, and
# log/NAME.N.log has the output of line N.
run_queue() {
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

experiment() { # METHOD SEED: print the experiment's folder; hff is called fusion; tag and seed (but 1) are added
    local name=$1
    if [ "${name}" = hff ]; then name=fusion; fi
    name=${name}${tag:+_${tag}}
    if [ "$2" != 1 ]; then name=${name}_seed$2; fi
    echo "${exp}/${name}"
}

experiments() { # print every experiment of the recipe, one per line
    local method seed
    for method in ${methods}; do for seed in ${seeds}; do experiment "${method}" "${seed}"; done; done
}

verify_and_extract() { # load the upstream, check it, and store its hidden states if cache=true
    local set sets=()
    for set in "${train_set}" "${probe_set}" "${dev_set}" ${test_sets}; do sets+=("data/${set}"); done
    if "${cache}"; then
        job "${exp}/log/extract.log" hff-extract --upstream "${upstream}" --out "${feats}" "${sets[@]}"
    else
        job "${exp}/log/extract.log" hff-extract --upstream "${upstream}" "data/${dev_set}"
    fi
}

probe_folder() { # UPSTREAM: print the folder of its probing
    echo "${exp}/probe_$(basename "$1" | tr -c 'A-Za-z0-9_.\n' '_')${tag:+_${tag}}"
}

probe_layers() { # UPSTREAM...: probe each of its layers; all upstreams share the alignments
    local name states
    for name in "$@"; do
        states=
        if "${cache}" && [ "${name}" = "${upstream}" ]; then states=${feats}; fi
        job "${exp}/log/probe.log" hff-probe --upstream "${name}" --out "$(probe_folder "${name}")" \
            --config "${probe_config}" train="data/${probe_set}" dev="data/${dev_set}" units="${units}" features="${states}" \
            alignments="${exp}/align${tag:+_${tag}}" ${epochs:+epochs="${epochs}"}
    done
}

# METHOD: print the learning rates to choose: of the upstream's weights, or of inserted parts, or of fusion and head.
rate_keys() {
    case "$1" in
    full* | bitfit) echo optim.upstream.lr ;;
    *houlsby* | lora | *adapter* | prefix | compacter) echo optim.fuse.lr ;;
    *) echo optim.fuse.lr optim.head.lr ;;
    esac
}

# Train each method once per learning rate; write lr/<method>/best.yaml, which train_methods reads, and keep the best
# run as the experiment of the first seed.
choose_rates() {
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

# Set `how`, the options of a method, and `options`, those of all runs; hidden states are read by methods that leave the
# upstream frozen.
set_options() {
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

train_methods() { # train every method with every seed; finished ones are skipped, interrupted ones are resumed
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

make_lm() { # make the language model of the search beam_lm: of the training text's words or units, or a given one
    local from
    if [[ " ${searches} " != *" beam_lm "* ]]; then return; fi
    case ${lm} in
    words) from=("data/${probe_set}") ;;
    units) from=("data/${probe_set}" --units "${units}" --order 6) ;;
    *) from=(--model "${lm}") ;;
    esac
    hff-lm "${from[@]}" --out "${lm_file%/*}" --held-out "data/${dev_set}"
}

decode_methods() { # decode the test sets by every experiment and search; what is decoded already is skipped
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

report_methods() { # write RESULTS.md and plots to the folder of the experiments
    # shellcheck disable=SC2046
    hff-report $(experiments) --out "${exp}/RESULTS.md" --title "${PWD##*/} with ${upstream}" --command "${recipe_command}"
}
