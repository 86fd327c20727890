"""Log-probabilities of responses under the frozen reference: computed once, before training, and kept in a file.

So training holds one model, not two. The file grows while it is computed: after a stop, the rest is computed.
"""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from tqdm import tqdm

from cs336_alignment.log_probs import get_response_log_probs
from cs336_alignment.parallel.replica import load_frozen
from cs336_alignment.policy import weight_files
from cs336_alignment.preference.batches import PairBatch, batches_by_length
from cs336_alignment.preference.config import PairConfig
from cs336_alignment.preference.pairs import EncodedPair
from cs336_alignment.training.processes import ALONE, Processes
from cs336_alignment.training.update import autocast_to
from cs336_basics.atomic_file import atomic_write

REFERENCE_NAME = "reference_log_probs.safetensors"
_SECONDS_BETWEEN_SAVES = 30.0


def response_log_probs(
    model: nn.Module, batch: PairBatch, chunk_tokens: int | None = None
) -> tuple[Float[Tensor, " pairs"], Float[Tensor, " pairs"]]:
    """The log-probabilities of the chosen and of the rejected responses, all in one forward pass.

    Args:
        model: a causal language model.
        batch: on the model's device.
        chunk_tokens: as for `get_response_log_probs`.
    """
    scored = get_response_log_probs(
        model, batch.input_ids[:, :-1], batch.input_ids[:, 1:],
        response_mask=batch.response_mask[:, 1:], chunk_tokens=chunk_tokens,
    )  # fmt: skip
    chosen, rejected = scored["log_probs"].sum(dim=1).chunk(2)
    return chosen, rejected


def reference_log_probs(
    config: PairConfig,
    reference: str,
    pairs: Sequence[EncodedPair],
    pad_id: int,
    *,
    processes: Processes = ALONE,
    chunk_tokens: int | None = None,
    progress: bool = True,
) -> Float[Tensor, "pairs 2"]:
    """Under the reference, the log-probabilities of each pair's chosen and rejected response.

    Args:
        config: how to load the reference and how to compute; the file lies in its `out`.
        reference: a model's folder or name. It is loaded if the file does not hold all of the results.
        pairs: as they are numbered in the result.
        pad_id: what rows are padded with.
        processes: those that share the work; the first one keeps the file.
        chunk_tokens: as for `get_response_log_probs`.
        progress: show a progress bar.

    Returns:
        On the CPU, in float32.
    """
    path, fingerprint = Path(config.out) / REFERENCE_NAME, _fingerprint(config, reference, pairs)
    [results] = processes.gather([_read(path, fingerprint, len(pairs))] if processes.writes else [])
    todo = results.isnan().any(dim=1).nonzero().flatten().numpy()
    if not len(todo):
        return results
    model = load_frozen(config, reference)
    device = next(model.parameters()).device
    bar = tqdm(
        total=len(pairs), initial=len(pairs) - len(todo), unit="pair", desc="reference",
        disable=not (progress and processes.writes),
    )  # fmt: skip
    saved = time.monotonic()
    try:
        with bar, torch.no_grad(), autocast_to(config.autocast, device):
            for batch in batches_by_length(pairs, todo, config.eval_batch_size, pad_id, processes):
                both = torch.stack(response_log_probs(model, batch.to(device), chunk_tokens), dim=1)
                for indices, log_probs in processes.gather([(batch.indices, both.float().cpu())]):
                    results[torch.from_numpy(indices)] = log_probs
                    bar.update(len(indices))
                if processes.writes and time.monotonic() - saved > _SECONDS_BETWEEN_SAVES:
                    _write(path, fingerprint, results)
                    saved = time.monotonic()
    finally:
        if processes.writes:
            _write(path, fingerprint, results)
    return results


def _fingerprint(config: PairConfig, reference: str, pairs: Sequence[EncodedPair]) -> str:
    """Changes with what the results depend on."""
    digest = hashlib.sha256(f"{reference} {weight_files(reference)}\n{config.dtype} {config.autocast}\n".encode())
    for pair in pairs:
        digest.update(np.array([pair.response_start, len(pair.chosen), *pair.chosen, *pair.rejected]).tobytes())
    return digest.hexdigest()


def _read(path: Path, fingerprint: str, num_pairs: int) -> Float[Tensor, "pairs 2"]:
    """What the file holds; NaN where a result is missing, which is everywhere if it is another run's or damaged."""
    try:
        with safe_open(path, "pt") as file:
            if file.metadata() == {"fingerprint": fingerprint}:
                return file.get_tensor("log_probs")
    except (FileNotFoundError, SafetensorError):
        pass
    return torch.full((num_pairs, 2), torch.nan)


def _write(path: Path, fingerprint: str, results: Float[Tensor, "pairs 2"]) -> None:
    with atomic_write(path) as file:
        file.write(safetensors.torch.save({"log_probs": results}, metadata={"fingerprint": fingerprint}))
