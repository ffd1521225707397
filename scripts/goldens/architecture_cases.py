"""Tiny checkpoints of many architectures whose weights follow from the tensors' names, so that nobody has to store them.

CASES says which configurations; build() makes one with transformers' own classes and describes its tensors; write_checkpoint() makes the folder again from
that description. The C++ side of the same is tests/support/golden_checkpoint.h. Tried with transformers 5.23.
"""
import json
import math
import pathlib
import re
import tempfile

import numpy
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from safetensors.torch import save_file as torch_save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

SMALL = dict(vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
             max_position_embeddings=64, num_experts=4, num_local_experts=4, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=32,
             shared_expert_intermediate_size=32, n_shared_experts=1, sliding_window=5)
IDS = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2)

FULL, SLIDING, LINEAR_ATTENTION = "full_attention", "sliding_attention", "linear_attention"
PLAIN = dict(rope_type="default", rope_theta=10000.0)
LLAMA3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
LINEAR = dict(rope_type="linear", rope_theta=10000.0, factor=2.5)
DYNAMIC = dict(rope_type="dynamic", rope_theta=10000.0, factor=2.0)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=16)
# mscale: the factor of the rotation itself; mscale_all_dim: the one of the attention scores.
YARN_MSCALE = dict(YARN, beta_fast=8.0, beta_slow=1.0, mscale=0.707, mscale_all_dim=1.2)


def longrope(pairs):
    return dict(rope_type="longrope", rope_theta=10000.0, short_factor=[1.0 + 0.1 * i for i in range(pairs)],
                long_factor=[1.5 + 0.7 * i for i in range(pairs)], original_max_position_embeddings=8)


# Multi-head latent attention: a head's size is nope + rope.
MLA = dict(num_key_value_heads=4, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=24, kv_lora_rank=32, q_lora_rank=32, num_hidden_layers=2,
           first_k_dense_replace=1, head_dim=None)
# The smallest image encoders that the classes make.
VISION = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4, depth=1, embed_dim=16, num_heads=2,
              out_hidden_size=64, head_dim=8, mlp_ratio=1, num_position_embeddings=4, deepstack_visual_indexes=[0], fullatt_block_indexes=[0],
              vision_output_dim=16, projector_input_dim=16, projector_output_dim=16)
MROPE = dict(rope_type="default", rope_theta=10000.0, mrope_section=[2, 3, 3])
MROPE_QUARTER = dict(rope_type="default", rope_theta=10000.0, mrope_section=[2, 1, 1], partial_rotary_factor=0.5, mrope_interleaved=True)
LINEAR_HEADS = dict(linear_conv_kernel_dim=4, linear_key_head_dim=16, linear_value_head_dim=16, linear_num_key_heads=2, linear_num_value_heads=4)

