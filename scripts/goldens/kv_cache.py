#!/usr/bin/env python3
"""usage: scripts/goldens/kv_cache.py  -- writes tests/data/decoder/kv8.json

{model: {"ids": [...], "rounded": [[...] of every second position], "plain": [...]}}: logits that transformers (5.23, CPU, float32) computes with the
checkpoint tests/data/decoder/<model>, with keys and values rounded to int8 when they enter its cache, each token and head with a scale of its own
(max |x| / 127), and without. Ids are drawn until no key or value lies near the edge of a step, where another order of
float sums could round it to the other side.
"""
import json
import pathlib

import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "decoder"
MODELS = ["llama", "qwen3", "mistral_window"]
TOKENS = 13
MARGIN = 5e-4  # steps


class RoundingCache(transformers.DynamicCache):
    nearest = 0.5  # to the edge of a step, in steps

    def rounded(self, x):
        scale = x.abs().amax(-1, keepdim=True) / 127
        steps = x / scale
        self.nearest = min(self.nearest, ((steps - steps.floor()) - 0.5).abs().min().item())
        return torch.round(steps) * scale

    def update(self, key_states, value_states, *args, **kwargs):
        return super().update(self.rounded(key_states), self.rounded(value_states), *args, **kwargs)


def logits(model, ids, cache):
    with torch.no_grad():
        values = model(torch.tensor([ids]), past_key_values=cache, use_cache=True).logits[0, ::2]
    return [[round(v, 6) for v in row] for row in values.tolist()]


def make(name):
    model = transformers.AutoModelForCausalLM.from_pretrained(ROOT / name, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(1)
    for tries in range(1, 1000):
        ids = torch.randint(0, model.config.vocab_size, (TOKENS,), generator=generator).tolist()
        cache = RoundingCache(config=model.config)
        rounded = logits(model, ids, cache)
        if cache.nearest > MARGIN:
            break
    else:
        raise SystemExit(f"{name}: no ids without a number at the edge of a step")
    plain = logits(model, ids, transformers.DynamicCache(config=model.config))
    difference = (torch.tensor(rounded) - torch.tensor(plain)).abs()
    print(name, f"{tries} tries, largest difference {difference.max():.1e}, mean {difference.mean():.1e}")
    return {"ids": ids, "rounded": rounded, "plain": plain}


if __name__ == "__main__":
    (ROOT / "kv8.json").write_text(json.dumps({name: make(name) for name in MODELS}) + "\n")
