#!/usr/bin/env python3
"""Gives a checkpoint the outlier channels of large models without changing what it computes.

usage: add_outliers.py SRC DST

Some channels of the norms and some rows of v_proj and up_proj are multiplied by powers of two, which bfloat16 holds exactly, and the
weights that read these channels are divided by the same. For the models that train.py makes. Needs torch and safetensors.
"""
import json
import pathlib
import shutil
import sys

import torch
from safetensors.torch import load_file, save_file

# (share of the channels below, exponent of two above it)
STEPS = ((0.85, 1), (0.93, 2), (0.97, 3), (0.99, 5))


def factors(count, generator):
    uniform = torch.rand(count, generator=generator)
    exponent = torch.zeros(count)
    for share, power in STEPS:
        exponent[uniform > share] = power
    return (2.0 ** exponent).to(torch.bfloat16)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, target = sys.argv[1:]
    shutil.copytree(source, target, dirs_exist_ok=True)
    config = json.loads(pathlib.Path(source, "config.json").read_text(encoding="utf-8"))
    hidden, intermediate, head_dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    query_heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    state = load_file(f"{source}/model.safetensors")
    generator = torch.Generator().manual_seed(7)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        readers = {
            "input_layernorm": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
            "post_attention_layernorm": ["mlp.gate_proj", "mlp.up_proj"],
        }
        for norm, linears in readers.items():
            factor = factors(hidden, generator)
            state[f"{prefix}{norm}.weight"] *= factor
            for linear in linears:
                state[f"{prefix}{linear}.weight"] /= factor
        factor = factors(intermediate, generator)
        state[f"{prefix}mlp.up_proj.weight"] *= factor[:, None]
        state[f"{prefix}mlp.down_proj.weight"] /= factor
        factor = factors(kv_heads * head_dim, generator)
        state[f"{prefix}self_attn.v_proj.weight"] *= factor[:, None]
        # A KV head is read by all the query heads of its group.
        per_query_head = factor.view(kv_heads, 1, head_dim).expand(kv_heads, query_heads // kv_heads, head_dim)
        state[f"{prefix}self_attn.o_proj.weight"] /= per_query_head.reshape(-1)
    save_file(state, f"{target}/model.safetensors", metadata={"format": "pt"})


main()