# model_type: {case: (config keys, options)}. Options:
#   off        config.json keys that switch the case's feature off: the reference must then give other logits
#   old        config.json in the style of transformers 4 (published checkpoints of these models look like that)
#   embedding  scale of the embedding (default: sqrt(3), and sqrt(3 / hidden) where the head shares it)
#   extra      tensors that published checkpoints have and the decoder does not use (prediction of further tokens)
#   fused      experts are stored as transformers holds them, [experts, out, in], not one by one
#   window     False: SMALL's sliding_window is left out
# Of multimodal models; the keys are then those of the text model inside, and everything is compared for rows of text:
#   text       the text model's model_type
#   outer      keys of the whole
#   published  config.json as published: the keys of transformers 4, without this list of outer keys; "flat": the text model's keys are not nested
#   spelling   "inner": tensors are called "model.language_model....", as transformers 4.52 and later saved them
#   transposed fused experts are stored [experts, in, out]
CASES = {
    "llama": {
        "default": (dict(), dict()),
        "rope_llama3": (dict(rope_parameters=LLAMA3, head_dim=32), dict(off=dict(rope_parameters=PLAIN))),
        "rope_llama3_old": (dict(rope_parameters=LLAMA3, tie_word_embeddings=True), dict(old=True)),
        "tied_bias_old": (dict(tie_word_embeddings=True, attention_bias=True, mlp_bias=True), dict(old=True)),
        "rope_linear_old": (dict(rope_parameters=LINEAR), dict(old=True)),
        "rope_dynamic": (dict(rope_parameters=DYNAMIC, max_position_embeddings=6), dict(off=dict(rope_parameters=PLAIN))),
        "rope_yarn": (dict(rope_parameters=YARN), dict(off=dict(rope_parameters=PLAIN))),
    },
    "mistral": {
        "default": (dict(), dict(window=False)),
        "window": (dict(), dict(off=dict(sliding_window=None))),
    },
    "qwen2": {
        "default": (dict(), dict()),
        "window_tied": (dict(use_sliding_window=True, sliding_window=5, max_window_layers=1, tie_word_embeddings=True),
                        dict(off=dict(layer_types=[FULL] * 2))),
    },
    "qwen3": {
        "default": (dict(head_dim=32), dict()),
        "tied": (dict(tie_word_embeddings=True, use_sliding_window=True, sliding_window=5, max_window_layers=0), dict()),
    },
    "phi3": {
        "default": (dict(), dict(window=False)),
        "partial_window": (dict(partial_rotary_factor=0.5), dict(off=dict(sliding_window=None))),
        "longrope": (dict(rope_parameters=longrope(8), original_max_position_embeddings=8), dict(window=False, off=dict(rope_parameters=PLAIN))),
        "longrope_partial_old": (dict(rope_parameters=dict(longrope(6), partial_rotary_factor=0.75), original_max_position_embeddings=8,
                                      tie_word_embeddings=True), dict(window=False, old=True)),
    },
    "gemma": {
        "default": (dict(head_dim=32), dict()),
    },
    "gemma2": {
        "default": (dict(query_pre_attn_scalar=24, final_logit_softcapping=1.5, attn_logit_softcapping=1.0), dict(off=dict(attn_logit_softcapping=None))),
        "old": (dict(query_pre_attn_scalar=16, final_logit_softcapping=2.0, attn_logit_softcapping=2.0, num_hidden_layers=3),
                dict(old=True)),
    },
    "gemma3_text": {
        "default": (dict(query_pre_attn_scalar=24, num_hidden_layers=3, layer_types=[SLIDING, FULL, SLIDING],
                         rope_parameters={FULL: dict(LINEAR, rope_theta=100000.0, factor=8.0), SLIDING: PLAIN}),
                    dict(off=dict(layer_types=[SLIDING] * 3))),
        "old": (dict(query_pre_attn_scalar=16, num_hidden_layers=3, sliding_window_pattern=2,
                     rope_parameters={FULL: dict(LINEAR, rope_theta=100000.0, factor=8.0), SLIDING: PLAIN}), dict(old=True)),
    },
    "cohere": {
        "default": (dict(logit_scale=0.5), dict()),
        "qk_norm": (dict(logit_scale=0.5, use_qk_norm=True), dict()),
    },
    "cohere2": {
        "default": (dict(logit_scale=0.5, num_hidden_layers=3, layer_types=[SLIDING, SLIDING, FULL]), dict(off=dict(layer_types=[SLIDING] * 3))),
    },
    "olmo2": {
        "default": (dict(), dict()),
    },
    "glm": {
        "default": (dict(), dict()),
    },
    "glm4": {
        "default": (dict(), dict()),
        "no_bias": (dict(attention_bias=False, partial_rotary_factor=0.25), dict()),
    },
    "granite": {
        "default": (dict(embedding_multiplier=6.0, logits_scaling=2.0, residual_multiplier=0.4, attention_multiplier=0.1), dict(embedding=0.3)),
        "tied_bias": (dict(embedding_multiplier=8.0, logits_scaling=1.5, residual_multiplier=0.7, attention_multiplier=0.2, tie_word_embeddings=True,
                           attention_bias=True, mlp_bias=True), dict(off=dict(residual_multiplier=1.0))),
    },
    "starcoder2": {
        "default": (dict(), dict(off=dict(sliding_window=None))),
        "no_bias": (dict(use_bias=False, tie_word_embeddings=False), dict(window=False)),
    },
    "stablelm": {
        "default": (dict(), dict()),
        "bias": (dict(use_qkv_bias=True, partial_rotary_factor=0.5), dict()),
        "qk_parallel": (dict(qk_layernorm=True, use_parallel_residual=True), dict()),
    },
    "gpt_neox": {
        "default": (dict(), dict(off=dict(use_parallel_residual=False))),
        "sequential": (dict(use_parallel_residual=False, attention_bias=False,
                            rope_parameters=dict(PLAIN, partial_rotary_factor=0.5)), dict()),
    },
    "smollm3": {
        "default": (dict(num_hidden_layers=3, no_rope_layer_interval=2), dict(off=dict(no_rope_layers=[1, 1, 1]))),
    },
    "exaone4": {
        "default": (dict(layer_types=[FULL] * 2), dict(window=False)),
        "pattern": (dict(num_hidden_layers=3, sliding_window_pattern=3), dict(off=dict(sliding_window=None, layer_types=[FULL] * 3))),
    },
    "mixtral": {
        "default": (dict(), dict(window=False)),
        "window_experts": (dict(num_local_experts=6, num_experts_per_tok=3), dict(off=dict(sliding_window=None))),
    },
    "qwen2_moe": {
        "default": (dict(), dict()),
        "sparse_step": (dict(num_hidden_layers=3, decoder_sparse_step=2, norm_topk_prob=True, mlp_only_layers=[]), dict()),
        "mlp_only": (dict(mlp_only_layers=[0], qkv_bias=False), dict()),
    },
    "qwen3_moe": {
        "default": (dict(norm_topk_prob=True, head_dim=32), dict(off=dict(norm_topk_prob=False))),
        "mlp_only": (dict(norm_topk_prob=False, mlp_only_layers=[1], attention_bias=True), dict(off=dict(norm_topk_prob=True))),
    },
    "deepseek_v2": {
        "default": (dict(MLA, topk_method="greedy", routed_scaling_factor=1.5), dict(off=dict(routed_scaling_factor=1.0))),
        "groups_yarn": (dict(MLA, q_lora_rank=None, topk_method="group_limited_greedy", n_routed_experts=6, n_group=2, topk_group=1, n_shared_experts=2,
                             rope_parameters=YARN_MSCALE), dict(off=dict(topk_method="greedy"))),
    },
    "deepseek_v3": {
        "default": (dict(MLA, n_routed_experts=6, n_group=2, topk_group=1, num_nextn_predict_layers=0), dict(off=dict(n_group=1))),
        "plain_q_yarn": (dict(MLA, q_lora_rank=None, n_group=1, topk_group=1, rope_interleave=False, norm_topk_prob=False, num_nextn_predict_layers=0,
                              routed_scaling_factor=1.5, rope_parameters=YARN_MSCALE), dict(off=dict(rope_interleave=True))),
        "old": (dict(MLA, n_group=2, topk_group=1, attention_bias=True, num_nextn_predict_layers=1, rope_parameters=YARN_MSCALE, topk_method="noaux_tc",
                     scoring_func="sigmoid"), dict(old=True, extra=[["model.layers.2.enorm.weight", [64], 1.0, 0.2]])),
    },
    "ernie4_5": {
        "default": (dict(), dict()),
        "bias": (dict(use_bias=True, tie_word_embeddings=False, head_dim=32), dict()),
    },
    "qwen3_next": {
        "default": (dict(LINEAR_HEADS, num_hidden_layers=3, layer_types=[LINEAR_ATTENTION, FULL, LINEAR_ATTENTION]), dict()),
        "dense_step": (dict(LINEAR_HEADS, mlp_only_layers=[0], layer_types=[FULL, LINEAR_ATTENTION], norm_topk_prob=False,
                            partial_rotary_factor=0.5), dict()),
    },
    "opt": {
        "default": (dict(ffn_dim=96), dict()),
        "no_bias": (dict(ffn_dim=96, enable_bias=False, activation_function="gelu", tie_word_embeddings=False), dict()),
    },
    "bloom": {
        "default": (dict(n_layer=2, n_head=4), dict()),
        "six_heads": (dict(n_layer=2, n_head=6, hidden_size=96, apply_residual_connection_post_layernorm=True), dict()),
    },
    "falcon": {
        "default": (dict(multi_query=True, parallel_attn=True, new_decoder_architecture=False, alibi=False, bias=False, ffn_hidden_size=96), dict()),
        "new_decoder": (dict(new_decoder_architecture=True, num_kv_heads=2, alibi=False, bias=False, ffn_hidden_size=96), dict()),
        "one_norm": (dict(new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1, bias=True, ffn_hidden_size=96), dict()),
        "alibi_sequential": (dict(multi_query=False, parallel_attn=False, alibi=True, bias=True, tie_word_embeddings=False), dict(off=dict(alibi=False))),
    },
    "mpt": {
        "default": (dict(d_model=64, n_heads=4, n_layers=2, expansion_ratio=2, max_seq_len=64), dict()),
        "six_heads_clip": (dict(d_model=96, n_heads=6, n_layers=2, expansion_ratio=1, max_seq_len=64, attn_config=dict(clip_qkv=0.8)), dict()),
    },
    "gpt_bigcode": {
        "default": (dict(n_embd=64, n_head=4, n_layer=2, n_positions=64, n_inner=96), dict()),
        "multi_head": (dict(n_embd=64, n_head=4, n_layer=2, n_positions=64, multi_query=False, tie_word_embeddings=False), dict()),
    },
    "gptj": {
        "default": (dict(n_embd=64, n_head=4, n_layer=2, n_positions=64, n_inner=96, rotary_dim=8), dict()),
    },
    "phi": {
        "default": (dict(), dict()),
        "qk_norm": (dict(qk_layernorm=True, partial_rotary_factor=0.75), dict()),
    },
    "olmo": {
        "default": (dict(), dict()),
        "clip": (dict(clip_qkv=0.8, tie_word_embeddings=True), dict(off=dict(clip_qkv=None))),
    },
    "olmo3": {
        "default": (dict(layer_types=[SLIDING, FULL], rope_parameters={FULL: YARN, SLIDING: PLAIN}), dict(off=dict(layer_types=[FULL] * 2))),
    },
    "olmoe": {
        "default": (dict(norm_topk_prob=False), dict()),
        "clip": (dict(norm_topk_prob=True, clip_qkv=0.8), dict(off=dict(clip_qkv=None))),
    },
    "seed_oss": {
        "default": (dict(head_dim=32), dict()),
    },
    "ministral": {
        "default": (dict(layer_types=[SLIDING, FULL]), dict(off=dict(layer_types=[FULL] * 2))),
    },
    "ministral3": {
        "default": (dict(head_dim=32, rope_parameters=dict(YARN, beta_fast=8.0, beta_slow=1.0, mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.4,
                                                           original_max_position_embeddings=4, max_position_embeddings=64)), dict(window=False)),
    },
    "granitemoe": {
        "default": (dict(embedding_multiplier=6.0, logits_scaling=2.0, residual_multiplier=0.4, attention_multiplier=0.1), dict(embedding=0.3)),
    },
    "ernie4_5_moe": {
        "default": (dict(moe_num_experts=4, moe_k=2, moe_num_shared_experts=1, moe_layer_start_index=1), dict()),
        "interval": (dict(num_hidden_layers=3, moe_num_experts=4, moe_k=2, moe_num_shared_experts=2, moe_layer_start_index=0, moe_layer_interval=2,
                          use_bias=True, tie_word_embeddings=False), dict()),
    },
    "glm4_moe": {
        "default": (dict(use_qk_norm=True, first_k_dense_replace=1, attention_bias=True, routed_scaling_factor=1.5), dict()),
        "groups": (dict(use_qk_norm=False, first_k_dense_replace=1, n_routed_experts=6, n_group=2, topk_group=1, n_shared_experts=2,
                        partial_rotary_factor=0.25), dict()),
    },
    "gpt_oss": {
        "default": (dict(layer_types=[SLIDING, FULL], swiglu_limit=1.5, rope_parameters=dict(YARN, beta_fast=8.0, beta_slow=1.0, truncate=False)),
                    dict(off=dict(layer_types=[FULL] * 2))),
    },
    "qwen3_5_text": {
        "default": (dict(LINEAR_HEADS, layer_types=[LINEAR_ATTENTION, FULL]), dict()),
    },
    "qwen3_5_moe_text": {
        "default": (dict(LINEAR_HEADS, layer_types=[LINEAR_ATTENTION, FULL]), dict()),
        "fused_experts": (dict(LINEAR_HEADS, layer_types=[FULL, LINEAR_ATTENTION], tie_word_embeddings=True), dict(fused=True)),
    },
    "hunyuan_v1_dense": {
        "default": (dict(head_dim=32), dict()),
        "rope_alpha": (dict(rope_parameters=dict(rope_type="dynamic", rope_theta=10000.0, alpha=50.0, factor=1.0), attention_bias=True,
                            tie_word_embeddings=True), dict(off=dict(rope_parameters=PLAIN))),
    },
    "hunyuan_v1_moe": {
        "default": (dict(moe_topk=2), dict()),
    },
    "helium": {
        "default": (dict(), dict()),
    },
    "nemotron": {
        "default": (dict(), dict()),
        "bias": (dict(attention_bias=True, mlp_bias=True, partial_rotary_factor=1.0), dict()),
    },
    "arcee": {
        "default": (dict(rope_parameters=YARN), dict()),
    },
    "dots1": {
        "default": (dict(n_routed_experts=6, n_group=2, topk_group=1, first_k_dense_replace=1, norm_topk_prob=True, routed_scaling_factor=1.5,
                         layer_types=[SLIDING, FULL]), dict(off=dict(layer_types=[FULL] * 2))),
    },
    "apertus": {
        "default": (dict(rope_parameters=LLAMA3), dict()),
    },
    "exaone_moe": {
        "default": (dict(num_hidden_layers=3, sliding_window_pattern=3, num_shared_experts=1, n_group=1, topk_group=1), dict(off=dict(layer_types=[FULL] * 3))),
    },
    "phimoe": {
        "default": (dict(attention_bias=True, lm_head_bias=True), dict(window=False)),
    },
    "minimax_m2": {
        "default": (dict(head_dim=32, rotary_dim=16), dict()),
    },
    "glm4_moe_lite": {
        "default": (dict({k: v for k, v in MLA.items() if k != "first_k_dense_replace"}, routed_scaling_factor=1.8), dict()),
    },
    "llama4_text": {
        "default": (dict(no_rope_layer_interval=2, attention_chunk_size=4, floor_scale=3, attn_scale=0.5, interleave_moe_layer_step=2, intermediate_size=32,
                         intermediate_size_mlp=96, num_experts_per_tok=1), dict(off=dict(attn_temperature_tuning=False))),
    },
    "internlm3": {
        "default": (dict(), dict()),
        "bias": (dict(attention_bias=True, mlp_bias=True, head_dim=32), dict()),
    },
    "cwm": {
        "default": (dict(layer_types=[FULL, SLIDING], rope_parameters=LLAMA3), dict(off=dict(layer_types=[FULL] * 2))),
    },
    "solar_open": {
        "default": (dict(n_group=1, topk_group=1), dict()),
    },
    "afmoe": {
        "default": (dict(num_dense_layers=1, num_shared_experts=1, route_scale=1.5, layer_types=[SLIDING, FULL], mup_enabled=True), dict()),
    },
    "gemma3": {
        "default": (dict(query_pre_attn_scalar=16, sliding_window_pattern=2,
                         rope_parameters={FULL: dict(LINEAR, rope_theta=100000.0, factor=8.0), SLIDING: PLAIN}),
                    dict(text="gemma3_text", published=["tie_word_embeddings"])),
        "inner": (dict(num_hidden_layers=1), dict(text="gemma3_text", spelling="inner")),
    },
    "mistral3": {
        "default": (dict(num_hidden_layers=1), dict(text="mistral", window=False, outer=dict(tie_word_embeddings=False), published=["tie_word_embeddings"])),
        "ministral3": (dict(num_hidden_layers=1, rope_parameters=dict(YARN, beta_fast=8.0, beta_slow=1.0, llama_4_scaling_beta=0.4,
                                                                      original_max_position_embeddings=4)),
                       dict(text="ministral3", window=False, outer=dict(tie_word_embeddings=True))),
    },
    "llava": {
        "default": (dict(), dict(text="llama", published=["tie_word_embeddings"])),
        "mistral": (dict(num_hidden_layers=1), dict(text="mistral", window=False, spelling="inner")),
        "qwen2_tied": (dict(num_hidden_layers=1, tie_word_embeddings=True), dict(text="qwen2", published=["tie_word_embeddings"])),
    },
    "llava_next": {
        "default": (dict(num_hidden_layers=1), dict(text="llama")),
        "mistral": (dict(num_hidden_layers=1), dict(text="mistral", published=[])),
        "qwen2": (dict(num_hidden_layers=1), dict(text="qwen2", spelling="inner")),
    },
    "qwen2_vl": {
        "default": (dict(rope_parameters=MROPE), dict(text="qwen2_vl_text", vision=dict(hidden_size=64), published="flat")),
        "inner_tied": (dict(num_hidden_layers=1, rope_parameters=MROPE),
                       dict(text="qwen2_vl_text", vision=dict(hidden_size=64), spelling="inner", outer=dict(tie_word_embeddings=True))),
    },
    "qwen2_5_vl": {
        "default": (dict(rope_parameters=MROPE), dict(text="qwen2_5_vl_text", published="flat", outer=dict(tie_word_embeddings=True))),
        "inner": (dict(num_hidden_layers=1, rope_parameters=MROPE), dict(text="qwen2_5_vl_text", spelling="inner")),
    },
    "qwen3_vl": {
        "default": (dict(rope_parameters=dict(MROPE, mrope_interleaved=True)), dict(text="qwen3_vl_text")),
        "tied_old": (dict(num_hidden_layers=1, rope_parameters=dict(MROPE, mrope_interleaved=True)),
                     dict(text="qwen3_vl_text", published=[], outer=dict(tie_word_embeddings=True))),
    },
    "qwen3_vl_moe": {
        "default": (dict(num_hidden_layers=1, moe_intermediate_size=96, rope_parameters=dict(MROPE, mrope_interleaved=True)),
                    dict(text="qwen3_vl_moe_text", window=False, transposed=True, published=[])),
        "saved": (dict(num_hidden_layers=1, moe_intermediate_size=64, rope_parameters=dict(MROPE, mrope_interleaved=True)),
                  dict(text="qwen3_vl_moe_text", window=False)),
    },
    "qwen3_5": {
        "default": (dict(LINEAR_HEADS, layer_types=[LINEAR_ATTENTION, FULL], rope_parameters=MROPE_QUARTER), dict(text="qwen3_5_text")),
    },
    "qwen3_5_moe": {
        "default": (dict(LINEAR_HEADS, layer_types=[LINEAR_ATTENTION, FULL], rope_parameters=MROPE_QUARTER), dict(text="qwen3_5_moe_text", fused=True)),
    },
    "llama4": {
        "default": (dict(no_rope_layer_interval=2, attention_chunk_size=4, floor_scale=3, attn_scale=0.5, interleave_moe_layer_step=2, intermediate_size=32,
                         intermediate_size_mlp=96, num_experts_per_tok=1), dict(text="llama4_text", vision=dict(pixel_shuffle_ratio=0.5))),
    },
}


