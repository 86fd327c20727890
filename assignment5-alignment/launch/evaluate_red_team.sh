#!/usr/bin/env bash
# Red-teaming with the requests of SimpleSafetyTests: every attack, ten attempts each.
#   launch/evaluate_red_team.sh [MODEL] [WRAPPER] [JUDGE] [further flags of scripts/red_team.py]
# On Slurm: sbatch --gres=gpu:2 --time=4:00:00 launch/evaluate_red_team.sh ...
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"
model=${1:-meta-llama/Llama-3.1-8B} wrapper=${2:-zero_shot_system_prompt} judge=${3:-meta-llama/Llama-3.3-70B-Instruct}
exec uv run --extra vllm python scripts/red_team.py --model "$model" --data data/simple_safety_tests.csv --num_samples 10 \
    --engine vllm --dtype bfloat16 --chunk_size 1024 --wrapper "$wrapper" --max_model_len 4096 \
    --judge_model "$judge" --judge_engine vllm --judge_dtype bfloat16 \
    --judge_tensor_parallel "${JUDGE_GPUS:-2}" --judge_max_model_len 8192 "${@:4}"
