"""Checkpoints of every architecture in more shapes and option values than the goldens have: transformers makes them, with random weights of unit size."""
import dataclasses
import json
import pathlib
import re
import sys
import zlib

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "goldens"))
import architecture_cases as goldens
from architecture_cases import FULL, LINEAR, LINEAR_ATTENTION, LINEAR_HEADS, LLAMA3, MLA, PLAIN, SLIDING, YARN, YARN_MSCALE, longrope


def sizes_of(hidden, intermediate, layers, heads, kv_heads, head_dim, experts, experts_per_token, expert_intermediate, latent, delta_rule):
    return dict(
        hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads,
        head_dim=head_dim, max_position_embeddings=512, sliding_window=23, num_experts=experts, num_experts_per_tok=experts_per_token,
        moe_intermediate_size=expert_intermediate, shared_expert_intermediate_size=intermediate,
        **dict(zip(("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"), latent)),
        **dict(zip(("linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim"), delta_rule)))


# name: (sizes, how it is stored). Stored: dtype, largest file (as save_pretrained takes it), old (config.json as transformers 4 wrote it),
# flip_tie (the head shares the embedding exactly where it does not by default).
SHAPES = {
    "as in the golden": ({}, dict()),
    "one kv head": (sizes_of(128, 224, 3, 4, 1, 64, 6, 2, 64, (64, 64, 32, 16, 32), (2, 6, 32, 16)), dict(dtype="bfloat16", shard="100KB", flip_tie=True)),
    "six heads": (sizes_of(96, 160, 3, 6, 3, 32, 8, 3, 96, (32, 64, 16, 32, 16), (3, 3, 16, 32)), dict(dtype="float16")),
    "multi-head": (sizes_of(128, 192, 4, 8, 8, 16, 4, 2, 32, (96, 32, 32, 8, 16), (4, 8, 16, 16)), dict(old=True, shard="200KB")),
}

# The names of sizes where they are not Llama's; all that the configuration class knows are set.
SPELLINGS = dict(
    intermediate_size=("intermediate_size", "intermediate_size_mlp", "ffn_dim", "n_inner", "ffn_hidden_size"),
    num_experts=("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"),
    num_experts_per_tok=("num_experts_per_tok", "moe_k", "moe_topk"),
    max_position_embeddings=("max_position_embeddings", "n_positions", "max_seq_len"),
    hidden_size=("hidden_size", "n_embd", "d_model"),
    num_hidden_layers=("num_hidden_layers", "n_layer", "n_layers"),
    num_attention_heads=("num_attention_heads", "n_head", "n_heads"),
)
# Keys that a case gives on purpose stay.
CASE_WINS = ("max_position_embeddings", "sliding_window")
# model_type: sizes that it has only one value of.
FIXED = {
    "phimoe": ("num_experts_per_tok",),
    "gpt_bigcode": ("num_key_value_heads",),
}
PER_LAYER = ("layer_types", "mlp_layer_types", "no_rope_layers")

OLMO3_THETA = 500000.0  # with another, transformers does not read the old-style file as meant: sliding layers get this one

