#!/usr/bin/env bash
#SBATCH --job-name=cs336-sft
#SBATCH --nodes=1
#SBATCH --gpus-per-node=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --time=06:00:00
#SBATCH --signal=B:TERM@120
# The same under Slurm, the policy sharded over four GPUs: sbatch launch/sft_slurm.sh launch/sft_math.sh DATA_FOLDER
# Two minutes before its time is up, or when preempted, the run saves a checkpoint; go on with --resume_ckp latest.
set -euo pipefail
script=${1:?give launch/sft_math.sh or launch/sft_instruction.sh and its arguments}
shift
bash "$script" "$@" --parallel fsdp --processes 4 --gradient_accumulation_steps 4 --out "runs/sft_${SLURM_JOB_ID}" &
trap 'kill -TERM $!' TERM
wait $! || wait $!
