#!/usr/bin/env python3
"""usage: scripts/goldens/rope.py  -- writes tests/data/decoder/rope.json: cosines, sines and turned heads that transformers computes.

Made with transformers 5.23 and torch 2.13 (CPU), float32. {"transformers": version, "tables": [...], "rotations": [...]}
A table: {name, config (a config.json), object (key of rope_parameters that is read, or null), assumed {theta, partial_rotary_factor, head_dim,
pairs, max_position_embeddings} (what the configuration class assumes), positions [n], cos [n][dim], sin [n][dim] with the attention factor}
A rotation: the same with x [heads][n][head_dim] and turned [heads][n][head_dim] instead of cos and sin.
"""
import importlib
import inspect
import json
import pathlib

import torch
import transformers
from transformers import CONFIG_MAPPING

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "decoder" / "rope.json"
SHORT = [0, 1, 2, 7, 15, 30]
LONG = [0, 1, 7, 31, 32, 64, 200, 4099]
HEAD = 12  # most cases: six pairs
SIX = dict(short_factor=[1.0, 1.1, 1.25, 1.5, 2.0, 3.0], long_factor=[1.0, 1.5, 2.75, 5.0, 9.0, 17.5])
THREE = dict(short_factor=[1.0, 1.25, 2.0], long_factor=[1.5, 2.75, 9.0])
LLAMA3 = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
YARN = dict(type="yarn", factor=4.0, original_max_position_embeddings=32)

