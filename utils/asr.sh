# Stages 2 to 6 of the recipes as functions, each a few hff commands. Source it after parse_options.sh, with these set:
# upstream methods seeds units train_config train_set dev_set test_sets cache epochs
# shellcheck shell=bash disable=SC2154

feats=exp/feats_$(basename "${upstream}" | tr ':' '_')

experiment() { # METHOD SEED -> the experiment's folder; hff is exp/fusion, and only further seeds are named
    local name=$1
    if [ "${name}" = hff ]; then name=fusion; fi
    if [ "$2" != "${seeds%% *}" ]; then name=${name}_seed$2; fi
    echo "exp/${name}"
}

experiments() { # every experiment of the recipe, one a line
    local method seed
    for method in ${methods}; do for seed in ${seeds}; do experiment "${method}" "${seed}"; done; done
}

verify_and_extract() { # load the upstream, check it, and keep its hidden states where cache=true
    # shellcheck disable=SC2086
    if "${cache}"; then
        hff-extract --upstream "${upstream}" --out "${feats}" "data/${train_set}" "data/${dev_set}" ${test_sets/#/data/}
    else
        hff-extract --upstream "${upstream}" "data/${dev_set}"
    fi
}

probe_layers() { # UPSTREAM: a linear CTC probe of each of its layers, scored on dev
    local states=
    if "${cache}" && [ "$1" = "${upstream}" ]; then states=${feats}; fi
    hff-probe --upstream "$1" train="data/${train_set}" dev="data/${dev_set}" units="${units}" features="${states}" \
        ${epochs:+epochs="${epochs}"}
}

train_methods() { # every method with every seed; finished ones are skipped, interrupted ones go on
    local method seed set tests=
    for set in ${test_sets}; do tests=${tests:+${tests},}data/${set}; done
    for method in ${methods}; do
        for seed in ${seeds}; do
            hff-train "$(experiment "${method}" "${seed}")" --method "${method}" --config "${train_config}" \
                seed="${seed}" upstream="${upstream}" data.train="data/${train_set}" data.dev="data/${dev_set}" \
                "data.test=[${tests}]" data.units="${units}" data.features="$("${cache}" && echo "${feats}")" \
                ${epochs:+train.epochs="${epochs}"}
        done
    done
}

decode_methods() { # the test sets with every experiment; each is decoded once
    local exp
    for exp in $(experiments); do hff-decode "${exp}"; done
}

report_methods() { # TITLE: exp/RESULTS.md and plots
    # shellcheck disable=SC2046
    hff-report $(experiments) --out exp/RESULTS.md --title "$1"
}
