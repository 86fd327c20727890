#!/usr/bin/env bash
# SFT of Qwen2.5-Math-1.5B on reasoning traces for MATH (Spring 2025 handout, section 4.3), on one GPU of 80 GB.
# DATA has lines of {"prompt", "response"} and, for --only_correct, "answer"; EVAL_DATA the questions of validation.
# From the assignment's folder:
#     NUM_EXAMPLES=512 DATA=data/math_sft.jsonl bash launch/sft_math.sh        or the same with sbatch
# The handout asks for NUM_EXAMPLES of 128, 256, 512 and 1024 and for all; the small subsets are passed over several
# times, to compare them at equal numbers of steps. Further flags are handed on, such as --only_correct,
# --resume_ckp latest --out FOLDER, or on several GPUs --parallel fsdp --gradient_accumulation_steps 4.
#SBATCH --job-name=sft-math --gres=gpu:1 --cpus-per-task=8 --mem=64G --time=6:00:00 --signal=B:TERM@120
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"
exec ${PYTHON:-uv run python} scripts/sft.py \
    --model "${MODEL:-Qwen/Qwen2.5-Math-1.5B}" --data "${DATA:-data/math_sft.jsonl}" \
    ${NUM_EXAMPLES:+--num_examples "$NUM_EXAMPLES"} --eval_data "${EVAL_DATA:-data/math_validation.jsonl}" \
    --task math --prompt r1_zero --max_tokens 1024 --eval_examples 1024 \
    --lr 2e-5 --schedule cosine --warmup_steps 5 --weight_decay 0 --max_grad_norm 1.0 \
    --batch_size 32 --gradient_accumulation_steps 16 --max_length 2048 --num_steps 150 \
    --eval_every 25 --save_every 50 --autocast bfloat16 --gradient_checkpointing --wandb_project cs336-sft "$@"
