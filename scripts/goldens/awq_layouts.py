#!/usr/bin/env python3
"""Goldens of AutoAWQ's GEMV, GEMV_FAST and Marlin layouts, packed by AutoAWQ 0.2.9 itself on the CPU (it needs no kernels for that).

usage: awq_layouts.py   (an environment with autoawq 0.2.9, torch, transformers 4.51.3; run on torch 2.13)

Writes tests/data/awq_layouts/<layout>.json, which says what stands where in <layout>.bin: for each case the codes (two to a byte, the lower
nibble first), zero points and scales that AutoAWQ was given, and the tensors that it made of them.
"""
import json
import pathlib

import torch
from awq.modules.linear.gemv import WQLinear_GEMV
from awq.modules.linear.gemv_fast import WQLinear_GEMVFast
from awq.modules.linear.marlin import WQLinear_Marlin

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "awq_layouts"
# out_features, in_features, group_size
CASES = {
    "gemv": (WQLinear_GEMV, [(8, 96, 32), (40, 320, 64), (16, 384, 128), (8, 1152, 128), (8, 1088, 64), (8, 1056, 32)]),
    "gemv_fast": (WQLinear_GEMVFast, [(8, 64, 32), (64, 192, 64), (8, 128, 128), (16, 1152, 128), (8, 1088, 64), (8, 1088, 32)]),
    "marlin": (WQLinear_Marlin, [(64, 16, 16), (128, 128, 128), (256, 96, 32), (64, 320, 64), (64, 256, 128), (64, 144, 72), (192, 48, 48)]),
}


def given(out_features, in_features, group_size, symmetric):
    groups = in_features // group_size
    codes = torch.randint(0, 16, (out_features, in_features))
    zeros = torch.full((out_features, groups), 8) if symmetric else torch.randint(0, 16, (out_features, groups))
    # From fp16-subnormal scales, where AutoAWQ's smallest is, to large ones.
    scales = (10.0 ** torch.empty(out_features, groups).uniform_(-6.2, 1)).half()
    return codes, zeros, scales


def pack(kind, codes, zeros, scales, group_size, symmetric):
    linear = torch.nn.Linear(codes.shape[1], codes.shape[0], bias=False)
    wide = scales.float()
    linear.weight.data = (codes - zeros.repeat_interleave(group_size, 1)) * wide.repeat_interleave(group_size, 1)
    module = kind.from_linear(linear, 4, group_size, False, wide, None if symmetric else zeros.float())
    return dict(module.state_dict())


class Blob:
    def __init__(self):
        self.data = b""

    def add(self, tensor, dtype=None):
        array = tensor.contiguous().numpy()
        entry = {"dtype": dtype or str(array.dtype), "shape": list(array.shape), "offset": len(self.data)}
        raw = array.tobytes()
        if dtype == "uint4":
            raw = bytes(low | high << 4 for low, high in zip(raw[0::2], raw[1::2]))
        self.data += raw
        return entry


for name, (kind, shapes) in CASES.items():
    torch.manual_seed(1)
    blob, cases = Blob(), []
    for out_features, in_features, group_size in shapes:
        symmetric = name == "marlin"
        codes, zeros, scales = given(out_features, in_features, group_size, symmetric)
        case = {"out_features": out_features, "in_features": in_features, "group_size": group_size,
                "codes": blob.add(codes.to(torch.uint8), "uint4"), "zeros": blob.add(zeros.to(torch.uint8)), "given_scales": blob.add(scales)}
        case.update({key: blob.add(value) for key, value in pack(kind, codes, zeros, scales, group_size, symmetric).items()})
        cases.append(case)
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps({"autoawq": "0.2.9", "cases": cases}, indent=1) + "\n")
    (FOLDER / f"{name}.bin").write_bytes(blob.data)