# (name, model_type, keys of config.json, positions)
CASES = [
    ("default, nothing said", "llama", dict(), LONG),
    ("default, old, null", "llama", dict(rope_theta=500000.0, rope_scaling=None), LONG),
    ("default, old, empty", "llama", dict(rope_theta=1000, rope_scaling={}), LONG),
    ("default, new", "llama", dict(rope_parameters=dict(rope_type="default", rope_theta=20000.0)), LONG),
    ("default, new, theta outside", "llama", dict(rope_theta=30000.0, rope_parameters=dict(rope_type="default")), LONG),
    ("linear, old", "llama", dict(rope_theta=10000.0, rope_scaling=dict(type="linear", factor=2.5)), LONG),
    ("linear, new", "llama", dict(rope_parameters=dict(rope_type="linear", rope_theta=5000.0, factor=3)), LONG),
    ("scaling wins over parameters", "llama",
     dict(rope_theta=7000.0, rope_scaling=dict(type="linear", factor=2), rope_parameters=dict(rope_type="default", rope_theta=300.0)), LONG),
    ("dynamic, short", "llama", dict(rope_scaling=dict(type="dynamic", factor=2.0)), SHORT),
    ("dynamic, at the limit", "llama", dict(rope_scaling=dict(type="dynamic", factor=2.0)), [0, 5, 63]),
    ("dynamic, one beyond", "llama", dict(rope_scaling=dict(type="dynamic", factor=2.0)), [0, 5, 64]),
    ("dynamic, long", "llama", dict(rope_parameters=dict(rope_type="dynamic", rope_theta=10000.0, factor=3)), LONG),
    ("dynamic, long, odd factor", "llama", dict(rope_scaling=dict(rope_type="dynamic", factor=1.7)), LONG),
    ("yarn, old", "qwen2", dict(rope_theta=1000000.0, rope_scaling=YARN), LONG),
    ("yarn, new, all said", "qwen3",
     dict(rope_parameters=dict(rope_type="yarn", rope_theta=10000.0, factor=8, original_max_position_embeddings=512, beta_fast=16, beta_slow=2,
                               attention_factor=0.9, truncate=True)), LONG),
    ("yarn, not truncated", "llama",
     dict(rope_theta=150000.0, rope_scaling=dict(rope_type="yarn", factor=32.0, original_max_position_embeddings=4096, truncate=False)), LONG),
    ("yarn, mscales", "llama",
     dict(rope_scaling=dict(YARN, factor=40, mscale=0.707, mscale_all_dim=0.5, original_max_position_embeddings=4096)), LONG),
    ("yarn, one mscale is not enough", "llama", dict(rope_scaling=dict(YARN, mscale=0.707, mscale_all_dim=0)), LONG),
    ("yarn, factor from the lengths", "llama", dict(rope_scaling=dict(YARN, factor=None)), LONG),
    ("yarn, original outside wins", "llama", dict(rope_scaling=YARN, original_max_position_embeddings=1024), LONG),
    ("yarn, no original", "llama", dict(rope_scaling=dict(type="yarn", factor=2.0)), LONG),
    ("yarn, a ramp of no length", "llama", dict(rope_scaling=dict(YARN, original_max_position_embeddings=6)), LONG),
    ("longrope, short", "phi3", dict(rope_scaling=dict(SIX, type="longrope"), original_max_position_embeddings=32), SHORT),
    ("longrope, at the limit", "phi3", dict(rope_scaling=dict(SIX, type="longrope"), original_max_position_embeddings=32), [0, 31]),
    ("longrope, one beyond", "phi3", dict(rope_scaling=dict(SIX, type="longrope"), original_max_position_embeddings=32), [0, 32]),
    # transformers 5.23 refuses "su" without the length inside, though the first Phi-3 files have it outside only
    ("longrope as su, long", "phi3",
     dict(rope_scaling=dict(SIX, type="su", original_max_position_embeddings=32), original_max_position_embeddings=32), LONG),
    ("longrope as yarn, long", "phi3", dict(rope_scaling=dict(SIX, type="yarn"), original_max_position_embeddings=32), LONG),
    ("longrope, partial", "phi3",
     dict(rope_scaling=dict(THREE, type="longrope"), original_max_position_embeddings=32, partial_rotary_factor=0.5), LONG),
    ("longrope, factor and original inside", "llama",
     dict(rope_parameters=dict(SIX, rope_type="longrope", rope_theta=10000.0, factor=16.0, original_max_position_embeddings=48)), LONG),
    ("longrope, attention factor", "llama",
     dict(rope_scaling=dict(SIX, rope_type="longrope", attention_factor=1.19, original_max_position_embeddings=48)), LONG),
    ("longrope, no longer than before", "llama", dict(rope_scaling=dict(SIX, rope_type="longrope")), LONG),
    ("llama3", "llama", dict(rope_theta=500000.0, rope_scaling=dict(LLAMA3, rope_type="llama3", original_max_position_embeddings=32)), LONG),
    ("llama3, real sizes", "llama",
     dict(max_position_embeddings=131072, rope_theta=500000.0,
          rope_scaling=dict(LLAMA3, rope_type="llama3", original_max_position_embeddings=8192)), [0, 1, 8191, 8192, 100001]),
    ("llama3, original outside wins", "llama",
     dict(rope_scaling=dict(LLAMA3, rope_type="llama3", original_max_position_embeddings=32), original_max_position_embeddings=16), LONG),
    ("partial, assumed", "phi", dict(), LONG),
    ("partial, old", "phi", dict(partial_rotary_factor=0.34), LONG),
    ("partial, new", "glm", dict(rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.34)), LONG),
    ("partial, inside wins", "glm",
     dict(partial_rotary_factor=1.0, rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.5)), LONG),
    ("partial, odd", "phi", dict(partial_rotary_factor=0.45), LONG),
    ("partial, odd, linear", "phi", dict(partial_rotary_factor=0.45, rope_scaling=dict(type="linear", factor=4.0)), LONG),
    ("partial, dynamic", "phi", dict(partial_rotary_factor=0.5, rope_scaling=dict(type="dynamic", factor=4.0)), LONG),
    ("partial, yarn", "phi", dict(partial_rotary_factor=0.67, rope_scaling=dict(YARN, original_max_position_embeddings=2048)), LONG),
    ("partial, llama3", "phi",
     dict(partial_rotary_factor=0.67, rope_scaling=dict(LLAMA3, rope_type="llama3", original_max_position_embeddings=32)), LONG),
    ("rotary_pct, rotary_emb_base", "gpt_neox", dict(rotary_pct=0.5, rotary_emb_base=2500), LONG),
    ("rotary_pct, assumed", "gpt_neox", dict(hidden_size=64), LONG),
    ("neighbours", "cohere", dict(rope_theta=8000000.0), LONG),
    ("layer types, full", "gemma3_text", dict(), LONG),
    ("layer types, sliding", "gemma3_text", dict(), LONG),
]
NESTED = dict(full_attention=dict(rope_type="linear", rope_theta=1000000.0, factor=8.0), sliding_attention=dict(rope_type="default", rope_theta=10000.0))
# What a configuration class assumes: theta, partial_rotary_factor
ASSUMED = {"phi": (10000.0, 0.5), "glm": (10000.0, 0.5), "gpt_neox": (10000.0, 0.25), "cohere": (500000.0, 1.0)}
ROTATIONS = [
    ("halves", "llama", dict()),
    ("halves, part", "gpt_neox", dict(rotary_pct=0.5)),
    ("neighbours", "cohere", dict()),
    ("neighbours, part", "glm", dict()),
]


