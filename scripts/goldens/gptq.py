#!/usr/bin/env python3
"""Writes tests/data/gptq/gptq.json: weights rounded by llm-compressor's GPTQ, for tests/quant/compensated_rounding_test.cpp.

    python3 scripts/goldens/gptq.py

An environment with llmcompressor 0.14.0.1. Inputs are small integers, so that their Gram matrix is exact in float32. Scales and zero
points follow the definition in quant/affine.h and are fixed before columns are rounded ("static groups").
"""
import json
import pathlib

import compressed_tensors
import llmcompressor
import numpy as np
import torch
from compressed_tensors.quantization import QuantizationArgs
from llmcompressor.modifiers.gptq.gptq_quantize import quantize_weight

ROWS, COLUMNS, TOKENS = 16, 64, 96
generator = np.random.default_rng(7)
# Channels are mixtures of a quarter as many sources plus noise; every 17th is larger.
mixed = generator.normal(size=(TOKENS, COLUMNS // 4)) @ generator.normal(size=(COLUMNS // 4, COLUMNS)) / 2
inputs = 3 * mixed + generator.normal(size=(TOKENS, COLUMNS)) * 2
inputs[:, 5::17] *= 6
inputs = np.clip(np.rint(inputs), -99, 99).astype(np.int64)
weight = np.rint(generator.normal(size=(ROWS, COLUMNS)) * 300).astype(np.int64)  # in units of 2^-10


def parameters(w, bits, group_size, zero_point):
    grouped = w.reshape(ROWS, COLUMNS // group_size, group_size)
    low = np.minimum(grouped.min(2), 0).astype(np.float32)
    high = np.maximum(grouped.max(2), 0).astype(np.float32)
    half, levels = 1 << (bits - 1), (1 << bits) - 1
    if not zero_point:
        scale = (np.maximum(-low, high) / np.float32(half - 1)).astype(np.float16).astype(np.float32)
        return scale, np.full(scale.shape, half, np.int64)
    scale = ((high - low) / np.float32(levels)).astype(np.float16).astype(np.float32)
    return scale, np.clip(np.rint(-low / scale), 0, levels).astype(np.int64)


def case(bits, group_size, zero_point, order, damping, tokens=TOKENS):
    x = torch.from_numpy(inputs[:tokens]).float()
    w = (weight / 1024).astype(np.float32)
    scale, zero = parameters(w, bits, group_size, zero_point)
    half = 1 << (bits - 1)
    args = QuantizationArgs(num_bits=bits, symmetric=not zero_point, strategy="group", group_size=group_size,
                            actorder="static" if order == "activation" else None)
    found, _, fallback = quantize_weight(torch.from_numpy(w)[None].clone(), (x.T @ x)[None].clone(), torch.from_numpy(scale)[None],
                                         torch.from_numpy(zero - half).to(torch.int8)[None], None, args, percdamp=damping)
    assert not fallback.any()
    steps = found[0].numpy() / scale.repeat(group_size, 1)
    codes = np.rint(steps) + zero.repeat(group_size, 1)
    assert np.abs(steps - np.rint(steps)).max() < 1e-3 and codes.min() >= 0 and codes.max() < 1 << bits
    return {"bits": bits, "group_size": group_size, "zero_point": zero_point, "order": order, "damping": damping, "tokens": tokens,
            "scales": scale.tolist(), "zeros": zero.tolist(), "codes": codes.astype(np.int64).tolist()}


cases = [
    case(4, 16, True, "natural", 0.01),
    case(4, 32, True, "activation", 0.01),
    case(3, 64, False, "activation", 0.01),
    case(2, 16, True, "activation", 0.1),
    case(4, 32, False, "natural", 0.01, tokens=40),  # fewer tokens than columns: only damping makes it invertible
]
folder = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "gptq"
folder.mkdir(parents=True, exist_ok=True)
text = json.dumps({"llmcompressor": llmcompressor.__version__, "compressed_tensors": compressed_tensors.__version__,
                  "inputs": inputs.tolist(), "weight_1024": weight.tolist(), "cases": cases}, separators=(",", ":"))
(folder / "gptq.json").write_text(text + "\n")
