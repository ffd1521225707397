#!/usr/bin/env python3
"""Writes tests/data/search/llm_awq.pt and llm_awq.json for tests/pipeline/search_file_test.cpp.

    python3 scripts/goldens/llm_awq_search.py

Needs torch (2.13). The .pt has the structure that llm-awq's run_awq returns and awq/entry.py saves with torch.save (d6e797a,
awq/quantize/pre_quant.py, auto_scale.py, auto_clip.py): lists of tuples with names and float16 tensors, for the first block of the small Qwen3 of
tests/support/tiny_quantization.h, groups of 32. The .json has the same numbers as lists.
"""
import json
import pathlib

import torch

GROUP = 32
torch.manual_seed(11)
LAYER = "model.layers.0."


def scales(features):
    values = torch.exp(torch.randn(features) * 0.7)
    return (values / (values.max() * values.min()).sqrt()).half()


def limits(rows, features):
    return (0.05 + 0.25 * torch.rand(rows, features // GROUP, 1)).half()


def named(names):
    return tuple(LAYER + name for name in names)


found = {
    "scale": [
        (LAYER + "input_layernorm", named(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]), scales(128)),
        (LAYER + "post_attention_layernorm", named(["mlp.gate_proj", "mlp.up_proj"]), scales(128)),
        (LAYER + "mlp.up_proj", named(["mlp.down_proj"]), scales(192)),
    ],
    "clip": [(LAYER + "self_attn.v_proj", limits(64, 128)), (LAYER + "mlp.down_proj", limits(128, 192))],
}
folder = pathlib.Path(__file__).resolve().parents[2] / "tests/data/search"
folder.mkdir(parents=True, exist_ok=True)
torch.save(found, folder / "llm_awq.pt")
plain = {
    "scale": [[smooth, list(balance), values.double().tolist()] for smooth, balance, values in found["scale"]],
    "clip": [[module, values[:, :, 0].double().tolist()] for module, values in found["clip"]],
}
(folder / "llm_awq.json").write_text(json.dumps(plain) + "\n")
