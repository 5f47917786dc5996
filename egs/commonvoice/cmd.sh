# shellcheck shell=bash disable=SC2034
# Where the commands of the stages run: local (here, with progress bars) or slurm (through ${cmd}, output in exp/log/).
cmd_backend=local

if [ "${cmd_backend}" = slurm ]; then cmd="utils/slurm.sh"; else cmd="utils/run.sh"; fi
export cmd
