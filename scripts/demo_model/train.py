#!/usr/bin/env python3
"""Trains the demo model on the CPU: 1100 steps of 4096 tokens, about 40 minutes on two cores; or a sibling of it for comparisons.

DATA_DIR is the output of make_data.py. Needs torch, transformers (4.51 or later), tokenizers and numpy. Then add_outliers.py makes
the bundled model of the result. The siblings that scripts/bench/compare_peers.py measures:

  train.py DATA GSM8K.jsonl WIKITEXT.txt llama_raw --architecture llama --seed 1 --steps 450   # then add_outliers.py llama_raw llama
  train.py DATA GSM8K.jsonl WIKITEXT.txt qwen3_plain --seed 2 --steps 450                      # no outliers planted
"""
import argparse
import json
import math
import pathlib
import random
import time

import numpy
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

import chat

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCABULARY = 4096
WINDOW, BATCH = 256, 16
PEAK_LEARNING_RATE, WARM_UP_STEPS, FINAL_FRACTION = 2.5e-3, 80, 0.04
# Words, single digits, punctuation, spaces: the split of the Qwen tokenizers.
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
TEMPLATE = ("{%- if messages[0].role != 'system' %}{{- '<|im_start|>system\\n" + chat.SYSTEM + "<|im_end|>\\n' }}{%- endif %}\n"
            "{%- for message in messages %}\n"
            "    {{- '<|im_start|>' + message.role + '\\n' + message.content | trim + '<|im_end|>\\n' }}\n"
            "{%- endfor %}\n"
            "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}")


def read_lines(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def documents(data, gsm8k, paragraphs):
    math_rows, arc_rows, squad_rows = (read_lines(data / "full" / f"{name}_train.jsonl") for name in ("openmath", "arc", "squad"))
    texts = [chat.math_chat(row) for row in math_rows] + [chat.math_plain(row) for row in math_rows[:8000]]
    texts += [chat.arc_chat(row) for row in arc_rows] + [chat.arc_plain(row) for row in arc_rows]
    texts += [chat.squad_chat(row) for row in squad_rows] + [chat.squad_plain(row) for row in squad_rows[:8000]]
    texts += [chat.math_chat(row) for row in gsm8k[:2500]]
    return texts + paragraphs


def train_tokenizer(texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL_TOKENS), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    return tokenizer


def make_model(architecture, tokenizer):
    shared = dict(
        vocab_size=VOCABULARY, hidden_size=256, num_attention_heads=4, head_dim=64, max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, attention_bias=False, bos_token_id=None,
        eos_token_id=tokenizer.token_to_id("<|im_end|>"), pad_token_id=tokenizer.token_to_id("<|endoftext|>"))
    if architecture == "llama":
        return LlamaForCausalLM(LlamaConfig(
            intermediate_size=640, num_hidden_layers=3, num_key_value_heads=4, tie_word_embeddings=False, **shared))
    return Qwen3ForCausalLM(Qwen3Config(
        intermediate_size=768, num_hidden_layers=4, num_key_value_heads=2, tie_word_embeddings=True, **shared))


def token_stream(tokenizer, texts, seed):
    order = texts[:]
    random.Random(seed).shuffle(order)
    separator = tokenizer.token_to_id("<|endoftext|>")
    ids = []
    for text in order:
        ids += tokenizer.encode(text).ids + [separator]
    return torch.from_numpy(numpy.array(ids, dtype=numpy.int64))


def learning_rate(step, steps):
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return PEAK_LEARNING_RATE * min(1, (step + 1) / WARM_UP_STEPS) * (FINAL_FRACTION + (1 - FINAL_FRACTION) * cosine)


def train(model, tokenizer, texts, steps, seed):
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.05)
    model.train()
    start, position, epoch = time.time(), 0, 0
    ids = token_stream(tokenizer, texts, seed + epoch)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        if position + WINDOW * BATCH + 1 > len(ids):
            epoch, position = epoch + 1, 0
            ids = token_stream(tokenizer, texts, seed + epoch)
        inputs = ids[position:position + WINDOW * BATCH].view(BATCH, WINDOW)
        targets = ids[position + 1:position + WINDOW * BATCH + 1].view(BATCH, WINDOW)
        position += WINDOW * BATCH
        loss = torch.nn.functional.cross_entropy(model(inputs).logits.view(-1, VOCABULARY), targets.reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step} loss {loss.item():.4f} after {time.time() - start:.0f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="DATA_DIR", type=pathlib.Path)
    parser.add_argument("gsm8k", metavar="GSM8K.jsonl")
    parser.add_argument("wikitext", metavar="WIKITEXT2.txt", type=pathlib.Path)
    parser.add_argument("out", metavar="OUT_DIR")
    parser.add_argument("--architecture", choices=("qwen3", "llama"), default="qwen3")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1100)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    random.seed(0)  # the same tokenizer whatever the seed
    torch.set_num_threads(2)
    gsm8k = read_lines(options.gsm8k)
    paragraphs = [line.strip() for line in options.wikitext.read_text(encoding="utf-8").split("\n") if len(line.strip()) > 80]
    texts = documents(options.data, gsm8k, paragraphs)
    sample = random.sample(texts, 20000) + paragraphs + [row["question"] + row["answer"] for row in gsm8k]
    tokenizer = train_tokenizer(sample)
    model = make_model(options.architecture, tokenizer)
    train(model, tokenizer, texts, options.steps, options.seed)
    model.to(torch.bfloat16).save_pretrained(options.out)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"], model_max_length=1024)
    wrapped.chat_template = TEMPLATE
    wrapped.save_pretrained(options.out)


main()
