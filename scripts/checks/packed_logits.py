#!/usr/bin/env python3
"""Logits of an AutoAWQ folder by the packed layers of AutoAWQ 0.2.9 on the CPU, as a .npy file; check_autoawq.py runs it.

usage: packed_logits.py autoawq|transformers FOLDER IDS OUT.npy
"""
import sys
import warnings

warnings.filterwarnings("ignore")

import numpy
import torch


def load(loader, folder):
    if loader == "autoawq":
        from awq import AutoAWQForCausalLM
        return AutoAWQForCausalLM.from_quantized(folder, fuse_layers=False, device_map="cpu", torch_dtype=torch.float16, use_exllama=False).model
    from transformers import AutoModelForCausalLM
    return AutoModelForCausalLM.from_pretrained(folder, device_map="cpu", torch_dtype=torch.float16)


def main():
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    loader, folder, ids, out = sys.argv[1:]
    model = load(loader, folder).eval()
    packed = [name for name, module in model.named_modules() if type(module).__name__ == "WQLinear_GEMM"]
    if not packed:
        sys.exit(f"{folder}: loaded without a packed layer")
    with torch.inference_mode():
        numpy.save(out, model(torch.tensor([[int(word) for word in ids.split(",")]])).logits[0].float().numpy())


main()
