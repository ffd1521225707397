#!/usr/bin/env python3
"""usage: scripts/goldens/lora_adapters.py  -- writes tests/data/adapters/: adapters that PEFT saved, and what the models with them compute.

Made with peft 0.21.2, transformers 5.23 and torch 2.13 (CPU). The bases are the models of tests/data/decoder; "demo" is trained for some steps on the
demo model's data, in bfloat16. Each folder holds adapter_config.json and adapter_model.safetensors as PEFT saves them, base_model_name_or_path made
relative to the folder, and expected.safetensors, in float32 arithmetic:
  ids      int64 [1, 8]
  logits   float32 [1, 8, tokens]   of the PeftModel, loaded again, not merged: merge_and_unload changes both ends of a tied model;
                                    of "demo" the last position's
  q_proj   float32 [out, in]        of block 0 after merge_and_unload
"""
import json
import pathlib
import warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

warnings.filterwarnings("ignore")
ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "tests" / "data" / "adapters"
# name: (base, LoraConfig, tokens to resize to)
CASES = {
    "plain": ("llama", dict(r=4, lora_alpha=6, target_modules=["q_proj", "v_proj", "down_proj"]), None),
    "patterns": ("qwen3", dict(r=4, lora_alpha=6, use_rslora=True, target_modules=["q_proj", "k_proj", "gate_proj"],
                               rank_pattern={"layers.1.self_attn.q_proj": 2, "q_proj": 3}, alpha_pattern={r"layers\.\d+\.self_attn\.k_proj": 10}), None),
    "dora": ("llama", dict(r=2, use_dora=True, target_modules=["q_proj", "o_proj", "embed_tokens", "lm_head"]), None),
    "bias_all": ("llama_old_tied_bias", dict(r=2, bias="all", target_modules=["q_proj"]), None),
    "bias_lora_only": ("llama_old_tied_bias", dict(r=2, bias="lora_only", target_modules=["q_proj", "up_proj"]), None),
    "lora_bias": ("llama_old_tied_bias", dict(r=2, lora_bias=True, target_modules=["q_proj"]), None),
    "saved_modules": ("llama", dict(r=2, target_modules=["q_proj"], modules_to_save=["lm_head", "input_layernorm"]), None),
    "tied_embedding": ("qwen3", dict(r=2, target_modules=["q_proj", "embed_tokens"]), None),
    "tied_head": ("qwen3", dict(r=2, target_modules=["q_proj", "lm_head"]), None),
    "tied_both": ("qwen3", dict(r=2, target_modules=["q_proj", "embed_tokens"], ensure_weight_tying=True), None),
    "tied_saved_embedding": ("qwen3", dict(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"]), None),
    "tied_saved_both": ("qwen3", dict(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True), None),
    "tied_resized": ("qwen3", dict(r=2, target_modules=["q_proj"]), 70),
    "tied_tokens": ("qwen3", dict(r=2, target_modules=["q_proj"], trainable_token_indices=[3, 7]), None),
    "tokens": ("llama", dict(r=2, target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [3, 7], "lm_head": [1]}), None),
}


def load(base, tokens):
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    if tokens:
        torch.manual_seed(7)
        model.resize_token_embeddings(tokens)
    return model


def finish(folder, base, tokens, ids, q_proj):
    (folder / "README.md").unlink()
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = str(pathlib.Path(*[".."] * len(folder.relative_to(ROOT).parts)) / base.relative_to(ROOT))
    for key in ("target_modules", "modules_to_save"):  # sets, saved in any order
        if isinstance(config[key], list):
            config[key].sort()
    path.write_text(json.dumps(config, indent=2) + "\n")
    model = PeftModel.from_pretrained(load(base, tokens), folder).eval()
    with torch.no_grad():
        expected = {"ids": ids, "logits": model(ids).logits[:, 0 if q_proj else -1 :].contiguous()}
        if q_proj:
            expected["q_proj"] = model.merge_and_unload().model.layers[0].self_attn.q_proj.weight.contiguous()
    save_file(expected, folder / "expected.safetensors")
    print(folder.name, sum(f.stat().st_size for f in folder.iterdir()), "bytes")


def make(name, base_name, keys, tokens):
    base = ROOT / "tests" / "data" / "decoder" / base_name
    torch.manual_seed(sum(map(ord, name)))
    model = get_peft_model(load(base, tokens), LoraConfig(task_type="CAUSAL_LM", **keys))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(OUT / name)
    finish(OUT / name, base, tokens, torch.randint(3, tokens or 64, (1, 8)), True)


def train_demo():
    base = ROOT / "models" / "demo"
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(base)
    keys = dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"])
    model = get_peft_model(load(base, None), LoraConfig(task_type="CAUSAL_LM", **keys)).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    rows = [json.loads(line) for line in (base / "data" / "squad_train.jsonl").read_text().splitlines()]
    for step in range(30):
        texts = ["\n".join(str(value) for value in row.values()) for row in rows[8 * step : 8 * step + 8]]
        ids = torch.tensor([i for text in texts for i in tokenizer(text)["input_ids"]])[:512].view(4, 128)
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step in (0, 29):
            print("step", step, "loss", float(loss))
    folder = OUT / "demo"
    model.save_pretrained(folder)
    weights = folder / "adapter_model.safetensors"
    save_file({name: tensor.to(torch.bfloat16) for name, tensor in load_file(weights).items()}, weights, metadata={"format": "pt"})
    finish(folder, base, None, ids[:1, :8].contiguous(), False)


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    for case, (base_name, keys, tokens) in CASES.items():
        make(case, base_name, keys, tokens)
    train_demo()
