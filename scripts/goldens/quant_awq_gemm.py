#!/usr/bin/env python3
"""Golden of AutoAWQ 0.2.9's pseudo-quantizer and GEMM packing, by AutoAWQ itself.

usage: quant_awq_gemm.py > tests/data/quant/awq_gemm.json   (an environment with autoawq 0.2.9, torch 2.13, transformers 4.51.3)
"""
import json
import types

import torch
from awq.modules.linear.gemm import WQLinear_GEMM
from awq.quantize.quantizer import AwqQuantizer
from awq.utils.packing_utils import dequantize_gemm

torch.manual_seed(1)
out_features, in_features, group = 32, 64, 32  # its packing needs out_features in multiples of 32
# Multiples of 1/256: exact in fp16 and in JSON.
weight = (torch.randn(out_features, in_features) * 40).round().clamp(-512, 512) / 256
me = types.SimpleNamespace(w_bit=4, group_size=group, zero_point=True)
dense, scales, zeros = AwqQuantizer.pseudo_quantize_tensor(me, weight.clone().half().float())
linear = torch.nn.Linear(in_features, out_features, bias=False)
linear.weight.data = dense
# from_linear works in fp16
packed = WQLinear_GEMM.from_linear(linear.half(), 4, group, False, scales.t().contiguous().half(), zeros.t().contiguous())
restored = dequantize_gemm(packed.qweight, packed.qzeros, packed.scales.float(), 4, group).t()
print(json.dumps({"autoawq": "0.2.9", "group_size": group, "weight_times_256": (weight * 256).int().tolist(), "zeros": zeros.int().tolist(),
                  "scales": packed.scales.float().tolist(), "qweight": packed.qweight.tolist(), "qzeros": packed.qzeros.tolist(),
                  "restored": restored.float().tolist()}))
