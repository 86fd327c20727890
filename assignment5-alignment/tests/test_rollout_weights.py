"""New weights in an engine: policies plain, compiled, with adapters, wrapped and sharded; and the growing cache."""

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from transformers.cache_utils import DynamicCache

from cs336_alignment.lora import LoRALinear, apply_lora, merge_lora
from cs336_alignment.rollouts import SamplingParameters
from cs336_alignment.rollouts.factory import make_engine
from cs336_alignment.rollouts.hf_engine import HFEngine
from cs336_alignment.rollouts.kv_cache import RolloutCache
from cs336_alignment.rollouts.vllm_engine import VLLMOptions, engine_arguments
from cs336_alignment.rollouts.vllm_server import VLLMServerEngine
from cs336_alignment.rollouts.weight_files import write_weights
from cs336_alignment.rollouts.weight_sync import copy_weights, named_weights, unwrap
from cs336_basics.command_line import UsageError
from cs336_systems.data_parallel import FlatDDP
from cs336_systems.fsdp import FSDP

from .rollout_models import PROMPTS, make_model
from .tiny_models import tiny_tokenizer

GREEDY = SamplingParameters(max_tokens=8, temperature=0.0)


@pytest.fixture
def one_process_group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@torch.no_grad()
def change(model):
    """As an optimizer step would."""
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) * 0.3)


def with_adapters(model):
    torch.manual_seed(4)
    apply_lora(model, rank=2)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, LoRALinear):
                torch.nn.init.normal_(module.lora_b, generator=torch.Generator().manual_seed(5))
    return model


def sharded(model):
    return FSDP(model, layer_types=(torch.nn.Linear, torch.nn.Embedding, LoRALinear))


WRAPPINGS = {
    "plain": lambda model: model,
    "compiled": torch.compile,
    "data parallel": FlatDDP,
    "torch's data parallel": torch.nn.parallel.DistributedDataParallel,
    "sharded": sharded,
    "compiled, data parallel": lambda model: FlatDDP(torch.compile(model)),
}


@pytest.mark.parametrize("adapters", [False, True])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.usefixtures("one_process_group")
def test_the_engine_takes_any_policy_s_weights(wrapping, adapters):
    plain, policy, own = make_model("qwen2", 1), make_model("qwen2", 1), make_model("qwen2", 2)
    for model in (plain, policy):
        change(model)
        if adapters:
            with_adapters(model)
    if adapters:
        merge_lora(plain)
    engine = HFEngine(own, tiny_tokenizer())
    before = engine.generate(PROMPTS, GREEDY)
    engine.load_weights(WRAPPINGS[wrapping](policy))
    for name, value in plain.state_dict().items():
        assert torch.equal(own.state_dict()[name], value), name
    after = engine.generate(PROMPTS, GREEDY)
    assert after == HFEngine(plain, tiny_tokenizer()).generate(PROMPTS, GREEDY) != before


def test_only_weights_with_adapters_are_copied():
    policy = with_adapters(make_model("llama"))
    own = {value.data_ptr() for value in policy.state_dict().values()}
    copied = {name for name, value in named_weights(policy) if value.data_ptr() not in own}
    assert copied == {f"{name}.weight" for name, module in policy.named_modules() if isinstance(module, LoRALinear)}


def test_an_engine_on_the_policy_itself_always_has_its_newest_weights():
    policy, tokenizer = make_model("llama"), tiny_tokenizer()
    with make_engine("hf", model="unused", policy=policy, tokenizer=tokenizer) as engine:
        assert engine.model is policy
        before = engine.generate(PROMPTS, GREEDY)
        change(policy)
        engine.load_weights(torch.compile(policy))
        assert engine.model is unwrap(torch.compile(policy)) is policy
        assert engine.generate(PROMPTS, GREEDY) != before


def test_other_models_weights_are_refused():
    with pytest.raises(UsageError, match="the engine's model has no such weight"):
        copy_weights(make_model("qwen2"), make_model("llama"))
    with pytest.raises(UsageError, match=r"the policy lacks model\.layers\.0\.self_attn\.q_proj\.bias"):
        copy_weights(make_model("llama"), make_model("qwen2"))


def test_written_weights_are_the_policy_s(tmp_path):
    policy = make_model("gpt2")  # its head is tied to its embedding
    write_weights(policy, tmp_path, bytes_per_file=20_000)
    files = sorted(tmp_path.iterdir())
    assert len(files) > 2
    read = {name: value for file in files for name, value in load_file(file).items()}
    assert read.keys() == policy.state_dict().keys()
    assert all(torch.equal(read[name], value) for name, value in policy.state_dict().items())


def test_unknown_engines_and_servers_are_refused():
    with pytest.raises(UsageError, match="engine is 'tgi'; allowed are hf, vllm, vllm-server"):
        make_engine("tgi", model="unused", tokenizer=tiny_tokenizer())
    with pytest.raises(UsageError, match=r"no vLLM server answers at http://127\.0\.0\.1:9"):
        VLLMServerEngine("http://127.0.0.1:9", tiny_tokenizer())
    with pytest.raises(UsageError, match="server_url 'localhost' is no address"):
        VLLMServerEngine("localhost", tiny_tokenizer())
    with pytest.raises(UsageError, match="max_batch_size is 0"):
        HFEngine(make_model("gpt2"), tiny_tokenizer(), max_batch_size=0)


def test_vllm_takes_the_share_of_memory_that_fits_its_device():
    for device, usual in (("cuda:1", 0.85), ("cpu", 0.2)):
        for asked, share in ((None, usual), (0.4, 0.4)):
            options = VLLMOptions(device=device, gpu_memory_utilization=asked)
            assert engine_arguments(torch.device(device), options)["gpu_memory_utilization"] == share
    assert engine_arguments(torch.device("cuda:1"), VLLMOptions(tensor_parallel=2))["device_ids"] == [1, 2]
    with pytest.raises(UsageError, match="device mps cannot run the engine vllm; allowed are cuda, cpu"):
        engine_arguments(torch.device("mps"), VLLMOptions())


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_the_growing_cache_holds_what_the_concatenating_one_does(family):
    """Rows expand once, then leave at random, while columns are added past the buffers' first size."""
    config = make_model(family).config
    generator = torch.Generator().manual_seed(0)
    ours, reference = RolloutCache(config), DynamicCache(config=config)

    def update(rows, columns):
        for layer in range(2):
            keys, values = torch.randn(2, rows, 2, columns, 8, generator=generator)
            for found, expected in zip(
                ours.update(keys, values, layer), reference.update(keys, values, layer), strict=True
            ):
                assert torch.equal(found, expected)

    update(3, 5)
    rows = torch.tensor([0, 0, 1, 2, 2, 2, 1])
    ours.expand_rows(rows)
    reference.batch_select_indices(rows)
    for step in range(150):
        update(len(rows), 1)
        assert ours.get_seq_length() == reference.get_seq_length() == 6 + step
        if step % 30 == 29:  # the last row takes the place of the second
            order = torch.tensor([0, len(rows) - 1, *range(2, len(rows) - 1)])
            ours.move_rows(torch.tensor([len(rows) - 1]), torch.tensor([1]), len(rows) - 1)
            reference.batch_select_indices(order)
            rows = rows[order]
