#!/usr/bin/env bash
# PPO on GSM8K: OLMo-2-1B after SFT, rewards by the grader. The policy trains on the first GPU, vLLM samples on the
# second. From the assignment's folder:
#     MODEL=runs/sft_gsm8k/model bash launch/ppo_gsm8k.sh        or the same with sbatch
# Further flags are handed on, such as --reward_model FOLDER or --resume_ckp latest --out FOLDER; on one GPU
# --rollout_device cuda:0 --gpu_memory_utilization 0.3, or --engine hf.
#SBATCH --job-name=ppo --gres=gpu:2 --cpus-per-task=16 --mem=128G --time=24:00:00 --signal=B:TERM@120
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"
exec ${PYTHON:-uv run --extra vllm python} scripts/ppo.py \
    --model "${MODEL:-allenai/OLMo-2-0425-1B}" --task gsm8k \
    --data "${DATA:-data/gsm8k_train.jsonl}" --val_data "${VAL_DATA:-data/gsm8k_test.jsonl}" --prompt r1_zero \
    --num_steps 200 --group_size 4 --rollout_batch_size 256 --train_batch_size 64 --epochs_per_rollout_batch 2 \
    --gradient_accumulation_steps 16 --lr 1e-6 --warmup_steps 10 --critic separate --gamma 1.0 --gae_lambda 0.95 \
    --cliprange 0.2 --value_cliprange 0.2 --value_coefficient 0.5 --kl_coefficient 0.01 \
    --temperature 1.0 --min_tokens 4 --max_tokens 512 --engine vllm --gpu_memory_utilization 0.85 \
    --eval_every 10 --eval_examples 512 --save_every 20 \
    --autocast bfloat16 --gradient_checkpointing --head_chunk_tokens 2048 --wandb_project cs336-ppo "$@"
