"""Tiny random checkpoints of transformers' own classes, in the shapes and spellings that real ones come in."""
import json

import torch
from transformers import AutoConfig, AutoModelForCausalLM

SMALL = dict(vocab_size=512, hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=32,
             max_position_embeddings=512, pad_token_id=0, bos_token_id=1, eos_token_id=2)
ROPE_LLAMA3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
ROPE_LINEAR = dict(rope_type="linear", rope_theta=10000.0, factor=2.5)
ROPE_FAR = dict(rope_type="default", rope_theta=500000.0)
ROPE_PLAIN = dict(rope_parameters=dict(rope_type="default", rope_theta=10000.0))
NO_WINDOW = dict(sliding_window=None)

# (name, model_type, config keys, how it is stored, config keys that switch the case's feature off).
# Stored: dtype (default float32), old_style (config.json as transformers 4 wrote it), shard (largest file, as save_pretrained takes it).
# Where the last is given, the reference itself must give other logits with it: otherwise the case would show nothing.
LOGIT_CASES = [
    ("llama", "llama", {}, {}, None),
    ("llama tied", "llama", dict(tie_word_embeddings=True), dict(dtype="bfloat16"), None),
    ("llama biases", "llama", dict(attention_bias=True, mlp_bias=True), {}, None),
    ("llama multi-head", "llama", dict(num_key_value_heads=4), dict(dtype="float16"), None),
    ("llama one kv head", "llama", dict(num_key_value_heads=1, head_dim=64), {}, None),
    ("llama rope llama3", "llama", dict(rope_parameters=ROPE_LLAMA3), {}, ROPE_PLAIN),
    ("llama rope llama3 old-style", "llama", dict(rope_parameters=ROPE_LLAMA3), dict(old_style=True, dtype="bfloat16"), ROPE_PLAIN),
    ("llama rope linear old-style", "llama", dict(rope_parameters=ROPE_LINEAR), dict(old_style=True), ROPE_PLAIN),
    ("llama theta 500000 old-style", "llama", dict(rope_parameters=ROPE_FAR), dict(old_style=True), ROPE_PLAIN),
    ("llama gelu eps 1e-2", "llama", dict(hidden_act="gelu_pytorch_tanh", rms_norm_eps=1e-2), {}, dict(rms_norm_eps=1e-6)),
    ("llama shards", "llama", {}, dict(dtype="bfloat16", shard="200KB"), None),
    ("mistral", "mistral", NO_WINDOW, dict(dtype="float16"), None),
    ("mistral window", "mistral", dict(sliding_window=24), {}, NO_WINDOW),
    ("mistral window old-style tied", "mistral", dict(sliding_window=7, tie_word_embeddings=True), dict(old_style=True, dtype="bfloat16"), NO_WINDOW),
    ("mistral wide heads shards", "mistral", dict(sliding_window=None, head_dim=64), dict(shard="300KB"), None),
    ("qwen2", "qwen2", {}, dict(dtype="bfloat16"), None),
    ("qwen2 tied", "qwen2", dict(tie_word_embeddings=True), {}, None),
    ("qwen2 window some layers", "qwen2", dict(use_sliding_window=True, sliding_window=16, max_window_layers=1), {}, dict(layer_types=["full_attention"] * 3)),
    ("qwen2 window old-style", "qwen2", dict(use_sliding_window=True, sliding_window=16, max_window_layers=2),
     dict(old_style=True, dtype="float16"), dict(layer_types=["full_attention"] * 3)),
    ("qwen2 shards", "qwen2", {}, dict(dtype="float16", shard="100KB"), None),
    ("qwen3", "qwen3", {}, {}, None),
    ("qwen3 tied old-style", "qwen3", dict(tie_word_embeddings=True), dict(old_style=True, dtype="bfloat16"), None),
    ("qwen3 biases wide heads", "qwen3", dict(attention_bias=True, head_dim=64), {}, None),
    ("qwen3 window", "qwen3", dict(use_sliding_window=True, sliding_window=9, max_window_layers=0), {}, dict(layer_types=["full_attention"] * 3)),
    ("qwen3 tied shards", "qwen3", dict(tie_word_embeddings=True), dict(dtype="float16", shard="150KB"), None),
]

# (name, model_type, config keys, group size) to quantize, new-style config.json; the vocabulary is the demo tokenizer's.
QUANTIZED_CASES = [
    ("llama g128", "llama", {}, 128),
    ("llama multi-head g64", "llama", dict(num_key_value_heads=4), 64),
    ("mistral g32 tied theta 500000", "mistral", dict(sliding_window=None, tie_word_embeddings=True, rope_parameters=ROPE_FAR), 32),
    ("qwen2 biases g64", "qwen2", {}, 64),
    ("qwen3 g128", "qwen3", {}, 128),
]


def rewrite_old_style(path):
    """config.json with the keys of transformers 4."""
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope if rope["rope_type"] != "default" else None
    config["torch_dtype"] = config.pop("dtype")
    config.pop("layer_types", None)
    path.write_text(json.dumps(config, indent=2))


@torch.no_grad()
def randomize(model):
    """Weights that give activations and logits of unit size, drawn from torch's generator."""
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2:
            parameter.normal_(0, parameter.shape[-1] ** -0.5)
        elif name.endswith("norm.weight"):
            parameter.add_(0.1 * torch.randn_like(parameter))
        else:
            parameter.normal_(0, 0.1)


def make(folder, model_type, keys, stored=None):
    """Writes a checkpoint of random weights that `folder`'s name determines."""
    stored = stored or {}
    torch.manual_seed(sum(map(ord, folder.name)))
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **{**SMALL, **keys})).float()
    randomize(model)
    model.to(getattr(torch, stored.get("dtype", "float32"))).save_pretrained(folder, max_shard_size=stored.get("shard", "5GB"))
    if stored.get("old_style"):
        rewrite_old_style(folder / "config.json")