def module_of(model_type):
    folder = model_type.removesuffix("_text")
    return importlib.import_module(f"transformers.models.{folder}.modeling_{folder}")


def build(name, model_type, keys):
    config_json = dict(model_type=model_type, hidden_size=4 * HEAD, num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=64)
    head = keys.get("hidden_size", 4 * HEAD) // 4
    if model_type in ("qwen3", "glm", "gemma3_text"):
        config_json["head_dim"] = head
    config_json.update(keys)
    layer_type = None
    if name.startswith("layer types"):
        layer_type = "full_attention" if name.endswith("full") else "sliding_attention"
        config_json.update(rope_parameters=NESTED, num_hidden_layers=2, layer_types=["full_attention", "sliding_attention"])
    theta, partial = ASSUMED.get(model_type, (10000.0, 1.0))
    pairs = "neighbours" if model_type in ("cohere", "glm") and name.startswith("neighbours") else "halves"
    assumed = dict(theta=theta, partial_rotary_factor=partial, head_dim=head, pairs=pairs, max_position_embeddings=config_json["max_position_embeddings"])
    config = CONFIG_MAPPING[model_type].from_dict(json.loads(json.dumps(config_json)))  # a copy: it is changed
    module = module_of(model_type)
    names = [n for n, c in inspect.getmembers(module, inspect.isclass) if n.endswith("RotaryEmbedding")]
    assert len(names) == 1, names
    return dict(name=name, config=config_json, object=layer_type, assumed=assumed), module, getattr(module, names[0])(config), layer_type


def rounded(tensor):
    if tensor.dim() > 1:
        return [rounded(row) for row in tensor]
    return [float(f"{value:.9g}") for value in tensor.tolist()]  # 9 digits hold a float32


def evaluate(rotary, positions, layer_type):
    arguments = (torch.zeros(1), torch.tensor([positions]))
    return rotary(*arguments) if layer_type is None else rotary(*arguments, layer_type)


tables = []
for name, model_type, keys, positions in CASES:
    case, _, rotary, layer_type = build(name, model_type, keys)
    cos, sin = evaluate(rotary, positions, layer_type)
    tables.append(dict(case, positions=positions, cos=rounded(cos[0]), sin=rounded(sin[0])))

rotations = []
for name, model_type, keys in ROTATIONS:
    case, module, rotary, _ = build(name, model_type, keys)
    positions = [0, 1, 5, 40]
    x = torch.arange(2 * 4 * HEAD, dtype=torch.float32).mul(0.37).sin().view(1, 2, 4, HEAD).mul(4).round() / 4
    turned, _ = module.apply_rotary_pos_emb(x, x, *evaluate(rotary, positions, None))
    rotations.append(dict(case, positions=positions, x=rounded(x[0]), turned=rounded(turned[0])))

lines = lambda entries: ",\n".join(json.dumps(entry) for entry in entries)
OUT.write_text(f'{{"transformers": "{transformers.__version__}",\n"tables": [\n{lines(tables)}],\n"rotations": [\n{lines(rotations)}]}}\n')