# More option values, in the form of the goldens' CASES.
MORE = {
    "llama": {
        "gelu eps theta": (dict(hidden_act="gelu_pytorch_tanh", rms_norm_eps=1e-2, rope_parameters=dict(PLAIN, rope_theta=500000.0)), {}),
        "yarn attention_factor": (dict(rope_parameters=dict(YARN, attention_factor=1.3, beta_fast=4.0)), {}),
        "longrope": (dict(rope_parameters=longrope(8)), {}),
    },
    "mistral": {"theta head_dim": (dict(head_dim=32, rope_parameters=dict(PLAIN, rope_theta=1e6)), {})},
    "qwen2": {"yarn": (dict(rope_parameters=YARN), {}),
              "window late": (dict(use_sliding_window=True, sliding_window=7, num_hidden_layers=3, max_window_layers=2), {})},
    "qwen3": {"bias yarn": (dict(attention_bias=True, rope_parameters=YARN), {})},
    "phi3": {"act theta": (dict(hidden_act="gelu", rope_parameters=dict(PLAIN, rope_theta=50000.0)), dict(window=False))},
    "gemma": {"bias": (dict(attention_bias=True), {})},
    "gemma2": {"no caps": (dict(query_pre_attn_scalar=16, final_logit_softcapping=None, attn_logit_softcapping=None, attention_bias=True), {})},
    "gemma3_text": {"caps bias": (dict(query_pre_attn_scalar=32, attention_bias=True, final_logit_softcapping=2.0, attn_logit_softcapping=3.0), {})},
    "cohere": {"bias": (dict(logit_scale=0.25, attention_bias=True, use_qk_norm=True, tie_word_embeddings=False), {})},
    "cohere2": {"bias": (dict(logit_scale=0.25, attention_bias=True, head_dim=32), {})},
    "olmo": {"bias": (dict(attention_bias=True), {})},
    "olmo2": {"bias": (dict(attention_bias=True, rope_parameters=dict(PLAIN, rope_theta=500000.0)), {})},
    "olmo3": {"bias": (dict(attention_bias=True, num_hidden_layers=4), {}),
              "published theta": (dict(num_hidden_layers=4, rope_parameters={FULL: dict(YARN, rope_theta=OLMO3_THETA),
                                                                             SLIDING: dict(PLAIN, rope_theta=OLMO3_THETA)}), {})},
    "granite": {"llama3 rope": (dict(rope_parameters=LLAMA3, residual_multiplier=0.3), {})},
    "starcoder2": {"gelu": (dict(hidden_act="gelu", norm_epsilon=1e-3), {})},
    "stablelm": {"full rotary": (dict(partial_rotary_factor=1.0, use_parallel_residual=True), {}), "qk bias": (dict(qk_layernorm=True, use_qkv_bias=True), {})},
    "nemotron": {"quarter": (dict(partial_rotary_factor=0.25, norm_eps=1e-3), {})},
    "gpt_neox": {"tied full rotary": (dict(tie_word_embeddings=True, rope_parameters=dict(PLAIN, partial_rotary_factor=1.0)), {})},
    "smollm3": {"window": (dict(num_hidden_layers=4, use_sliding_window=True, sliding_window=9, no_rope_layer_interval=4), {}),
                "yarn bias": (dict(rope_parameters=YARN, attention_bias=True, mlp_bias=True, no_rope_layers=[1, 0]), {})},
    "exaone4": {"LLLG": (dict(num_hidden_layers=4, sliding_window=9, sliding_window_pattern="LLLG", layer_types=[SLIDING] * 3 + [FULL],
                               rope_parameters=LLAMA3), {})},
    "ernie4_5": {"theta": (dict(rope_parameters=dict(PLAIN, rope_theta=500000.0), tie_word_embeddings=True), {})},
    "seed_oss": {"biases": (dict(attention_bias=False, attention_out_bias=True, mlp_bias=True), {})},
    "helium": {"bias": (dict(attention_bias=True, mlp_bias=True), {})},
    "apertus": {"bias": (dict(attention_bias=True), {})},
    "arcee": {"bias": (dict(attention_bias=True, mlp_bias=True), {})},
    "cwm": {"four layers": (dict(num_hidden_layers=5), {})},
    "glm": {"no bias": (dict(attention_bias=False, head_dim=32, partial_rotary_factor=0.25), {})},
    "phi": {"act": (dict(hidden_act="gelu", partial_rotary_factor=0.25), {})},
    "gptj": {"rotary 4 tied": (dict(n_embd=64, n_head=4, n_layer=2, n_positions=64, rotary_dim=4, tie_word_embeddings=True), {})},
    "opt": {"gelu untied": (dict(ffn_dim=128, activation_function="gelu_new", tie_word_embeddings=False), {}),
            "no affine": (dict(ffn_dim=96, layer_norm_elementwise_affine=False), {})},
    "falcon": {"rw": (dict(multi_query=False, parallel_attn=False, alibi=True, bias=True, ffn_hidden_size=128), {}),
               "sequential rotary": (dict(multi_query=True, parallel_attn=False, alibi=False, bias=False), {}),
               "gelu_new bias": (dict(multi_query=False, parallel_attn=True, alibi=False, bias=True, activation="gelu_new"), {})},
    "mpt": {"softmax_scale": (dict(d_model=64, n_heads=4, n_layers=2, max_seq_len=64, attn_config=dict(softmax_scale=0.3)), {})},
    "gpt_bigcode": {"gelu": (dict(n_embd=64, n_head=4, n_layer=2, n_positions=64, activation_function="gelu", scale_attn_weights=False), {})},
    "mixtral": {"one expert a token": (dict(num_local_experts=3, num_experts_per_tok=1, head_dim=32), dict(window=False))},
    # Within the original length: beyond it, transformers 5.23 goes on with this architecture's short factors, other than the published code.
    "phimoe": {"longrope": (dict(rope_parameters=dict(longrope(8), original_max_position_embeddings=128, short_mscale=1.2, long_mscale=1.2)),
                            dict(window=False)),
               "window": (dict(attention_bias=False, lm_head_bias=False, router_jitter_noise=0.2), {})},
    "minimax_m2": {"all rotated": (dict(head_dim=16, rotary_dim=16, num_local_experts=6, num_experts_per_tok=4), {})},
    "qwen2_moe": {"window": (dict(use_sliding_window=True, sliding_window=5, max_window_layers=2, num_hidden_layers=4, norm_topk_prob=True), {})},
    "qwen3_moe": {"window sparse": (dict(use_sliding_window=True, sliding_window=5, num_hidden_layers=4, decoder_sparse_step=2, norm_topk_prob=True), {})},
    "olmoe": {"bias": (dict(attention_bias=True, num_experts=8, num_experts_per_tok=4), {})},
    "granitemoe": {"bias tied": (dict(attention_bias=True, tie_word_embeddings=True, embedding_multiplier=4.0, logits_scaling=1.5), dict(embedding=0.3))},
    "ernie4_5_moe": {"end": (dict(num_hidden_layers=4, moe_num_experts=6, moe_k=3, moe_num_shared_experts=0, moe_layer_start_index=1,
                                  moe_layer_end_index=2), {})},
    "glm4_moe": {"all dense but one": (dict(num_hidden_layers=3, first_k_dense_replace=2, norm_topk_prob=False, n_shared_experts=2), {})},
    "solar_open": {"groups": (dict(n_routed_experts=6, n_group=2, topk_group=1, n_shared_experts=2, norm_topk_prob=False, routed_scaling_factor=2.0), {})},
    "dots1": {"bias": (dict(attention_bias=True, n_group=1, topk_group=1, n_shared_experts=2, first_k_dense_replace=0, max_window_layers=1), {})},
    "exaone_moe": {"groups": (dict(num_hidden_layers=4, n_group=2, topk_group=1, num_experts=6, num_shared_experts=2, norm_topk_prob=False), {})},
    "gpt_oss": {"no bias": (dict(attention_bias=False, swiglu_limit=0.8, num_local_experts=6, num_experts_per_tok=3), {})},
    "hunyuan_v1_dense": {"bias": (dict(attention_bias=True), {})},
    "hunyuan_v1_moe": {"bias three": (dict(attention_bias=True, num_experts=6, moe_topk=3), {})},
    "llama4_text": {"all sparse, no norms": (dict(interleave_moe_layer_step=1, use_qk_norm=False, attn_temperature_tuning=False, intermediate_size=64,
                                                   intermediate_size_mlp=96, num_experts_per_tok=1, attention_chunk_size=4, attention_bias=True), {})},
    "deepseek_v2": {"bias": (dict(MLA, attention_bias=True, mlp_bias=True, topk_method="greedy", n_shared_experts=2), {})},
    "deepseek_v3": {"dense": (dict(MLA, n_group=1, topk_group=1, first_k_dense_replace=2, num_nextn_predict_layers=0), {})},
    "glm4_moe_lite": {"groups": (dict({k: v for k, v in MLA.items() if k != "first_k_dense_replace"}, n_routed_experts=6, n_group=2, topk_group=1,
                                      rope_interleave=False, mlp_layer_types=["sparse", "sparse"]), {})},
    "qwen3_next": {"interval": (dict(LINEAR_HEADS, num_hidden_layers=4, attention_bias=True, decoder_sparse_step=2), {}),
                   "conv 2": (dict(LINEAR_HEADS, linear_conv_kernel_dim=2, layer_types=[LINEAR_ATTENTION, FULL]), {})},
    "qwen3_5_text": {"interval": (dict(LINEAR_HEADS, num_hidden_layers=4, tie_word_embeddings=True), {})},
    "qwen3_5_moe_text": {"interval": (dict(LINEAR_HEADS, num_hidden_layers=4), {})},
    "internlm3": {"dynamic": (dict(rope_parameters=dict(rope_type="dynamic", rope_theta=10000.0, factor=3.0), max_position_embeddings=16), {})},
    "afmoe": {"plain": (dict(num_dense_layers=2, num_shared_experts=2, route_scale=0.7, num_hidden_layers=4, global_attn_every_n_layers=2,
                             mup_enabled=False), {})},
    "ministral3": {"window": (dict(sliding_window=6), {})},
}


