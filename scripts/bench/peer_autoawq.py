#!/usr/bin/env python3
"""Quantizes a folder with AutoAWQ 0.2.9 in float32 on the CPU, writes its dequantized weights as a float checkpoint and prints one JSON line;
compare_peers.py runs it.

usage: peer_autoawq.py MODEL OUT CALIB.jsonl ROWS BLOCK_TOKENS GROUP_SIZE BITS THREADS

AutoAWQ's packer knows 4 bits only, so it stops after the searches (export_compatible: scales and clipping are applied, nothing is rounded). Each
block is calibrated on the output of the float blocks before it, so leaving out the rounding changes no later search. What is left is
what AwqQuantizer._apply_quant does, repeated here with its own function: the linear in float16 through pseudo_quantize_tensor, whose
codes are those that the packer stores. A stored weight is code times scale, float16 scales, multiplied in float32.
"""
import json
import pathlib
import sys
import tempfile
import time

import autoawq_on_cpu  # before AutoAWQ itself, whose warnings it silences
import torch
from awq.utils.module import exclude_layers_to_not_quantize, get_named_linears

from peer_runs import run_peer


def readable_source(model, folder):
    """A folder of links to the files of `model` whose config.json transformers 4.51 understands: newer releases keep rope_theta inside rope_parameters."""
    model, folder = pathlib.Path(model).resolve(), pathlib.Path(folder)
    for file in model.iterdir():
        if file.suffix == ".safetensors" or file.name == "model.safetensors.index.json":
            (folder / file.name).symlink_to(file)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    rope = config.pop("rope_parameters", None) or {}
    if rope.get("rope_type", "default") != "default":
        sys.exit(f"{model}: AutoAWQ 0.2.9 reads rope_type default only, not {rope['rope_type']}")
    if "rope_theta" in rope:
        config["rope_theta"] = rope["rope_theta"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(folder)


def stored_weight(quantizer, linear):
    values, scales, _ = quantizer.pseudo_quantize_tensor(linear.weight.data.half())
    grouped = values.view(values.shape[0], scales.shape[1], -1)
    scales = scales.unsqueeze(-1)
    codes = torch.round(grouped / scales).float()
    return (codes * scales.float()).view(values.shape)


def quantize(run):
    texts = autoawq_on_cpu.read_texts(run.calibration)
    with tempfile.TemporaryDirectory() as folder:
        model = autoawq_on_cpu.load_model(readable_source(run.source, folder))
    tokenizer = run.tokenizer()
    start = time.perf_counter()
    autoawq_on_cpu.quantize(model, tokenizer, texts, run.rows, run.block_tokens, run.group_size, run.bits, export_compatible=True)
    with torch.inference_mode():
        for block in model.quantizer.modules:
            linears = exclude_layers_to_not_quantize(get_named_linears(block), model.quantizer.modules_to_not_convert)
            for linear in linears.values():
                linear.weight.data = stored_weight(model.quantizer, linear)
    seconds = time.perf_counter() - start
    return model.model.state_dict(), {"quantize_s": seconds}


run_peer(__doc__, quantize)
