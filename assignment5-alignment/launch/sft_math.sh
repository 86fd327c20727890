#!/usr/bin/env bash
# SFT of Qwen2.5-Math-1.5B on reasoning traces for MATH (Spring 2025 handout, section 4.3), one 80 GB GPU.
# Usage: launch/sft_math.sh DATA_FOLDER [NUM_EXAMPLES, such as 128, 256, 512 or 1024] [further flags, such as --only_correct]
# DATA_FOLDER holds sft.jsonl ({"prompt", "response"} and, for --only_correct, "answer") and the questions validation.jsonl.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:?give the folder with sft.jsonl and validation.jsonl}
shift
examples=()
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
  examples=(--num_examples "$1")
  shift
fi
# The small subsets are passed over several times: the handout compares them at equal numbers of steps.
uv run python scripts/sft.py \
  --model Qwen/Qwen2.5-Math-1.5B --data "$folder/sft.jsonl" ${examples[@]+"${examples[@]}"} \
  --eval_data "$folder/validation.jsonl" --task math --prompt r1_zero --max_tokens 1024 --eval_examples 1024 \
  --autocast bfloat16 --gradient_checkpointing \
  --lr 2e-5 --schedule cosine --warmup_steps 5 --weight_decay 0 --max_grad_norm 1.0 \
  --batch_size 32 --gradient_accumulation_steps 16 --max_length 2048 --num_steps 150 \
  --eval_every 25 --save_every 50 --wandb_project cs336-sft "$@"
