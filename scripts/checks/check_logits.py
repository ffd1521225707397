"""Float checkpoints: `salient logits` against transformers, in float32.

A difference of exactly 0 is no mistake: with the libtorch of the same wheel both run the same kernels on the same numbers in the same order. So
the notes also give the distance to transformers in float64, and a last case checks that a changed weight is noticed.
"""
import numpy
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

import tiny_models

TOKENS = 96
BOUND = 2e-4  # of logits whose standard deviation is about 1
LEAST_EFFECT = 1e-2


def some_ids(vocabulary, count=TOKENS):
    return torch.randint(3, vocabulary, (count,), generator=torch.Generator().manual_seed(7)).tolist()


def program_logits(program, model, ids, out):
    program.run("logits", "--model", model, "--ids", ",".join(map(str, ids)), "--out", out)
    return torch.from_numpy(numpy.load(out))


@torch.inference_mode()
def logits_of(model, ids):
    return model(torch.tensor([ids])).logits[0].float()


def load(folder, neutral=None, dtype=torch.float32):
    config = AutoConfig.from_pretrained(folder)
    for key, value in (neutral or {}).items():
        setattr(config, key, value)
    return AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=dtype).eval()


def difference(found, expected):
    """max |difference|; NaN (which no bound admits) where shapes differ."""
    return (found - expected).abs().max().item() if found.shape == expected.shape else float("nan")


def check_case(program, work, name, model_type, keys, stored, neutral):
    folder = work / name.replace(" ", "_")
    tiny_models.make(folder, model_type, keys, stored)
    files = len(list(folder.glob("*.safetensors")))
    if (files > 1) != ("shard" in stored):
        return name, f"{files} files", "", False
    ids = some_ids(tiny_models.SMALL["vocab_size"])
    expected = logits_of(load(folder), ids)
    if neutral is not None:
        effect = difference(logits_of(load(folder, neutral), ids), expected)
        if not effect > LEAST_EFFECT:
            return name, f"the case shows nothing: {effect:.1e}", "", False
    logits = program_logits(program, folder, ids, work / "logits.npy")
    found = difference(logits, expected)
    exact = difference(logits, logits_of(load(folder, dtype=torch.float64), ids))
    note = f"float64 {exact:.1e}, deviation {expected.std():.2f}, {stored.get('dtype', 'float32')}, {files} file{'s' if files > 1 else ''}"
    return name, f"{found:.1e}", note, found < BOUND and exact < BOUND


def check_changed_weight(program, work):
    """The check itself: one head norm scaled by 1.01 must show."""
    name = "qwen3, a norm changed by 1 %"
    folder = work / "changed"
    tiny_models.make(folder, "qwen3", {})
    ids = some_ids(tiny_models.SMALL["vocab_size"])
    expected = logits_of(load(folder), ids)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.self_attn.k_norm.weight"] *= 1.01
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    found = difference(program_logits(program, folder, ids, work / "logits.npy"), expected)
    return name, f"{found:.1e}", "must be above the bound", found > BOUND


def check(program, work):
    """Rows of (case, figure, note, passed)."""
    for case in tiny_models.LOGIT_CASES:
        yield program.guarded(case[0], lambda: check_case(program, work, *case))
    yield program.guarded("changed weight", lambda: check_changed_weight(program, work))
