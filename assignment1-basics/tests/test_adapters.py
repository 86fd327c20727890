"""Every adapter, called as the shared suite calls it, against torch's or transformers' own."""

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from . import adapters

D_MODEL, NUM_HEADS, D_FF, SEQ, BATCH, VOCAB, LAYERS, THETA = 32, 4, 64, 12, 3, 50, 2, 10_000.0


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def half_split_rows(weight: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Rows of a query or key projection from interleaved pairs (2k, 2k+1) to Llama's halves (k, k + d/2)."""
    d_out, d_in = weight.shape
    return weight.view(num_heads, d_out // num_heads // 2, 2, d_in).transpose(1, 2).reshape(d_out, d_in)


def llama_with(weights: dict[str, torch.Tensor], num_layers: int) -> LlamaForCausalLM:
    """transformers' Llama holding the contract's weights."""
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=D_MODEL,
        intermediate_size=D_FF,
        num_hidden_layers=num_layers,
        num_attention_heads=NUM_HEADS,
        rms_norm_eps=1e-5,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    state = {
        "model.embed_tokens.weight": weights["token_embeddings.weight"],
        "lm_head.weight": weights["lm_head.weight"],
    }
    state["model.norm.weight"] = weights["ln_final.weight"]
    for i in range(num_layers):
        ours, theirs = f"layers.{i}.", f"model.layers.{i}."
        state[theirs + "self_attn.q_proj.weight"] = half_split_rows(weights[ours + "attn.q_proj.weight"], NUM_HEADS)
        state[theirs + "self_attn.k_proj.weight"] = half_split_rows(weights[ours + "attn.k_proj.weight"], NUM_HEADS)
        state[theirs + "self_attn.v_proj.weight"] = weights[ours + "attn.v_proj.weight"]
        state[theirs + "self_attn.o_proj.weight"] = weights[ours + "attn.output_proj.weight"]
        state[theirs + "mlp.gate_proj.weight"] = weights[ours + "ffn.w1.weight"]
        state[theirs + "mlp.down_proj.weight"] = weights[ours + "ffn.w2.weight"]
        state[theirs + "mlp.up_proj.weight"] = weights[ours + "ffn.w3.weight"]
        state[theirs + "input_layernorm.weight"] = weights[ours + "ln1.weight"]
        state[theirs + "post_attention_layernorm.weight"] = weights[ours + "ln2.weight"]
    model.load_state_dict(state)
    return model.eval()


def random_weights(num_layers: int) -> dict[str, torch.Tensor]:
    """Weights under the contract's names."""
    weights = {
        "token_embeddings.weight": torch.randn(VOCAB, D_MODEL),
        "ln_final.weight": torch.rand(D_MODEL) + 0.5,
        "lm_head.weight": torch.randn(VOCAB, D_MODEL) / D_MODEL**0.5,
    }
    for i in range(num_layers):
        for name in ("q_proj", "k_proj", "v_proj", "output_proj"):
            weights[f"layers.{i}.attn.{name}.weight"] = torch.randn(D_MODEL, D_MODEL) / D_MODEL**0.5
        weights[f"layers.{i}.ffn.w1.weight"] = torch.randn(D_FF, D_MODEL) / D_MODEL**0.5
        weights[f"layers.{i}.ffn.w2.weight"] = torch.randn(D_MODEL, D_FF) / D_FF**0.5
        weights[f"layers.{i}.ffn.w3.weight"] = torch.randn(D_FF, D_MODEL) / D_MODEL**0.5
        weights[f"layers.{i}.ln1.weight"] = torch.rand(D_MODEL) + 0.5
        weights[f"layers.{i}.ln2.weight"] = torch.rand(D_MODEL) + 0.5
    return weights


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual.detach(), expected.detach(), atol=2e-5, rtol=1e-4)


def test_run_linear():
    weight, x = torch.randn(7, 5), torch.randn(2, 3, 5)
    close(adapters.run_linear(5, 7, weight, x), F.linear(x, weight))


def test_run_embedding():
    weight, ids = torch.randn(11, 5), torch.randint(11, (2, 3))
    assert torch.equal(adapters.run_embedding(11, 5, weight, ids), F.embedding(ids, weight))


def test_run_swiglu():
    w1, w2, w3 = torch.randn(D_FF, D_MODEL), torch.randn(D_MODEL, D_FF), torch.randn(D_FF, D_MODEL)
    x = torch.randn(BATCH, SEQ, D_MODEL)
    expected = F.linear(F.silu(F.linear(x, w1)) * F.linear(x, w3), w2)
    torch.testing.assert_close(adapters.run_swiglu(D_MODEL, D_FF, w1, w2, w3, x), expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("leading", [(BATCH,), (BATCH, NUM_HEADS)])
def test_run_scaled_dot_product_attention(leading):
    q, k, v = torch.randn(*leading, 6, 8), torch.randn(*leading, 9, 8), torch.randn(*leading, 9, 5)
    mask = torch.rand(*leading, 6, 9) > 0.5
    mask[..., 0] = True
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    close(adapters.run_scaled_dot_product_attention(Q=q, K=k, V=v, mask=mask), expected)
    close(adapters.run_scaled_dot_product_attention(q, k, v), F.scaled_dot_product_attention(q, k, v))


def test_run_multihead_self_attention():
    projections = [torch.randn(D_MODEL, D_MODEL) / D_MODEL**0.5 for _ in range(4)]
    x = torch.randn(BATCH, SEQ, D_MODEL)
    reference = torch.nn.MultiheadAttention(D_MODEL, NUM_HEADS, bias=False, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat(projections[:3]))
        reference.out_proj.weight.copy_(projections[3])
    future = torch.nn.Transformer.generate_square_subsequent_mask(SEQ)
    expected, _ = reference(x, x, x, attn_mask=future, is_causal=True, need_weights=False)
    close(adapters.run_multihead_self_attention(D_MODEL, NUM_HEADS, *projections, x), expected)


def test_run_multihead_self_attention_with_rope_and_block_and_lm():
    weights = random_weights(LAYERS)
    llama = llama_with(weights, LAYERS)
    ids = torch.randint(VOCAB, (BATCH, SEQ))
    logits = adapters.run_transformer_lm(VOCAB, 64, D_MODEL, LAYERS, NUM_HEADS, D_FF, THETA, weights, ids)
    close(logits, llama(ids).logits)
    # Fewer tokens than the context length.
    shorter = adapters.run_transformer_lm(VOCAB, 64, D_MODEL, LAYERS, NUM_HEADS, D_FF, THETA, weights, ids[:, :5])
    close(shorter, llama(ids[:, :5]).logits)

    x = torch.randn(BATCH, SEQ, D_MODEL)
    position_embeddings = llama.model.rotary_emb(x, torch.arange(SEQ)[None])
    causal = torch.full((SEQ, SEQ), float("-inf")).triu(1)[None, None]
    layer = llama.model.layers[0]
    block_weights = {name[9:]: weight for name, weight in weights.items() if name.startswith("layers.0.")}
    block_output = layer(x, attention_mask=causal, position_embeddings=position_embeddings)
    close(adapters.run_transformer_block(D_MODEL, NUM_HEADS, D_FF, 64, THETA, block_weights, x), block_output)

    names = ("q_proj", "k_proj", "v_proj", "output_proj")
    projections = [weights[f"layers.0.attn.{name}.weight"] for name in names]
    attended, _ = layer.self_attn(x, position_embeddings=position_embeddings, attention_mask=causal)
    for positions in (None, torch.arange(SEQ)[None]):
        close(
            adapters.run_multihead_self_attention_with_rope(
                D_MODEL, NUM_HEADS, 64, THETA, *projections, x, token_positions=positions
            ),
            attended,
        )


def test_run_rope():
    """Rotating the pair (2k, 2k+1) by the angle p * theta^(-2k/d) is multiplying a complex number by e^(i angle)."""
    x, positions = torch.randn(BATCH, SEQ, 8), torch.randint(40, (BATCH, SEQ))
    frequencies = THETA ** (-torch.arange(0, 8, 2).double() / 8)
    turns = torch.exp(1j * positions[..., None].double() * frequencies)
    expected = torch.view_as_real(torch.view_as_complex(x.double().view(BATCH, SEQ, 4, 2)) * turns).flatten(-2)
    close(adapters.run_rope(8, THETA, 40, x, positions), expected.float())


def test_run_rmsnorm():
    weight, x = torch.randn(D_MODEL), torch.randn(BATCH, SEQ, D_MODEL)
    close(adapters.run_rmsnorm(D_MODEL, 1e-5, weight, x), F.rms_norm(x, (D_MODEL,), weight, 1e-5))


def test_run_silu_softmax_and_cross_entropy():
    x, targets = torch.randn(BATCH, VOCAB), torch.randint(VOCAB, (BATCH,))
    close(adapters.run_silu(x), F.silu(x))
    for scaled in (x, 1000 * x):
        for dim in (0, -1):
            close(adapters.run_softmax(scaled, dim), F.softmax(scaled, dim))
        close(adapters.run_cross_entropy(scaled, targets), F.cross_entropy(scaled, targets))


def test_run_get_batch():
    data = np.arange(100)
    x, y = adapters.run_get_batch(data, batch_size=4000, context_length=7, device="cpu")
    assert x.shape == y.shape == (4000, 7)
    assert torch.equal(x + 1, y)
    assert set(x[:, 0].tolist()) == set(range(93))
    with pytest.raises((RuntimeError, AssertionError)):
        adapters.run_get_batch(data, 2, 7, "cuda:99")


def test_run_gradient_clipping():
    def parameters() -> list[torch.nn.Parameter]:
        torch.manual_seed(1)
        params = [torch.nn.Parameter(torch.randn(5, 5)) for _ in range(4)]
        for p in params[:3]:
            p.grad = torch.randn_like(p)
        return params

    ours, theirs = parameters(), parameters()
    adapters.run_gradient_clipping(ours, 0.01)
    torch.nn.utils.clip_grad_norm_(theirs, 0.01)
    assert ours[3].grad is None
    for a, b in zip(ours[:3], theirs[:3], strict=True):
        close(a.grad, b.grad)


def test_get_adamw_cls_and_checkpoints():
    def trained(optimizer_class, steps, model=None, optimizer=None):
        torch.manual_seed(2)
        model = model or torch.nn.Linear(3, 2, bias=False)
        optimizer = optimizer or optimizer_class(
            model.parameters(), lr=1e-3, weight_decay=0.01, betas=(0.9, 0.999), eps=1e-8
        )
        for _ in range(steps):
            optimizer.zero_grad()
            ((model(torch.rand(4, 3)) - 1) ** 2).sum().backward()
            optimizer.step()
        return model, optimizer

    model, optimizer = trained(adapters.get_adamw_cls(), 200)
    close(model.weight, trained(torch.optim.AdamW, 200)[0].weight)

    buffer = io.BytesIO()
    adapters.run_save_checkpoint(model, optimizer, 200, buffer)
    buffer.seek(0)
    fresh_model, fresh_optimizer = trained(adapters.get_adamw_cls(), 1)
    assert adapters.run_load_checkpoint(buffer, fresh_model, fresh_optimizer) == 200
    assert torch.equal(model.weight, fresh_model.weight)
    continued = trained(None, 10, model, optimizer)[0].weight.clone()
    assert torch.equal(continued, trained(None, 10, fresh_model, fresh_optimizer)[0].weight)


def test_run_get_lr_cosine_schedule():
    rates = [adapters.run_get_lr_cosine_schedule(it, 1.0, 0.1, 7, 21) for it in range(25)]
    assert rates[:8] == pytest.approx([i / 7 for i in range(8)])
    assert rates[14] == pytest.approx(0.55)
    assert rates[21:] == pytest.approx([0.1] * 4)


def test_run_train_bpe_and_get_tokenizer(tmp_path):
    text = "low low low low low lower lower widest widest widest newest newest newest newest newest newest<|endoftext|>"
    path = tmp_path / "text.txt"
    path.write_text(text)
    vocab, merges = adapters.run_train_bpe(input_path=path, vocab_size=263, special_tokens=["<|endoftext|>"])
    # Worked by hand in the course's handout: pairs "s t", "e st", "o w", "l ow", "w est", "n e".
    assert merges[:2] == [(b"s", b"t"), (b"e", b"st")]
    assert merges[2:6] == [(b"o", b"w"), (b"l", b"ow"), (b"w", b"est"), (b"n", b"e")]
    assert len(vocab) == 263
    assert b"<|endoftext|>" in vocab.values()
    tokenizer = adapters.get_tokenizer(vocab, merges, ["<|endoftext|>"])
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert [vocab[i] for i in ids[-4:]] == [b" ", b"ne", b"west", b"<|endoftext|>"]
    assert list(tokenizer.encode_iterable(iter([text[:30], text[30:]]))) == ids
