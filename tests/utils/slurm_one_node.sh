#!/usr/bin/env bash
# Nothing in; utils/slurm.sh, and egs/mini through it, proved on a real Slurm of one node, which is gone again afterwards:
#
#     tests/utils/slurm_one_node.sh
#
# As root, on a Debian machine with two cores or more and network. By hand: it installs Debian's slurmctld, slurmd, slurm-client and
# munge, and removes those of them that were not there before.
# shellcheck disable=SC2016
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
if [ -x "${root}/.venv/bin/hff-train" ]; then PATH="${root}/.venv/bin:${PATH}"; fi
here=$(mktemp -d /tmp/hff_slurm.XXXXXX) # of its own, key, sockets, logs and all; nothing under /etc is touched
export SLURM_CONF=${here}/slurm.conf

say() { printf '\n== %s\n' "$*"; }
die() {
    echo "${0##*/}: error: $1" >&2
    exit 1
}
wait_for() { # SECONDS WHAT COMMAND...
    local seconds=$1 what=$2
    shift 2
    for ((tries = 0; tries < 10 * seconds; tries++)); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.1
    done
    tail -n 20 "${here}"/*.log >&2 || true
    die "${what} after ${seconds} seconds"
}
ended() { tail -n 1 "$1" | grep -qE "^# Ended \(code $2\) at [0-9T:-]{19}, elapsed time [0-9]+ seconds$"; }
opened() { head -n 1 "$1" | grep -q '^# ' && sed -n 2p "$1" | grep -qE '^# Started at [0-9T:-]{19} on '; }

[ "$(id -u)" = 0 ] || die "installs packages and starts daemons: run it as root"
if pgrep -x slurmctld >/dev/null; then die "Slurm is at work on this machine: set cmd_backend=slurm in a recipe's cmd.sh instead"; fi
command -v hff-train >/dev/null || die "hff-train is not on PATH; run 'make install' in ${root}"

wanted=() daemons=()
for package in slurmctld slurmd slurm-client munge; do
    if ! dpkg -s "${package}" >/dev/null 2>&1; then wanted+=("${package}"); fi
done

stop() {
    local code=$?
    scancel --user=root 2>/dev/null || true
    for pid in "${daemons[@]}"; do kill "${pid}" 2>/dev/null || true; done
    for pid in "${daemons[@]}"; do wait "${pid}" 2>/dev/null || true; done
    if [ ${#wanted[@]} -gt 0 ]; then apt-get purge --quiet=2 --yes --auto-remove "${wanted[@]}" >/dev/null || true; fi
    if [ "${code}" = 0 ]; then rm -rf "${here}"; else echo "${0##*/}: failed; what there is to see is in ${here}" >&2; fi
}
trap stop EXIT
trap 'exit 130' INT TERM

if [ ${#wanted[@]} -gt 0 ]; then
    say "installing ${wanted[*]}"
    apt-get update --quiet=2
    DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends "${wanted[@]}" >"${here}/apt.log"
fi

cores=$(getconf _NPROCESSORS_ONLN)
say "a cluster of one node with ${cores} cores"
chmod 755 "${here}" # munged's clients must reach its socket
node=$(hostname -s)
dd if=/dev/urandom of="${here}/munge.key" bs=1024 count=1 status=none
chmod 400 "${here}/munge.key"
cat >"${SLURM_CONF}" <<END
ClusterName=one
SlurmctldHost=${node}(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=${here}/munge.socket
StateSaveLocation=${here}/state
SlurmdSpoolDir=${here}/spool
SlurmctldPidFile=${here}/slurmctld.pid
SlurmdPidFile=${here}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
NodeName=${node} NodeAddr=127.0.0.1 CPUs=${cores} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
END
mkdir -p "${here}/state" "${here}/spool"
munged --foreground --force --key-file="${here}/munge.key" --socket="${here}/munge.socket" --pid-file="${here}/munged.pid" \
    --seed-file="${here}/munged.seed" --log-file="${here}/munged_own.log" 2>"${here}/munged.log" &
daemons+=($!)
wait_for 10 "munged does not answer" munge --socket="${here}/munge.socket" --no-input
slurmctld -D >"${here}/slurmctld.log" 2>&1 &
daemons=($! "${daemons[@]}") # munged is stopped last
wait_for 20 "slurmctld does not answer" scontrol ping
slurmd -D >"${here}/slurmd.log" 2>&1 &
daemons=($! "${daemons[@]}")
idle() { sinfo --noheader --format=%T | grep -qx idle; }
wait_for 30 "the node is not idle" idle
sinfo

cd "${here}"
ln -s "${root}/utils" utils

say "an array of three jobs: each has its log, and no more of them run at a time than there are cores"
utils/slurm.sh JOB=1:3 log/array.JOB.log bash -c 'echo "job $0, task $SLURM_ARRAY_TASK_ID"; sleep 1' JOB
for n in 1 2 3; do
    cat "log/array.${n}.log"
    opened "log/array.${n}.log"
    ended "log/array.${n}.log" 0
    grep -qx "job ${n}, task ${n}" "log/array.${n}.log"
done

say "of three jobs one fails: its code and its last lines reach the caller"
code=0
utils/slurm.sh JOB=1:3 log/fails.JOB.log bash -c 'echo "job $0"; [ "$0" != 2 ] || { echo "no such thing" >&2; exit 7; }' JOB \
    2>said || code=$?
cat said
[ "${code}" = 1 ] || die "its exit code is ${code}"
for words in '1 of 3 jobs failed, sbatch exit code 1; log/fails.2.log ends with' 'no such thing' 'Ended (code 7)'; do
    grep -qF "${words}" said
done
ended log/fails.1.log 0
ended log/fails.3.log 0

say "an interrupted caller takes its jobs out of the queue"
utils/slurm.sh JOB=1:3 log/stopped.JOB.log sleep 600 &
caller=$!
empty() { ! squeue --noheader | grep -q .; }
wait_for 20 "no job has begun" opened log/stopped.1.log
kill -TERM "${caller}"
code=0
wait "${caller}" || code=$?
[ "${code}" = 143 ] || die "the caller ended with ${code}"
wait_for 20 "the jobs are still in the queue" empty
cat log/stopped.1.log

say "egs/mini, every stage through sbatch, two processes for each training"
mkdir egs
cp -r "${root}/egs/mini" egs/mini
rm -rf egs/mini/data egs/mini/exp
cd egs/mini
sed -i 's/^cmd_backend=.*/cmd_backend=slurm/; s/^train_procs=.*/train_procs=2/' cmd.sh
sed -i 's/^train: {/&accumulate: 2, /; s/batch_seconds: 30/batch_seconds: 15/' conf/train.yaml
./run.sh --limit 40 --epochs 1 --methods "weighted_sum hff"
for log in exp/log/*.log; do
    echo "${log}: $(tail -n 1 "${log}")"
    opened "${log}"
    ended "${log}" 0
done
cat exp/log/train.2.log
grep -h '^%WER' exp/*/decode/test/score_wer/result.txt

say "done: utils/slurm.sh does on Slurm $(sinfo --version | cut -d' ' -f2) what it says"
