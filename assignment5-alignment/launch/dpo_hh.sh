#!/usr/bin/env bash
# DPO on Anthropic's HH with the handout's settings: beta 0.1, batches of 64 by accumulation, RMSprop at 1e-6, 1 epoch.
# DATA is a folder with train.jsonl.gz of the four collections, each in a folder of its own. From the assignment's folder:
#     MODEL=runs/sft_ultrachat/model DATA=data/hh bash launch/dpo_hh.sh        or the same with sbatch
# Further flags are handed on, such as --lora_rank 16, --loss ipo, --resume_ckp latest --out FOLDER, or on four GPUs
# --parallel ddp --gradient_accumulation_steps 8.
#SBATCH --job-name=dpo --gres=gpu:1 --cpus-per-task=8 --mem=64G --time=12:00:00 --signal=B:TERM@120
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"
exec ${PYTHON:-uv run python} scripts/dpo.py \
    --model "${MODEL:-Qwen/Qwen2.5-0.5B}" --data "${DATA:-data/hh}" --val_pairs 200 --max_length 1024 \
    --beta 0.1 --optimizer rmsprop --beta2 0.99 --lr 1e-6 --batch_size 64 --gradient_accumulation_steps 32 \
    --epochs 1 --eval_every 100 --save_every 100 --eval_batch_size 8 \
    --autocast bfloat16 --gradient_checkpointing --head_chunk_tokens 2048 --wandb_project cs336-dpo "$@"
