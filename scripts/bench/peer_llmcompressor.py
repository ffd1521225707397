#!/usr/bin/env python3
"""Quantizes a folder with llm-compressor 0.14 (AWQ, asymmetric groups) in float32 on the CPU, writes its dequantized weights as a float
checkpoint and prints one JSON line; compare_peers.py runs it.

usage: peer_llmcompressor.py MODEL OUT CALIB.jsonl ROWS BLOCK_TOKENS GROUP_SIZE BITS THREADS

Calibration blocks are AutoAWQ's: rows of at most BLOCK_TOKENS tokens, joined, cut into blocks of BLOCK_TOKENS, the tail dropped. The stored weights are
compressed-tensors' own quantize, then dequantize, with the scales and zero points that llm-compressor found.
"""
import json
import resource
import time

import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.lifecycle import forward
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from transformers import AutoModelForCausalLM

from peer_runs import run_peer

QUANTIZATION_SUFFIXES = (".weight_scale", ".weight_zero_point", ".weight_g_idx")


def calibration_blocks(path, tokenizer, rows, block_tokens):
    stream = []
    with open(path, encoding="utf-8") as lines:
        for _, line in zip(range(rows), lines):
            ids = tokenizer(json.loads(line)["text"])["input_ids"]
            if 0 < len(ids) <= block_tokens:
                stream += ids
    return [stream[i:i + block_tokens] for i in range(0, len(stream) - block_tokens + 1, block_tokens)]


def stored_weight(module):
    arguments = module.quantization_scheme.weights
    scale, zero_point = module.weight_scale.data, module.weight_zero_point.data
    codes = forward.quantize(module.weight.data, scale, zero_point, arguments, dtype=torch.int8)
    return forward.dequantize(codes, scale, zero_point, arguments, dtype=torch.float32)


def quantize(run):
    # Its cache of activations pins memory even where there is no accelerator.
    torch.Tensor.pin_memory = lambda self, *args, **kwargs: self
    model = AutoModelForCausalLM.from_pretrained(run.source, dtype=torch.float32)
    blocks = calibration_blocks(run.calibration, run.tokenizer(), run.rows, run.block_tokens)
    data = Dataset.from_dict({"input_ids": blocks, "attention_mask": [[1] * run.block_tokens for _ in blocks]})
    weights = QuantizationArgs(num_bits=run.bits, symmetric=False, strategy="group", group_size=run.group_size)
    scheme = QuantizationScheme(targets=["Linear"], weights=weights)
    recipe = [AWQModifier(), QuantizationModifier(config_groups={"group_0": scheme}, ignore=["lm_head"])]
    start = time.perf_counter()
    oneshot(model=model, dataset=data, recipe=recipe, num_calibration_samples=len(blocks), max_seq_length=run.block_tokens,
            batch_size=len(blocks), shuffle_calibration_samples=False)
    seconds = time.perf_counter() - start
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6  # KiB on Linux
    tensors = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith(QUANTIZATION_SUFFIXES)}
    for name, module in model.named_modules():
        if getattr(module, "quantization_scheme", None) is not None:
            tensors[f"{name}.weight"] = stored_weight(module)
    return tensors, {"quantize_s": seconds, "peak_mb": peak_mb, "blocks": len(blocks)}


run_peer(__doc__, quantize)
