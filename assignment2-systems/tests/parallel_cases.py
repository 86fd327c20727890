"""One small model in several shapes, a few batches, and how a single process trains on them.

Everything is in float64, so that a difference in the order of sums stays near 1e-15 and any mistake stands out.
"""

import torch

from cs336_basics.model import BasicsTransformerLM
from cs336_basics.trainer.AdamW import AdamW
from cs336_basics.trainer.cross_entropy import cross_entropy
from cs336_basics.trainer.gradient_clipping import clip_gradient

VOCAB_SIZE = 67  # which neither two nor four ranks divide
CONTEXT_LENGTH = 8
NUM_STEPS = 5
MAX_NORM = 0.5  # below what comes up, so that clipping acts
LEARNING_RATE = 1e-2
SHAPES = {
    "default": {},
    "tied, post-norm, qk-norm": {"tie_embeddings": True, "norm": "post", "qk_norm": True},
    "no norms, SiLU, NoPE": {"norm": "none", "ffn": "silu", "position": "none"},
}


def make_model(shape="default", dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    return BasicsTransformerLM(
        VOCAB_SIZE, CONTEXT_LENGTH, d_model=16, num_layers=4, num_heads=4, d_ff=24, dtype=dtype, **SHAPES[shape]
    )


def make_batches(count=NUM_STEPS, batch_size=8):
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(VOCAB_SIZE, (count, batch_size, CONTEXT_LENGTH + 1), generator=generator)
    return [(batch[:, :-1], batch[:, 1:]) for batch in tokens]


def make_optimizer(module):
    return AdamW(module.parameters(), lr=LEARNING_RATE)


def train_alone(model, batches):
    """Losses and gradient norms of a plain training run; the model is trained."""
    optimizer = make_optimizer(model)
    curve = []
    for inputs, targets in batches:
        optimizer.zero_grad()
        loss = cross_entropy(model(inputs), targets)
        loss.backward()
        norm = clip_gradient(model.parameters(), MAX_NORM)
        optimizer.step()
        curve.append((loss.item(), norm.item()))
    return curve


def train_together(parallel, optimizer, batches):
    """The same for a `ModelParallel`."""
    curve = []
    for inputs, targets in batches:
        optimizer.zero_grad()
        loss = parallel.backward(inputs, targets)
        norm = parallel.clip_gradient(MAX_NORM)
        optimizer.step()
        curve.append((loss.item(), norm.item()))
    return curve


def refusal(function, *arguments, **keywords):
    """The message and type of the error that a call raises; None if it raises none."""
    try:
        function(*arguments, **keywords)
    except Exception as error:
        return type(error).__name__, str(error)
    return None
