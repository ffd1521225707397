#!/usr/bin/env python3
"""Quantizes a folder with AutoAWQ 0.2.9 in float32 on the CPU and prints one JSON line; compare_autoawq.py runs it.

usage: autoawq_quantize.py MODEL OUT CALIB.jsonl ROWS BLOCK_TOKENS GROUP_SIZE THREADS
"""
import json
import sys
import time
import warnings

warnings.filterwarnings("ignore")

import torch
from awq import AutoAWQForCausalLM
from transformers import AutoTokenizer


def main():
    if len(sys.argv) != 8:
        sys.exit(__doc__)
    model_folder, out, calibration = sys.argv[1:4]
    rows, block_tokens, group_size, threads = map(int, sys.argv[4:])
    torch.set_num_threads(threads)
    # The scale search keeps the original weights as tensor.cpu(), which for a tensor that is on the CPU is the tensor itself, then
    # scales them in place: without a real copy the search would compare, and keep, destroyed weights.
    torch.Tensor.cpu = lambda self, *args, **kwargs: self.detach().clone()
    with open(calibration, encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    model = AutoAWQForCausalLM.from_pretrained(model_folder, device_map="cpu", torch_dtype=torch.float32, safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    config = {"zero_point": True, "q_group_size": group_size, "w_bit": 4, "version": "GEMM"}
    start = time.perf_counter()
    model.quantize(tokenizer, quant_config=config, calib_data=texts, max_calib_samples=rows, max_calib_seq_len=block_tokens)
    seconds = time.perf_counter() - start
    model.save_quantized(out)
    tokenizer.save_pretrained(out)
    print(json.dumps({"quantize_s": seconds}))


main()
