"""Float checkpoints: `salient logits` against transformers, in float32."""
import numpy
import torch
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


def load(folder, neutral=None):
    config = AutoConfig.from_pretrained(folder)
    for key, value in (neutral or {}).items():
        setattr(config, key, value)
    return AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32).eval()


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
    found = difference(program_logits(program, folder, ids, work / "logits.npy"), expected)
    note = f"{stored.get('dtype', 'float32')}, {files} file{'s' if files > 1 else ''}, logits' deviation {expected.std():.2f}"
    return name, f"{found:.1e}", note, found < BOUND


def check(program, work):
    """Rows of (case, figure, note, passed)."""
    for case in tiny_models.LOGIT_CASES:
        yield program.guarded(case[0], lambda: check_case(program, work, *case))
