#!/usr/bin/env bash
# A reward model on Anthropic's HH: one epoch, batches of 64, AdamW at 1e-5 down a cosine, scores centered.
# DATA is a folder with train.jsonl.gz of the four collections, each in a folder of its own. From the assignment's folder:
#     MODEL=runs/sft_ultrachat/model DATA=data/hh bash launch/reward_model_hh.sh        or the same with sbatch
# Further flags are handed on, such as --resume_ckp latest --out FOLDER, or on four GPUs
# --parallel ddp --gradient_accumulation_steps 2.
#SBATCH --job-name=reward-model --gres=gpu:1 --cpus-per-task=8 --mem=64G --time=12:00:00 --signal=B:TERM@120
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"
exec ${PYTHON:-uv run python} scripts/reward_model.py \
    --model "${MODEL:-Qwen/Qwen2.5-0.5B}" --data "${DATA:-data/hh}" --val_pairs 1000 --max_length 1024 \
    --lr 1e-5 --schedule cosine --warmup_fraction 0.03 --centering 0.01 --batch_size 64 \
    --gradient_accumulation_steps 8 --epochs 1 --eval_every 200 --save_every 200 --eval_batch_size 16 \
    --autocast bfloat16 --gradient_checkpointing --wandb_project cs336-reward-model "$@"
