# shellcheck shell=bash disable=SC2034
# Where the commands of the stages run: local (on this machine, with progress bars), or slurm (output in exp/log/).
cmd_backend=local
# Processes per training, each on its own GPU if there are any; train.accumulate must be a multiple of this number.
train_procs=1

if [ "${cmd_backend}" = slurm ]; then # add options of sbatch here, such as --partition=gpu --gres=gpu:${train_procs}
    cmd="utils/slurm.sh"
    train_cmd="utils/slurm.sh --cpus-per-task=${train_procs}"
else
    cmd="utils/run.sh"
    train_cmd="utils/run.sh"
fi
export cmd train_cmd
