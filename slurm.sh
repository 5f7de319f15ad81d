#!/bin/bash
# One sweep over the GPUs (or cores) of several nodes, which must all see this folder:
#     sbatch --nodes=2 --gpus-per-node=8 --cpus-per-task=16 slurm.sh exp1_lr.py
#SBATCH --job-name=small-cnn
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_PORT=$((29500 + SLURM_JOB_ID % 1000))  # two sweeps may share a node
# one torchrun on each node, with a process for each of the job's GPUs there, or else of its cores
srun --kill-on-bad-exit=1 bash -c 'exec torchrun --nnodes="$SLURM_NNODES" \
    --node-rank="$SLURM_NODEID" --master-addr="$MASTER_ADDR" --master-port="$MASTER_PORT" \
    --nproc-per-node="${SLURM_GPUS_ON_NODE:-$SLURM_CPUS_ON_NODE}" "$@"' torchrun "$@"
