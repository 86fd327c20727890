#!/usr/bin/env bash
# PPO on GSM8K: OLMo-2-1B after SFT, rewards by the grader, rollouts by vLLM on a second GPU (of the extra `vllm`).
# From the assignment's folder:
#     MODEL=runs/sft_gsm8k/model DATA=data/gsm8k/train.jsonl VALID_DATA=data/gsm8k/test.jsonl bash launch/ppo_gsm8k.sh
# or the same with sbatch. On one GPU add --rollout_device cuda:0 --gpu_memory_utilization 0.3, or --engine hf.
#SBATCH --job-name=ppo --gres=gpu:2 --cpus-per-task=16 --mem=128G --time=24:00:00
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"
exec ${PYTHON:-uv run python} scripts/ppo.py \
    --model "${MODEL:-allenai/OLMo-2-0425-1B}" --task gsm8k \
    --data "${DATA:-data/gsm8k/train.jsonl}" --valid_data "${VALID_DATA:-data/gsm8k/test.jsonl}" \
    --engine vllm --max_tokens 512 --min_tokens 4 --temperature 1.0 \
    --num_steps 200 --group_size 4 --rollout_batch_size 256 --train_batch_size 64 --epochs_per_rollout_batch 2 \
    --gradient_accumulation_steps 16 --lr 1e-6 --warmup_steps 10 --critic separate --gamma 1.0 --gae_lambda 0.95 \
    --cliprange 0.2 --value_cliprange 0.2 --value_coefficient 0.5 --kl_coefficient 0.01 \
    --eval_every 10 --eval_examples 512 --save_every 20 \
    --autocast bfloat16 --gradient_checkpointing --head_chunk_tokens 2048 "$@"