def fnv1a64(text):
    h = 14695981039346656037
    for byte in text.encode():
        h = (h ^ byte) * 1099511628211 % 2**64
    return h


def values(name, shape, offset, scale):
    """The tensor's weights, float32."""
    with numpy.errstate(over="ignore"):
        x = numpy.arange(math.prod(shape), dtype=numpy.uint64) + numpy.uint64(fnv1a64(name)) + numpy.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        x ^= x >> numpy.uint64(31)
    u = ((x >> numpy.uint64(40)).astype(numpy.int64) - 2**23) / 2.0**23
    return (offset + scale * u).astype(numpy.float32).reshape(shape)


EMBEDDING = re.compile(r"(embed_tokens|embed_in|word_embeddings|wte|embed_positions|wpe|tok_embeddings)\.weight$")
POSITIONS = re.compile(r"(embed_positions|wpe)\.weight$")
# name: (offset, scale); the first that matches. What is not listed follows from the shape and from transformers' initial value.
SPECIAL = [
    (re.compile(r"A_log$"), (0.0, 1.0)),
    (re.compile(r"dt_bias$"), (0.0, 1.0)),
    (re.compile(r"e_score_correction(_bias|\.bias)$|expert_bias$|moe_statics"), (0.0, 0.15)),
    (re.compile(r"sinks$"), (0.0, 1.0)),
    (re.compile(r"conv1d\.weight$"), (0.0, 0.85)),
    (re.compile(r"act_fn\.alpha_[np]$"), (1.0, 0.5)),
    (re.compile(r"act_fn\.beta$"), (0.5, 0.0)),
    (re.compile(r"act_fn\.eps$"), (-1e-6, 0.0)),
]


