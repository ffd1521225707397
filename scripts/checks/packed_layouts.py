#!/usr/bin/env python3
"""A folder in one of AutoAWQ's layouts against AutoAWQ's own packing of the same codes; check_autoawq.py and scripts/interop run it.

usage: packed_layouts.py GEMM_FOLDER FOLDER   (an environment with autoawq 0.2.9)

Every linear of GEMM_FOLDER is unpacked by AutoAWQ and packed again by its class for the layout that FOLDER's config.json names; the tensors
must be those of FOLDER, bit by bit. Then AutoAWQ loads FOLDER as a model: its buffers must be the same tensors. Its kernels need a GPU and
are not run. Prints the number of linears.
"""
import json
import pathlib
import sys
import warnings

warnings.filterwarnings("ignore")

import awq.models.base
import torch
from awq import AutoAWQForCausalLM
from awq.modules.linear.gemm import WQLinear_GEMM
from awq.modules.linear.gemv import WQLinear_GEMV
from awq.modules.linear.gemv_fast import WQLinear_GEMVFast
from awq.modules.linear.marlin import WQLinear_Marlin
from awq.utils.packing_utils import reverse_awq_order, unpack_awq
from safetensors.torch import load_file

LAYOUTS = {"gemm": WQLinear_GEMM, "gemv": WQLinear_GEMV, "gemv_fast": WQLinear_GEMVFast, "marlin": WQLinear_Marlin}


def tensors_of(folder):
    stored = {}
    for file in sorted(pathlib.Path(folder).glob("*.safetensors")):
        stored.update(load_file(file))
    return stored


def packed_by_autoawq(kind, gemm, name, group_size):
    codes, zeros = reverse_awq_order(*unpack_awq(gemm[f"{name}.qweight"], gemm[f"{name}.qzeros"], 4), 4)
    codes, zeros = (part & 15 for part in (codes, zeros))
    scales = gemm[f"{name}.scales"].float()
    weight = (codes - zeros.repeat_interleave(group_size, 0)) * scales.repeat_interleave(group_size, 0)
    linear = torch.nn.Linear(*codes.shape, bias=False)
    linear.weight.data = weight.t().contiguous()
    marlin = kind is WQLinear_Marlin
    if marlin and not bool((zeros == 8).all()):
        sys.exit(f"{name}: zero points are not all 8")
    scales, zeros = (part if kind is WQLinear_GEMM else part.t().contiguous() for part in (scales, zeros.float()))
    return kind.from_linear(linear, 4, group_size, False, scales, None if marlin else zeros)


def differing(found, expected):
    return [name for name, tensor in expected.items() if name not in found or found[name].dtype != tensor.dtype or not torch.equal(found[name], tensor)]


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    gemm, found = map(tensors_of, sys.argv[1:])
    config = json.loads((pathlib.Path(sys.argv[2]) / "config.json").read_text())["quantization_config"]
    kind = LAYOUTS[config["version"]]
    names = [name.removesuffix(".qweight") for name in gemm if name.endswith(".qweight")]
    expected = {}
    for name in names:
        module = packed_by_autoawq(kind, gemm, name, config["group_size"])
        expected.update({f"{name}.{part}": getattr(module, part) for part in ("qweight", "qzeros", "scales") if hasattr(module, part)})
    if wrong := differing(found, expected):
        sys.exit(f"{len(wrong)} tensors are not as AutoAWQ packs them, such as {wrong[0]}")
    awq.models.base.get_best_device = lambda: "cuda:0"  # asked only whether to use another library's layer
    awq.models.base.marlin_post_init = lambda model: model  # would ask for workspaces on a GPU
    model = AutoAWQForCausalLM.from_quantized(sys.argv[2], fuse_layers=False, device_map={"": "cpu"}, torch_dtype=torch.float16).model
    loaded = {name: type(module) for name, module in model.named_modules() if isinstance(module, kind)}
    if set(loaded) != set(names):
        sys.exit(f"AutoAWQ loads {len(loaded)} packed layers, expected {len(names)}")
    if wrong := differing(dict(model.state_dict()), expected):
        sys.exit(f"{len(wrong)} tensors are others once AutoAWQ has loaded them, such as {wrong[0]}")
    print(len(names))


main()
