# shellcheck shell=bash disable=SC2034
# Where the commands of the stages run: local (here, with progress bars) or slurm (through ${cmd}, output in exp/log/).
cmd_backend=local
# Processes that train one experiment, each on a GPU of its own where there are any; train.accumulate must be a multiple.
train_procs=1

if [ "${cmd_backend}" = slurm ]; then # with sbatch's options, such as --partition=gpu --gres=gpu:${train_procs}
    cmd="utils/slurm.sh"
    train_cmd="utils/slurm.sh --cpus-per-task=${train_procs}"
else
    cmd="utils/run.sh"
    train_cmd="utils/run.sh"
fi
export cmd train_cmd
