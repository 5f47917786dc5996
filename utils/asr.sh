# shellcheck shell=bash disable=SC2154
# Stages 2 to 6 of the recipes as functions, each a few hff commands. Source it after parse_options.sh, with these set:
# upstream methods seeds units train_config probe_config train_set probe_set dev_set test_sets cache epochs tag
# (probe_set is what layers are probed on). Experiments lie in exp/, or in exp_<upstream>/ for another than hff_tiny.

exp=exp
if [ "${upstream}" != hff_tiny ]; then exp=exp_$(basename "${upstream}" | tr -c 'A-Za-z0-9_.\n' '_'); fi
feats=${exp}/feats

job() { # LOG COMMAND...: here, with its progress bar, or through ${cmd}, with its output in LOG
    local log=$1
    shift
    if [ "${cmd_backend}" = local ]; then "$@"; else ${cmd} "${log}" "$@"; fi
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

probe_layers() { # UPSTREAM...: a linear CTC probe of each of its layers, scored on dev
    local name states
    for name in "$@"; do
        states=
        if "${cache}" && [ "${name}" = "${upstream}" ]; then states=${feats}; fi
        job "${exp}/log/probe.log" hff-probe --upstream "${name}" --out "${exp}/probe_$(basename "${name}")${tag:+_${tag}}" \
            --config "${probe_config}" train="data/${probe_set}" dev="data/${dev_set}" units="${units}" features="${states}" \
            ${epochs:+epochs="${epochs}"}
    done
}

train_methods() { # every method with every seed; finished ones are skipped, interrupted ones go on
    local method seed set tests=
    for set in ${test_sets}; do tests=${tests:+${tests},}data/${set}; done
    for method in ${methods}; do
        for seed in ${seeds}; do
            job "${exp}/log/train_${method}_${seed}.log" hff-train "$(experiment "${method}" "${seed}")" \
                --method "${method}" --config "${train_config}" seed="${seed}" upstream="${upstream}" \
                data.train="data/${train_set}" data.dev="data/${dev_set}" "data.test=[${tests}]" data.units="${units}" \
                data.features="$("${cache}" && echo "${feats}")" ${epochs:+train.epochs="${epochs}"}
        done
    done
}

decode_methods() { # the test sets with every experiment; each is decoded once
    local name
    for name in $(experiments); do job "${exp}/log/decode_$(basename "${name}").log" hff-decode "${name}"; done
}

report_methods() { # RESULTS.md and plots, beside the experiments
    # shellcheck disable=SC2046
    hff-report $(experiments) --out "${exp}/RESULTS.md" --title "${PWD##*/} with ${upstream}" --command "${recipe_command}"
}
