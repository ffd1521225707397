#!/usr/bin/env python3
"""Golden of the "pack-quantized" layout, packed and decompressed by compressed-tensors itself.

usage: quant_pack_quantized.py OLDER > tests/data/quant/pack_quantized.json
An environment with compressed-tensors 0.20.0; OLDER is a folder with compressed-tensors 0.10.2 unpacked from its wheel, which does not split codes.
"""
import json
import sys
from pathlib import Path

import compressed_tensors
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.pack_quantized import pack_to_int32
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

torch.manual_seed(1)


def case(bits, out_features, in_features, group_size, symmetric):
    groups = in_features // group_size
    half = 1 << (bits - 1)
    codes = torch.randint(0, 1 << bits, (out_features, in_features))
    zeros = torch.full((out_features, groups), half) if symmetric else torch.randint(0, 1 << bits, (out_features, groups))
    scales = (torch.rand(out_features, groups) + 0.05).half()
    # Compressed from the float weight that the codes stand for: the quantizer has to find the codes again.
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(
        num_bits=bits, symmetric=symmetric, **({"strategy": "channel"} if groups == 1 else {"strategy": "group", "group_size": group_size})))
    weight = (codes - zeros.repeat_interleave(group_size, 1)) * scales.float().repeat_interleave(group_size, 1)
    state = {"weight": weight, "weight_scale": scales.float()}
    if not symmetric:
        state["weight_zero_point"] = (zeros - half).to(torch.int8)
    compressor = BaseCompressor.get_value_from_registry("pack-quantized")
    packed = compressor.compress(state, scheme)
    assert torch.equal(packed["weight_packed"], pack_to_int32((codes - half).to(torch.int8), bits))
    entry = {"bits": bits, "codes": codes.tolist(), "zeros": zeros.tolist(), "scales": scales.float().tolist(),
             "weight_packed": packed["weight_packed"].tolist(), "weight_shape": packed["weight_shape"].tolist()}
    if not symmetric:
        entry["weight_zero_point"] = packed["weight_zero_point"].tolist()
    entry["decompressed"] = compressor.decompress(packed, scheme)["weight"].float().tolist()
    return entry


def older_case(folder, bits):
    source = (Path(folder) / "compressed_tensors/compressors/quantized_compressors/pack_quantized.py").read_text()
    scope = {}
    # Its packing function alone: the module as a whole does not go with a newer package.
    start = source.index("def pack_to_int32")
    exec("import math\nimport numpy as np\nimport torch\nfrom typing import *\n" + source[start:source.index("\ndef ", start)], scope)  # noqa: S102
    codes = torch.randint(0, 1 << bits, (3, 96))
    return {"bits": bits, "codes": codes.tolist(),
            "weight_packed": scope["pack_to_int32"]((codes - (1 << (bits - 1))).to(torch.int8), bits).tolist()}


cases = [case(bits, *shape) for bits in (2, 3, 4, 5, 6, 8) for shape in ((11, 48, 16, False), (5, 40, 40, True))]
print(json.dumps({"compressed_tensors": compressed_tensors.__version__, "cases": cases,
                  "older": [older_case(sys.argv[1], bits) for bits in (3, 4, 5, 6)]}))
