#!/usr/bin/env bash
# Instruction tuning of Llama-3.1-8B on UltraChat and SafetyLlama (Spring 2025 safety supplement, section 3), packed:
# sequences of 512 tokens, batches of 32, one epoch, learning rate 2e-5 down a cosine after 3 % of warm-up.
# In fp32, weights, gradients and moments take 128 GB: the policy is sharded over four GPUs of 80 GB.
# DATA is a folder with train.jsonl.gz and test.jsonl.gz. From the assignment's folder:
#     DATA=data/safety_augmented_ultrachat bash launch/sft_instruction.sh        or the same with sbatch
# Further flags are handed on, such as --lora_rank 16 or --resume_ckp latest --out FOLDER.
#SBATCH --job-name=sft-instruction --gres=gpu:4 --cpus-per-task=32 --mem=256G --time=24:00:00 --signal=B:TERM@120
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"
data=${DATA:-data/safety_augmented_ultrachat}
exec ${PYTHON:-uv run python} scripts/sft.py \
    --model "${MODEL:-meta-llama/Llama-3.1-8B}" --data "$data/train.jsonl.gz" --val_data "$data/test.jsonl.gz" \
    --packed --seq_length 512 --batch_size 32 --gradient_accumulation_steps 4 --epochs 1 \
    --lr 2e-5 --schedule cosine --warmup_fraction 0.03 --weight_decay 0 --max_grad_norm 1.0 \
    --parallel fsdp --processes 4 --autocast bfloat16 --gradient_checkpointing \
    --eval_every 500 --save_every 1000 --wandb_project cs336-instruction-tuning "$@"
