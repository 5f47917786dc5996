# Where jobs run: local (this machine) or slurm. Stages that split into jobs call ${cmd} JOB=1:${nj} log/x.JOB.log command.
cmd_backend=local

if [ "${cmd_backend}" = slurm ]; then cmd="utils/slurm.sh"; else cmd="utils/run.sh"; fi
export cmd
