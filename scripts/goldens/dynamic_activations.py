#!/usr/bin/env python3
"""Golden of activations in 8 bits with a scale for each token, quantized by compressed-tensors itself.

usage: dynamic_activations.py > tests/data/quant/dynamic_activations.json
An environment with compressed-tensors 0.20.0.
"""
import json

import compressed_tensors
import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import quantize
from compressed_tensors.quantization.utils import compute_dynamic_scales_and_zp

torch.manual_seed(1)
args = QuantizationArgs(num_bits=8, type="int", symmetric=True, strategy="token", dynamic=True)

x = torch.randn(9, 48)
x[1] *= 1000
x[2] = 0
x[3, 7] = -50  # the largest is negative: code -128
x[4, 7] = 50  # positive: 127
x[5] = torch.arange(48) * 0.5 - 11.5  # ties, with the next
x[5, 0] = 127.5
x[6] *= 1e-30
x[7] *= 1e-43  # below the smallest normal number
x[8] = 1e-45  # a scale that would round to zero
scales, zeros = compute_dynamic_scales_and_zp(x.unsqueeze(0), args, torch.nn.Module())
codes = quantize(x.unsqueeze(0), scales, zeros, args, dtype=torch.int8)
print(json.dumps({"compressed_tensors": compressed_tensors.__version__, "x": x.tolist(), "codes": codes[0].tolist(),
                  "scales": scales.flatten().tolist()}))
