#!/usr/bin/env bash
# GRPO on MATH with the Spring 2025 handout's settings: Qwen2.5-Math-1.5B, 200 steps of 256 rollouts in groups of 8.
# The policy trains on the first GPU, vLLM samples on the second. From the assignment's folder:
#     VARIANT=reinforce_with_baseline bash launch/grpo_math.sh           or the same with sbatch
# VARIANT: no_baseline, reinforce_with_baseline, grpo_clip, grpo_no_clip, dr_grpo … (scripts/grpo.py --help).
# Off-policy: EPOCHS=2 TRAIN_BATCH=128 ACCUMULATION=64 VARIANT=grpo_clip; the clip range is 0.2.
# Further flags are handed on, such as --lr 3e-5, --prompt question_only --stop "" or --resume_ckp latest --out FOLDER.
#SBATCH --job-name=grpo --gres=gpu:2 --cpus-per-task=16 --mem=128G --time=24:00:00
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"
exec ${PYTHON:-uv run --extra vllm python} scripts/grpo.py \
    --model "${MODEL:-Qwen/Qwen2.5-Math-1.5B}" --task math \
    --data "${DATA:-data/math_train.jsonl}" --val_data "${VAL_DATA:-data/math_validation.jsonl}" --prompt r1_zero \
    --variant "${VARIANT:-reinforce_with_baseline}" --num_steps 200 --lr 1e-5 --advantage_eps 1e-6 \
    --rollout_batch_size 256 --group_size 8 --temperature 1.0 --min_tokens 4 --max_tokens 1024 \
    --epochs_per_rollout_batch "${EPOCHS:-1}" --train_batch_size "${TRAIN_BATCH:-256}" \
    --gradient_accumulation_steps "${ACCUMULATION:-128}" \
    --beta1 0.9 --beta2 0.95 --weight_decay 0 --max_grad_norm 1.0 --autocast bfloat16 \
    --engine vllm --gpu_memory_utilization 0.85 \
    --eval_every 10 --eval_examples 1024 --eval_temperature 1.0 --save_every 20 \
    --wandb_project cs336-grpo "$@"
