#!/usr/bin/env python3
"""Perplexity, mean KL divergence to the float model and top-1 agreement of AutoAWQ GEMM folders, by transformers on weights that
AutoAWQ's own function unpacks; prints one JSON line; compare_autoawq.py runs it.

usage: measure_artifacts.py FLOAT_MODEL TEXT WINDOW WINDOWS THREADS PACKING_UTILS.py NAME=FOLDER...

The text is cut into windows of WINDOW tokens that do not overlap, its tail dropped, and the first WINDOWS of them are used (0 = all). Every token
of a window after the first is scored; KL(float || model) and agreement are over every position.
"""
import json
import math
import pathlib
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from autoawq_folder import load_packing_utils, load_unpacked

WINDOWS_AT_ONCE = 8


class Figures:
    def __init__(self):
        self.loss = self.divergence = self.agreeing = 0.0
        self.scored = self.positions = 0

    def add(self, batch, log_probs, reference):
        targets = batch[:, 1:].unsqueeze(-1)
        self.loss -= log_probs[:, :-1].gather(-1, targets).double().sum().item()
        self.scored += targets.numel()
        self.divergence += (reference.exp() * (reference - log_probs)).sum(-1).double().sum().item()
        self.agreeing += (log_probs.argmax(-1) == reference.argmax(-1)).sum().item()
        self.positions += batch.numel()

    def summary(self):
        return {"perplexity": math.exp(self.loss / self.scored), "kl": self.divergence / self.positions,
                "top1": self.agreeing / self.positions}


@torch.inference_mode()
def main():
    if len(sys.argv) < 8:
        sys.exit(__doc__)
    float_folder, text, window, limit, threads, packing_file = sys.argv[1:7]
    window, limit = int(window), int(limit)
    torch.set_num_threads(int(threads))
    packing = load_packing_utils(packing_file)
    base = AutoModelForCausalLM.from_pretrained(float_folder, dtype=torch.float32).eval()
    models = {"float": base}
    for argument in sys.argv[7:]:
        name, folder = argument.split("=", 1)
        models[name] = load_unpacked(folder, packing)
    tokenizer = AutoTokenizer.from_pretrained(float_folder)
    content = pathlib.Path(text).read_bytes().decode("utf-8")
    ids = tokenizer(content, add_special_tokens=False, return_tensors="pt").input_ids[0]
    windows = ids[:len(ids) // window * window].view(-1, window)
    if limit > 0:
        windows = windows[:limit]
    figures = {name: Figures() for name in models}
    for batch in windows.split(WINDOWS_AT_ONCE):
        reference = base(batch).logits.log_softmax(-1)
        for name, model in models.items():
            log_probs = reference if model is base else model(batch).logits.log_softmax(-1)
            figures[name].add(batch, log_probs, reference)
    print(json.dumps({"windows": len(windows), "models": {name: found.summary() for name, found in figures.items()}}))


main()