@dataclasses.dataclass(frozen=True)
class Case:
    model_type: str
    option: str
    shape: str

    @property
    def name(self):
        return f"{self.model_type} {self.option}, {self.shape}"

    @property
    def table(self):
        return {**goldens.CASES[self.model_type], **MORE.get(self.model_type, {})}


def cases(shapes=tuple(SHAPES)):
    for model_type, table in goldens.CASES.items():
        if any("text" in options for _, options in table.values()):
            continue  # multimodal: the goldens compare how its text model is found, which is one of the others
        for option in [*table, *MORE.get(model_type, {})]:
            for shape in shapes:
                yield Case(model_type, option, shape)


def resize(model_type, arguments, sizes, keys):
    """Sets `sizes` in the configuration's `arguments`, as far as the model has them and the case's own `keys` do not need others."""
    known = AutoConfig.for_model(model_type).to_dict()
    for size, value in sizes.items():
        if size in FIXED.get(model_type, ()):
            continue
        for key in SPELLINGS.get(size, (size,)):
            null = key in keys and keys[key] is None  # no query latent, no window
            if (key in known or key in keys) and not null and not (key in CASE_WINS and key in keys):
                arguments[key] = value
    if model_type == "helium" and sizes:  # its output projection is square
        arguments["head_dim"] = sizes["hidden_size"] // sizes["num_attention_heads"]
    if "num_kv_heads" in keys:
        arguments["num_kv_heads"] = sizes.get("num_key_value_heads", keys["num_kv_heads"])
    if "kv_lora_rank" in known and sizes:
        arguments["num_key_value_heads"] = sizes["num_attention_heads"]
        arguments.pop("head_dim", None)
    if arguments.get("sliding_window", 0) is not None and "sliding_window" not in known:
        arguments.pop("sliding_window", None)
    layers = arguments.get("num_hidden_layers")
    for key in PER_LAYER:
        if key in keys and layers:
            arguments[key] = [keys[key][i % len(keys[key])] for i in range(layers)]
    rope = keys.get("rope_parameters")
    if sizes and rope and "short_factor" in rope:
        head_dim = sizes["head_dim"] if "head_dim" in known and arguments.get("head_dim") else sizes["hidden_size"] // sizes["num_attention_heads"]
        pairs = int(head_dim * rope.get("partial_rotary_factor", 1.0)) // 2
        arguments["rope_parameters"] = {**rope, **{key: longrope(pairs)[key] for key in ("short_factor", "long_factor")}}


