#!/usr/bin/env python3
"""usage: scripts/goldens/decoder.py  -- writes tests/data/decoder/: very small random models and what transformers computes with them.

Made with transformers 5.23 and torch 2.13 (CPU). A model folder holds config.json, model.safetensors (bfloat16, weights of a fixed seed) and
expected.safetensors, all in float32 arithmetic:
  ids        int64 [2, 16]        two sequences; the second one's real length is `length`
  length     int64 [1]
  logits     float32 [2, 16, 64]  each sequence alone, without padding (rows after `length` of the second are zero)
  generated  int64 [2, 12]        greedy continuations of ids[0, :7] and ids[1, :3], each alone, -1 after the end (eos_token_id 2 is not included)
"""
import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "checks"))
import tiny_models  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "decoder"
SMALL = dict(vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
             max_position_embeddings=128, pad_token_id=0, bos_token_id=1, eos_token_id=2)
LLAMA3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
LINEAR = dict(rope_type="linear", rope_theta=10000.0, factor=2.5)
# name: (model_type, config keys, whether config.json is rewritten in the style of transformers 4)
CASES = {
    "llama": ("llama", dict(), False),
    "llama_old_tied_bias": ("llama", dict(tie_word_embeddings=True, attention_bias=True, mlp_bias=True), True),
    "llama_rope3": ("llama", dict(rope_parameters=LLAMA3), False),
    "llama_rope_linear_old": ("llama", dict(rope_parameters=LINEAR, hidden_act="gelu_pytorch_tanh"), True),
    "mistral_window": ("mistral", dict(sliding_window=6), False),
    "qwen2_window_old": ("qwen2", dict(use_sliding_window=True, sliding_window=5, max_window_layers=1, tie_word_embeddings=True), True),
    "qwen3": ("qwen3", dict(head_dim=16, tie_word_embeddings=True), False),
    "qwen3_bias_old": ("qwen3", dict(attention_bias=True), True),
}
LENGTH = 11


def make(name, model_type, keys, old_style):
    torch.manual_seed(sum(map(ord, name)))
    config = AutoConfig.for_model(model_type, **{**SMALL, **keys})
    model = AutoModelForCausalLM.from_config(config).float().eval()
    tiny_models.randomize(model)
    folder = ROOT / name
    folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if old_style:
        tiny_models.rewrite_old_style(folder / "config.json")

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()  # through the files as they are
    ids = torch.randint(3, SMALL["vocab_size"], (2, 16))
    logits = torch.zeros(2, 16, SMALL["vocab_size"])
    generated = torch.full((2, 12), -1, dtype=torch.long)
    with torch.no_grad():
        for row, (length, prompt) in enumerate([(16, 7), (LENGTH, 3)]):
            logits[row, :length] = model(ids[row : row + 1, :length]).logits[0]
            start = ids[row : row + 1, :prompt]
            out = model.generate(start, attention_mask=torch.ones_like(start), max_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=2)
            new = [token for token in out[0, prompt:].tolist() if token != 2]
            generated[row, : len(new)] = torch.tensor(new, dtype=torch.long)
    save_file({"ids": ids, "length": torch.tensor([LENGTH]), "logits": logits, "generated": generated}, folder / "expected.safetensors")


for case, (kind, settings, old) in CASES.items():
    make(case, kind, settings, old)
