#!/usr/bin/env python3
"""Quantizes a folder with AutoAWQ 0.2.9 in float32 on the CPU and prints one JSON line; compare_autoawq.py and scripts/interop run it.

usage: autoawq_quantize.py MODEL OUT CALIB.jsonl ROWS BLOCK_TOKENS GROUP_SIZE THREADS [GEMM|GEMV|GEMV_FAST|Marlin]
"""
import json
import sys
import time

import torch
from transformers import AutoTokenizer

import autoawq_on_cpu


def main():
    if len(sys.argv) not in (8, 9):
        sys.exit(__doc__)
    model_folder, out, calibration = sys.argv[1:4]
    rows, block_tokens, group_size, threads = map(int, sys.argv[4:8])
    torch.set_num_threads(threads)
    texts = autoawq_on_cpu.read_texts(calibration)
    model = autoawq_on_cpu.load_model(model_folder)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    start = time.perf_counter()
    autoawq_on_cpu.quantize(model, tokenizer, texts, rows, block_tokens, group_size, bits=4, version=(sys.argv[8:] or ["GEMM"])[0])
    seconds = time.perf_counter() - start
    model.save_quantized(out)
    tokenizer.save_pretrained(out)
    print(json.dumps({"quantize_s": seconds}))


main()