@torch.no_grad()
def fill(model, seed, tied, embedding):
    generator = torch.Generator().manual_seed(seed)
    kept = set(model.state_dict())
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name in kept and tensor.is_floating_point():
            offset, scale = goldens.offset_and_scale(name, tensor, tied, embedding)
            tensor.copy_(offset + scale * (2 * torch.rand(tensor.shape, generator=generator) - 1))


def old_style(config, keys):
    """config.json with the keys of transformers 4; what follows from others is left out, as it is in published files."""
    if config["model_type"] == "olmo3" and config["rope_parameters"][FULL]["rope_theta"] != OLMO3_THETA:
        return config
    if "rope_parameters" not in config:
        return {**{k: v for k, v in config.items() if k != "dtype"}, "torch_dtype": config["dtype"]}
    old = {**goldens.old_style(config), **{k: v for k, v in config.items() if k == "layer_types" and k in keys}}
    if config["model_type"] == "gpt_neox":
        # published files have these names
        old["rotary_pct"], old["rotary_emb_base"] = old.pop("partial_rotary_factor"), old.pop("rope_theta")
    if config["model_type"] == "olmo3":
        del old["rope_local_base_freq"]
        if old["rope_scaling"]:
            old["rope_scaling"]["rope_type"] = old["rope_scaling"].pop("type")
    return old


