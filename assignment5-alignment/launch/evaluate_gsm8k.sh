#!/usr/bin/env bash
# GSM8K with three worked examples in the r1_zero format, as the 2026 handout asks OLMo-2-1B.
#   launch/evaluate_gsm8k.sh [MODEL] [DATA] [further flags of scripts/evaluate.py, such as --num_samples 16 --pass_at 1,4,16]
# On Slurm: sbatch --gres=gpu:1 --time=1:00:00 launch/evaluate_gsm8k.sh ...
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"
model=${1:-allenai/OLMo-2-0425-1B} data=${2:-data/gsm8k_test.jsonl}
exec uv run --extra vllm python scripts/evaluate.py --task gsm8k --model "$model" --data "$data" \
    --engine vllm --dtype bfloat16 --chunk_size 512 \
    --prompt r1_zero_three_shot_gsm8k --temperature 1 --max_tokens 512 "${@:3}"
