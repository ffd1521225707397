#!/usr/bin/env python3
"""Speed of a GGUF file in llama.cpp on the CPU, through llama-cpp-python, as llama-bench measures it: a prompt at once, and single tokens one after the
other, each from an empty cache, once without counting and then --repeats times; the median. Prints one line of JSON. performance_rows.py runs it.

usage: peer_llama_cpp.py FILE.gguf [--threads N] [--prompt-tokens N] [--generation-tokens N] [--repeats N]
"""
import argparse
import ctypes
import json
import os
import statistics
import time

import llama_cpp
import numpy


@llama_cpp.llama_log_callback
def say_nothing(_level, _text, _data):
    pass


def decode(context, ids, position):
    batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for i, token in enumerate(ids):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = int(token), position + i, 1, int(i == len(ids) - 1)
        batch.seq_id[i][0] = 0
    status = llama_cpp.llama_decode(context, batch)
    llama_cpp.llama_synchronize(context)
    llama_cpp.llama_batch_free(batch)
    if status != 0:
        raise SystemExit(f"llama_decode failed with {status}")


def rate(context, tokens, repeats, work):
    """Tokens a second of work()."""
    rates = []
    for _ in range(repeats + 1):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        start = time.perf_counter()
        work()
        rates.append(tokens / (time.perf_counter() - start))
    return statistics.median(rates[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--generation-tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    llama_cpp.llama_log_set(say_nothing, ctypes.c_void_p())
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(options.file.encode(), llama_cpp.llama_model_default_params())
    if not model:
        raise SystemExit(f"{options.file}: llama.cpp does not load it")
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx = options.prompt_tokens + options.generation_tokens
    settings.n_batch = settings.n_ubatch = options.prompt_tokens
    settings.n_threads = settings.n_threads_batch = options.threads
    context = llama_cpp.llama_init_from_model(model, settings)
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    random = numpy.random.default_rng(0)
    prompt = random.integers(0, vocabulary, options.prompt_tokens)
    tokens = random.integers(0, vocabulary, options.generation_tokens)

    def generate():
        for position, token in enumerate(tokens):
            decode(context, [token], position)

    print(json.dumps(dict(prompt_tokens_per_second=rate(context, len(prompt), options.repeats, lambda: decode(context, prompt, 0)),
                          generation_tokens_per_second=rate(context, len(tokens), options.repeats, generate))))


main()