def offset_and_scale(name, initial, tied, embedding):
    for pattern, found in SPECIAL:
        if pattern.search(name):
            return found
    shape = list(initial.shape)
    if POSITIONS.search(name):
        return 0.0, 0.5
    if EMBEDDING.search(name):
        return 0.0, embedding or round(math.sqrt(3.0 / shape[-1]) if tied else math.sqrt(3.0), 4)
    if len(shape) >= 2 and not (initial == 1).all() and not re.search(r"(q|k)_?(layer)?norm", name):
        transposed = len(shape) == 3 and re.search(r"experts\.(gate_up_proj|down_proj)$", name) and shape[1] < shape[2] and "down" not in name
        return 0.0, round(math.sqrt(3.0 / shape[1 if transposed else -1]), 4)
    return (1.0 if (initial == 1).all() else 0.0), 0.2


def old_style(config):
    """config.json with the keys of transformers 4, as published checkpoints have it."""
    config = dict(config)
    rope = config.pop("rope_parameters")
    if FULL in rope:  # gemma3: one theta a kind of layer, the scaling is that of the global layers
        config["rope_local_base_freq"] = rope[SLIDING]["rope_theta"]
        rope = rope[FULL]
    rope = dict(rope)
    config["rope_theta"] = rope.pop("rope_theta")
    if "partial_rotary_factor" in rope:
        config["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    if config["model_type"] != "llama":
        rope["type"] = rope.pop("rope_type")
    elif rope["rope_type"] == "linear":
        rope["type"] = rope.pop("rope_type")
    if "original_max_position_embeddings" in config:
        rope.pop("original_max_position_embeddings", None)
    if config["model_type"] == "gemma3_text":  # published ones have no "type"
        rope["rope_type"] = rope.pop("type")
    kind = rope.get("type", rope.get("rope_type"))
    config["rope_scaling"] = rope if kind != "default" or "mrope_section" in rope else None
    if config["model_type"] == "gemma2":
        config["hidden_act"] = config["hidden_activation"]
    config["torch_dtype"] = config.pop("dtype")
    config.pop("layer_types", None)
    config.pop("_sliding_window_pattern", None)
    config["transformers_version"] = "4.46.0"
    return config


def published_style(config, dropped):
    """config.json of a multimodal model with the keys of transformers 4."""
    text = old_style({**config["text_config"], "dtype": config["dtype"]})
    del text["torch_dtype"]
    if dropped == "flat":
        del text["model_type"]
        rope = text["rope_scaling"]
        rope["type"] = "mrope"
        rope.pop("rope_type", None)
    outer = {k: v for k, v in config.items() if k not in ("text_config", "dtype") and (dropped == "flat" or k not in dropped)}
    return {**outer, "torch_dtype": config["dtype"], "transformers_version": "4.46.0", **(text if dropped == "flat" else {"text_config": text})}


def inner_spelling(name):
    for old, new in (("language_model.model.", "model.language_model."), ("language_model.lm_head.", "lm_head."), ("model.", "model.language_model."),
                     ("lm_head.", "lm_head.")):
        if name.startswith(old):
            return new + name[len(old):]
    return "model." + name


def write_checkpoint(case, folder, config=None):
    """Makes config.json and model.safetensors of a case (its "config" and "tensors") in `folder`."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config or case["config"]))
    save_file({name: values(name, shape, offset, scale) for name, shape, offset, scale in case["tensors"]}, folder / "model.safetensors",
              metadata={"format": "pt"})


def load(folder, allow_unused=False):
    # Falcon's eager attention adds the ALiBi biases twice (transformers 5.23); its default adds them once.
    config = json.loads((pathlib.Path(folder) / "config.json").read_text())
    attention = "sdpa" if config["model_type"] == "falcon" else "eager"
    kind = AutoModelForImageTextToText if "vision_config" in config else AutoModelForCausalLM
    model, info = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention, output_loading_info=True)
    bad = {key: sorted(map(str, value)) for key, value in info.items() if value and not (allow_unused and key == "unexpected_keys")}
    if bad:
        raise ValueError(f"transformers does not load what it saved: {bad}")
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model.eval()


def arguments_of(model_type, keys, options):
    """Of the configuration class: the small sizes that it knows, and the keys of a case."""
    known = AutoConfig.for_model(model_type).to_dict()
    if "text" in options:
        text = arguments_of(options["text"], keys, {k: v for k, v in options.items() if k != "text"})
        vision = {k: v for k, v in {**VISION, **options.get("vision", {})}.items() if k in known["vision_config"] or k == "pixel_shuffle_ratio"}
        return dict(text_config=dict(text, model_type=options["text"]), vision_config=dict(vision, model_type=known["vision_config"]["model_type"]),
                    **options.get("outer", {}))
    small = {k: v for k, v in SMALL.items() if k in known and not (k == "sliding_window" and options.get("window") is False)}
    if options.get("window") is False and "sliding_window" in known:
        small["sliding_window"] = None
    arguments = {**small, **IDS, **keys}
    return {k: v for k, v in arguments.items() if v is not None or k not in SMALL or k == "sliding_window"}


def save(model, folder, fused=False, **how):
    """save_pretrained, with experts as `fused` says; returns what config.json says."""
    model.save_pretrained(folder, **how)
    config = json.loads((pathlib.Path(folder) / "config.json").read_text())
    if fused:
        for file in pathlib.Path(folder).glob("*.safetensors"):
            file.unlink()
        state = {k: v for k, v in model.state_dict().items() if not (k == "lm_head.weight" and config["tie_word_embeddings"])}
        torch_save_file(state, pathlib.Path(folder) / "model.safetensors")
    return config


def build(model_type, name):
    """{"name", "config", "tensors"} of one case."""
    keys, options = CASES[model_type][name]
    kind = AutoModelForImageTextToText if "text" in options else AutoModelForCausalLM
    model = kind.from_config(AutoConfig.for_model(model_type, **arguments_of(model_type, keys, options))).float()
    with tempfile.TemporaryDirectory() as temporary:
        config = save(model, temporary, bool(options.get("fused")))
        tensors = []
        for file in sorted(pathlib.Path(temporary).glob("*.safetensors")):
            with safe_open(file, "pt") as f:
                for tensor in f.keys():
                    initial = f.get_tensor(tensor)
                    offset, scale = offset_and_scale(tensor, initial, bool(config.get("tie_word_embeddings")), options.get("embedding"))
                    tensors.append([tensor, list(initial.shape), offset, scale])
    tensors += options.get("extra", [])
    if options.get("spelling") == "inner":
        tensors = [[inner_spelling(tensor), *rest] for tensor, *rest in tensors]
    if options.get("transposed"):
        tensors = [[tensor, shape[:1] + shape[:0:-1] if len(shape) == 3 and "experts" in tensor else shape, *rest] for tensor, shape, *rest in tensors]
    given = old_style(config) if options.get("old") else config
    if "published" in options:
        given = published_style(config, options["published"])
    return dict(name=name, config=given, new_config=config, tensors=tensors)
