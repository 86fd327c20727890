#!/usr/bin/env bash
# Zero-shot MATH with the r1_zero prompt, as the 2025 handout samples it: temperature 1, top-p 1, 1024 tokens.
#   launch/evaluate_math.sh [MODEL] [DATA] [further flags of scripts/evaluate.py]
# On Slurm: sbatch --gres=gpu:1 --time=1:00:00 launch/evaluate_math.sh ...
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"
model=${1:-Qwen/Qwen2.5-Math-1.5B} data=${2:-data/math500_test.jsonl}
exec uv run --extra vllm python scripts/evaluate.py --task math --model "$model" --data "$data" \
    --engine vllm --dtype bfloat16 --chunk_size 512 --prompt r1_zero --temperature 1 --max_tokens 1024 "${@:3}"
