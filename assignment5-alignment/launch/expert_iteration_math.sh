#!/usr/bin/env bash
# Expert iteration on MATH with the Spring 2025 handout's settings: Qwen2.5-Math-1.5B, 5 steps.
# The policy trains on the first GPU, vLLM samples on the second. From the assignment's folder:
#     QUESTIONS=1024 ROLLOUTS=4 EPOCHS=2 bash launch/expert_iteration_math.sh           or the same with sbatch
# The handout asks for 512, 1024 and 2048 questions per step and for several numbers of rollouts and epochs.
# Further flags are handed on, such as --lr 2e-5 or --resume_ckp latest --out FOLDER.
#SBATCH --job-name=expert-iteration --gres=gpu:2 --cpus-per-task=16 --mem=128G --time=12:00:00
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"
exec ${PYTHON:-uv run --extra vllm python} scripts/expert_iteration.py \
    --model "${MODEL:-Qwen/Qwen2.5-Math-1.5B}" --task math \
    --data "${DATA:-data/math_train.jsonl}" --val_data "${VAL_DATA:-data/math_validation.jsonl}" --prompt r1_zero \
    --num_steps 5 --questions_per_step "${QUESTIONS:-512}" --group_size "${ROLLOUTS:-8}" \
    --epochs_per_step "${EPOCHS:-1}" --train_batch_size 64 --gradient_accumulation_steps 32 \
    --lr 1e-5 --max_grad_norm 1.0 --temperature 1.0 --min_tokens 4 --max_tokens 1024 --autocast bfloat16 \
    --engine vllm --gpu_memory_utilization 0.85 \
    --eval_every 1 --eval_examples 1024 --eval_temperature 1.0 --wandb_project cs336-expert-iteration "$@"
