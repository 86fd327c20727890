#!/usr/bin/env bash
# GRPO with the policy divided among the GPUs of a node (FSDP), and a vLLM server on one more of them: with Slurm
#     MODEL=Qwen/Qwen2.5-Math-7B sbatch launch/grpo_fsdp_slurm.sh
# The server starts here, with the endpoints for exchanging weights, and ends with the job. A requeued job goes on from
# its last checkpoint. Further flags are handed on to scripts/grpo.py.
#SBATCH --job-name=grpo-fsdp --nodes=1 --ntasks=1 --gres=gpu:8 --cpus-per-task=64 --mem=512G --time=24:00:00 --requeue
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"
model=${MODEL:-Qwen/Qwen2.5-Math-7B} gpus=${GPUS:-8} port=${PORT:-8000}
out=${OUT:-runs/grpo_fsdp_${SLURM_JOB_ID:-local}}
trainers=$((gpus - 1))
CUDA_VISIBLE_DEVICES=$trainers VLLM_SERVER_DEV_MODE=1 uv run --extra vllm vllm serve "$model" \
    --port "$port" --dtype bfloat16 --gpu-memory-utilization 0.85 &
server=$!
trap 'kill "$server" 2> /dev/null || true' EXIT
until curl --silent --fail "http://localhost:$port/health" > /dev/null; do
    kill -0 "$server" 2> /dev/null || { echo "the vLLM server ended; its message stands above" >&2; exit 1; }
    sleep 5
done
resume=()
if compgen -G "$out/checkpoints/*.pt" > /dev/null; then resume=(--resume_ckp latest); fi
CUDA_VISIBLE_DEVICES=$(seq --separator=, 0 $((trainers - 1))) \
    uv run --extra vllm torchrun --standalone --nproc_per_node "$trainers" scripts/grpo.py \
    --model "$model" --task math --data "${DATA:-data/math_train.jsonl}" \
    --val_data "${VAL_DATA:-data/math_validation.jsonl}" --prompt r1_zero --parallel fsdp \
    --variant "${VARIANT:-grpo_clip}" --num_steps 200 --lr 1e-6 \
    --rollout_batch_size $((32 * trainers)) --group_size 8 --temperature 1.0 --min_tokens 4 --max_tokens 1024 \
    --gradient_accumulation_steps 16 --autocast bfloat16 --gradient_checkpointing \
    --engine vllm-server --server_url "http://localhost:$port" \
    --eval_every 10 --eval_examples 512 --save_every 10 --out "$out" "${resume[@]}" "$@"
