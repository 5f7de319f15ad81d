#!/bin/bash
# One sweep over the GPUs (or cores) of several nodes: sbatch slurm.sh exp1_lr.py
# All nodes must see this folder. Submit it again after a time limit or a failure: it resumes.
#SBATCH --job-name=small-cnn
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
# On a GPU cluster add, for example:  #SBATCH --gpus-per-node=8
export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1) MASTER_PORT=29500
srun --kill-on-bad-exit=1 bash -c 'exec torchrun --nnodes="$SLURM_NNODES" --node-rank="$SLURM_NODEID" \
    --master-addr="$MASTER_ADDR" --master-port="$MASTER_PORT" --nproc-per-node=auto "$@"' torchrun "$@"
