#!/usr/bin/env bash
# Instruction tuning of Llama-3.1-8B on UltraChat and SafetyLlama (Spring 2025 safety supplement, section 3), packed:
# sequences of 512 tokens, batches of 32, one epoch, learning rate 2e-5 with a cosine and 3 % warm-up.
# In fp32, weights, gradients and moments take 128 GB: the policy is sharded over all GPUs (four of 80 GB are plenty).
# Usage: launch/sft_instruction.sh DATA_FOLDER [further flags]; DATA_FOLDER holds train.jsonl.gz and test.jsonl.gz.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:?give the folder with train.jsonl.gz and test.jsonl.gz}
shift
uv run python scripts/sft.py \
  --packed --seq_length 512 \
  --model meta-llama/Llama-3.1-8B --data "$folder/train.jsonl.gz" --valid_data "$folder/test.jsonl.gz" \
  --autocast bfloat16 --gradient_checkpointing \
  --lr 2e-5 --schedule cosine --warmup_steps 200 --weight_decay 0 --max_grad_norm 1.0 \
  --parallel fsdp --batch_size 32 --gradient_accumulation_steps 4 --epochs 1 \
  --eval_every 500 --save_every 1000 --wandb_project cs336-instruction-tuning "$@"
