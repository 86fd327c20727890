#!/usr/bin/env bash
# The four benchmarks of the safety supplement, greedy, one after the other; a stopped run goes on where it was.
#   launch/evaluate_assistant.sh [MODEL] [WRAPPER] [JUDGE]
# WRAPPER: zero_shot_system_prompt for a base model, alpaca_sft for one fine-tuned with that template, chat for others.
# On Slurm: sbatch --gres=gpu:2 --time=8:00:00 launch/evaluate_assistant.sh ...
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"
model=${1:-meta-llama/Llama-3.1-8B} wrapper=${2:-zero_shot_system_prompt} judge=${3:-meta-llama/Llama-3.3-70B-Instruct}
judge_gpus=${JUDGE_GPUS:-2}
declare -A data=(
    [mmlu]=data/mmlu [gsm8k]=data/gsm8k_test.jsonl
    [alpaca_eval]=data/alpaca_eval.json [simple_safety_tests]=data/simple_safety_tests.csv
)
for task in mmlu gsm8k alpaca_eval simple_safety_tests; do
    uv run --extra vllm python scripts/evaluate.py --task "$task" --model "$model" --data "${data[$task]}" \
        --engine vllm --dtype bfloat16 --chunk_size 1024 --wrapper "$wrapper" --max_model_len 4096 \
        --judge_model "$judge" --judge_engine vllm --judge_dtype bfloat16 \
        --judge_tensor_parallel "$judge_gpus" --judge_max_model_len 8192
done
