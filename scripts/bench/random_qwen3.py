#!/usr/bin/env python3
"""Writes a Qwen3 checkpoint with random weights (bfloat16, normal with deviation 0.02), each block as large as one of Qwen3-0.6B,
the demo model's tokenizer and so a vocabulary of 4096; and calibration texts for it, the first of the demo model's that hold
TOKENS tokens. Prints what it made as one JSON line; compare_block_quantization.py runs it.

usage: random_qwen3.py MODEL CALIB.jsonl BLOCKS TOKENS BLOCK_TOKENS

Needs torch, safetensors and tokenizers.
"""
import json
import pathlib
import shutil
import sys

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

DEMO = pathlib.Path(__file__).resolve().parents[2] / "models/demo"
HIDDEN, WIDTH, HEADS, KV_HEADS, HEAD_DIM, VOCABULARY = 1024, 3072, 16, 8, 128, 4096


def block_tensors(prefix):
    shapes = {"self_attn.q_proj": (HEADS * HEAD_DIM, HIDDEN), "self_attn.k_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
              "self_attn.v_proj": (KV_HEADS * HEAD_DIM, HIDDEN), "self_attn.o_proj": (HIDDEN, HEADS * HEAD_DIM),
              "mlp.gate_proj": (WIDTH, HIDDEN), "mlp.up_proj": (WIDTH, HIDDEN), "mlp.down_proj": (HIDDEN, WIDTH)}
    tensors = {f"{prefix}{name}.weight": random(shape) for name, shape in shapes.items()}
    sizes = {"input_layernorm": HIDDEN, "post_attention_layernorm": HIDDEN, "self_attn.q_norm": HEAD_DIM, "self_attn.k_norm": HEAD_DIM}
    return tensors | {f"{prefix}{name}.weight": torch.ones(size, dtype=torch.bfloat16) for name, size in sizes.items()}


def random(shape):
    return (torch.randn(shape) * 0.02).to(torch.bfloat16)


def write_model(folder, blocks):
    folder.mkdir(parents=True)
    # rope_theta where releases before transformers 5, AutoAWQ's, look for it.
    end = json.loads((DEMO / "config.json").read_text(encoding="utf-8"))["eos_token_id"]
    config = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "vocab_size": VOCABULARY, "hidden_size": HIDDEN,
              "intermediate_size": WIDTH, "num_hidden_layers": blocks, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
              "head_dim": HEAD_DIM, "hidden_act": "silu", "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
              "attention_bias": False, "tie_word_embeddings": True, "eos_token_id": end, "torch_dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(DEMO / name, folder / name)
    torch.manual_seed(0)
    tensors = {"model.embed_tokens.weight": random((VOCABULARY, HIDDEN)), "model.norm.weight": torch.ones(HIDDEN, dtype=torch.bfloat16)}
    for block in range(blocks):
        tensors |= block_tensors(f"model.layers.{block}.")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def write_texts(path, tokens, block_tokens):
    """Returns the rows and their tokens. The tools leave out rows longer than a block, so they are left out here."""
    tokenizer = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    kept, found = [], 0
    with open(DEMO / "data/calib_mixed.jsonl", encoding="utf-8") as lines:
        for line in lines:
            count = len(tokenizer.encode(json.loads(line)["text"]).ids)
            if found < tokens and 0 < count <= block_tokens:
                kept.append(line)
                found += count
    if found < tokens:
        sys.exit(f"{DEMO}/data/calib_mixed.jsonl: {found} tokens, expected {tokens}: ask for fewer")
    path.write_text("".join(kept), encoding="utf-8")
    return len(kept), found


def main():
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    model, texts = map(pathlib.Path, sys.argv[1:3])
    blocks, tokens, block_tokens = map(int, sys.argv[3:])
    write_model(model, blocks)
    rows, found = write_texts(texts, tokens, block_tokens)
    print(json.dumps({"rows": rows, "tokens": found}))


main()