def make(case, folder, dtype=None, **overrides):
    """Writes the checkpoint of a case and returns its config; `overrides` are further configuration keys, `dtype` replaces the shape's. Where config.json is
    old-style, folder/../new_config.json is the new one."""
    keys, options = case.table[case.option]
    sizes, stored = SHAPES[case.shape]
    arguments = goldens.arguments_of(case.model_type, keys, options)
    resize(case.model_type, arguments, sizes, keys)
    if stored.get("flip_tie"):
        arguments["tie_word_embeddings"] = not AutoConfig.for_model(case.model_type, **arguments).tie_word_embeddings
    arguments.update(overrides)
    config = AutoConfig.for_model(case.model_type, **arguments)
    model = AutoModelForCausalLM.from_config(config).float()
    fill(model, zlib.crc32(case.name.encode()), bool(config.tie_word_embeddings), options.get("embedding"))
    model.to(getattr(torch, dtype or stored.get("dtype", "float32")))
    config = goldens.save(model, folder, bool(options.get("fused")), max_shard_size=stored.get("shard", "5GB"))
    if stored.get("old") or options.get("old"):
        (folder.parent / "new_config.json").write_text(json.dumps(config))
        (folder / "config.json").write_text(json.dumps(old_style(config, keys), indent=2))
    return config


def tensors_of(folder):
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors.update(load_file(file))
    return tensors


def changed(folder, other):
    """Whether a tensor of the same name differs."""
    mine, others = tensors_of(folder), tensors_of(other)
    return any(not tensor.equal(others[name]) for name, tensor in mine.items() if name in others)


# model_type: the 3-D tensors that transformers loads, gate and up in one, and down; whether they are [experts, in, out]; whether the channels of gate and
# up take turns. Other models' experts can be loaded one by one.
STACKED = {
    "granitemoe": ("input_linear.weight", "output_linear.weight", False, False),
    "gpt_oss": ("experts.gate_up_proj", "experts.down_proj", True, True),
    "llama4_text": ("experts.gate_up_proj", "experts.down_proj", True, False),
}


def stack_experts(model_type, weights, source):
    """`weights` with experts in the layout that transformers loads."""
    if model_type not in STACKED:
        return weights
    gate_up_name, down_name, transposed, take_turns = STACKED[model_type]

    def stack(prefix, kind):
        """[experts, out, in] or, of biases, [experts, out]."""
        found = {int(m[1]): name for name in weights if (m := re.fullmatch(re.escape(prefix) + r"experts\.(\d+)\." + kind, name))}
        return torch.stack([weights.pop(found[i]) for i in range(len(found))])

    def join(prefix, kind):
        gate, up = stack(prefix, f"gate_proj.{kind}"), stack(prefix, f"up_proj.{kind}")
        return torch.stack([gate, up], 2).flatten(1, 2) if take_turns else torch.cat([gate, up], 1)

    for name in tensors_of(source):
        prefix = name.removesuffix(gate_up_name)
        if prefix == name:
            continue
        for kind, suffix in (("weight", ""), ("bias", "_bias")):
            if f"{prefix}experts.0.gate_proj.{kind}" in weights:
                turn = (lambda x: x.transpose(1, 2).contiguous()) if transposed and kind == "weight" else (lambda x: x)
                weights[prefix + gate_up_name + suffix] = turn(join(prefix, kind))
                weights[prefix + down_name + suffix] = turn(stack(prefix, f"down_proj.{kind}"))
    return weights
