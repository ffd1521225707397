#!/usr/bin/env python3
"""Logits of an AutoAWQ folder by the packed layers of AutoAWQ 0.2.9 on the CPU, as a .npy file; check_autoawq.py and
scripts/interop run it.

usage: packed_logits.py autoawq|transformers FOLDER IDS OUT.npy

Without a GPU both loaders insist on Intel's extension for PyTorch, for speed only: their layer WQLinear_GEMM has a path in plain PyTorch, which
is taken here.
"""
import sys
import warnings

warnings.filterwarnings("ignore")

import numpy
import torch


def load(loader, folder):
    if loader == "autoawq":
        import awq.models.base
        from awq import AutoAWQForCausalLM
        awq.models.base.get_best_device = lambda: "cuda:0"  # asked only whether to use that extension; device_map says where the model goes
        return AutoAWQForCausalLM.from_quantized(folder, fuse_layers=False, device_map={"": "cpu"}, torch_dtype=torch.float16).model
    from transformers import AutoModelForCausalLM
    from transformers.quantizers.quantizer_awq import AwqQuantizer
    AwqQuantizer.validate_environment = lambda self, **kwargs: None  # would ask for a GPU or change the layer to that extension's
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
