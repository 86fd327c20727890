#!/usr/bin/env bash
# The Spring 2026 handout's comparison on GSM8K: OLMo-2-1B with three worked examples in the r1_zero format.
# The policy trains on the first GPU, vLLM samples on the second. From the assignment's folder:
#     VARIANT=maxrl bash launch/grpo_gsm8k.sh           or the same with sbatch
#     for variant in rft maxrl dr_grpo gspo; do VARIANT=$variant sbatch launch/grpo_gsm8k.sh; done
# Off-policy, where GSPO's and Dr. GRPO's ratios differ from 1: EPOCHS=2 TRAIN_BATCH=128 ACCUMULATION=16.
# Further flags are handed on, such as --kl_coefficient 0.01, --lora_rank 16 or --resume_ckp latest --out FOLDER.
#SBATCH --job-name=grpo-gsm8k --gres=gpu:2 --cpus-per-task=16 --mem=128G --time=12:00:00
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"
exec ${PYTHON:-uv run --extra vllm python} scripts/grpo.py \
    --model "${MODEL:-allenai/OLMo-2-0425-1B}" --task gsm8k \
    --data "${DATA:-data/gsm8k_train.jsonl}" --val_data "${VAL_DATA:-data/gsm8k_test.jsonl}" \
    --prompt r1_zero_three_shot_gsm8k --variant "${VARIANT:-dr_grpo}" --num_steps 200 --lr 1e-5 \
    --rollout_batch_size 256 --group_size 8 --temperature 1.0 --min_tokens 4 --max_tokens 512 \
    --epochs_per_rollout_batch "${EPOCHS:-1}" --train_batch_size "${TRAIN_BATCH:-256}" \
    --gradient_accumulation_steps "${ACCUMULATION:-32}" --max_grad_norm 1.0 --autocast bfloat16 \
    --engine vllm --gpu_memory_utilization 0.85 \
    --eval_every 10 --eval_examples 512 --save_every 20 --wandb_project cs336-grpo-gsm8k "$@"
