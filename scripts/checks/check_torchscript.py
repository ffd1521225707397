#!/usr/bin/env python3
"""An exported TorchScript file in plain PyTorch against transformers' logits of the folder that it was made from, in float32.

usage: PYTHON scripts/checks/check_torchscript.py MODEL.pt FOLDER [--bound 2e-3] [--tokens 48], with a Python that has torch and transformers 5.23

FOLDER may be float, AutoAWQ GEMM (its codes are unpacked here, from the format's description, into a float model) or compressed-tensors (read by
transformers, which needs compressed-tensors for it). Compared are forward() of a batch, step() through the cache in pieces, greedy text of both, and
forward() after state_dict(), to() and a second save and load. Exits with 1 where something differs by more than its bound.
"""
import argparse
import json
import os
import pathlib
import sys
import tempfile
import time

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # output channel within eight of each nibble


def unpack_nibbles(words):
    """int32 [rows, columns / 8] -> codes [rows, columns]."""
    channels = torch.empty(words.shape[0], words.shape[1], 8, dtype=torch.int32)
    for nibble, channel in enumerate(AWQ_ORDER):
        channels[:, :, channel] = (words >> (4 * nibble)) & 15
    return channels.flatten(1)


def awq_as_float(folder):
    config = AutoConfig.from_pretrained(folder)
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors.update(load_file(file))
    weights = {name: tensor.float() for name, tensor in tensors.items() if tensor.is_floating_point() and not name.endswith(".scales")}
    for name in [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]:
        codes, zeros, scales = unpack_nibbles(tensors[name + ".qweight"]), unpack_nibbles(tensors[name + ".qzeros"]), tensors[name + ".scales"].float()
        group = codes.shape[0] // scales.shape[0]
        weights[name + ".weight"] = ((codes - zeros.repeat_interleave(group, 0)) * scales.repeat_interleave(group, 0)).t().contiguous()
    missing, unexpected = model.load_state_dict(weights, strict=False)
    missing = [name for name in missing if not (name == "lm_head.weight" and config.tie_word_embeddings)]
    if missing or unexpected:
        sys.exit(f"{folder}: missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    return model


def load_reference(folder):
    quantization = json.loads((folder / "config.json").read_text()).get("quantization_config") or {}
    if quantization.get("quant_method") == "awq":
        return awq_as_float(folder).eval()
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def greedy_reference(model, ids, count):
    for _ in range(count):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
    return ids


def greedy_steps(script, ids, count):
    cache = script.make_cache(ids.shape[0], ids.shape[1] + count)
    position, piece = 0, ids
    for _ in range(count):
        logits = script.step(piece, cache, position)
        position += piece.shape[1]
        piece = logits.argmax(-1, keepdim=True)
        ids = torch.cat([ids, piece], 1)
    return ids


@torch.inference_mode()
def check(arguments):
    """Rows of (what, figure, passed)."""
    started = time.perf_counter()
    extra = {"config.json": "", "salient.json": ""}
    script = torch.jit.load(arguments.file, _extra_files=extra).eval()
    loaded = time.perf_counter() - started
    reference = load_reference(arguments.folder)
    vocabulary = reference.get_input_embeddings().weight.shape[0]
    ids = torch.randint(3, vocabulary, (3, arguments.tokens), generator=torch.Generator().manual_seed(7))
    expected = reference(ids).logits.float()
    about = json.loads(extra["salient.json"])
    yield f"loads in {loaded:.2f} s: {about['model_type']}, {about['quantized_linears']} quantized linears", "", json.loads(extra["config.json"]) != {}

    def compare(what, found, wanted):
        far = (found - wanted).abs().max().item() if found.shape == wanted.shape else float("nan")
        return what, f"{far:.1e}", far < arguments.bound

    logits = script(ids)
    yield compare(f"forward of {list(ids.shape)}, deviation of logits {expected.std():.2f}", logits, expected)
    yield compare("forward of one id", script(ids[:1, :1]), reference(ids[:1, :1]).logits.float())
    cache, position = script.make_cache(3, arguments.tokens), 0
    worst = 0.0
    for count in (arguments.tokens - 7, 1, 1, 5):
        found = script.step(ids[:, position:position + count], cache, position)
        position += count
        worst = max(worst, (found - expected[:, position - 1]).abs().max().item())
    yield "step through the cache", f"{worst:.1e}", worst < arguments.bound
    prompt = ids[:1, :8]
    same = torch.equal(greedy_steps(script, prompt, 24), greedy_reference(reference, prompt, 24))
    yield "24 greedy ids", "the same" if same else "differ", same
    with tempfile.TemporaryDirectory() as folder:
        again = pathlib.Path(folder) / "again.pt"
        torch.jit.save(script.to("cpu"), again)
        yield compare(f"saved again, {len(script.state_dict())} tensors", torch.jit.load(again)(ids), logits)
    # The check itself: a changed weight must show.
    name, tensor = next((n, t) for n, t in script.named_buffers() if n.endswith(("codes", "weight")) and t.dim() == 2)
    tensor[0] = 0
    changed = (script(ids) - expected).abs().max().item()
    yield f"a row of {name} set to 0 shows", f"{changed:.1e}", changed > arguments.bound


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--bound", type=float, default=2e-3, help="largest difference of a logit (default: 2e-3)")
    parser.add_argument("--tokens", type=int, default=48)
    arguments = parser.parse_args()
    failed = False
    for what, figure, passed in check(arguments):
        failed |= not passed
        print(f"{'ok    ' if passed else 'FAILED'} {what:70} {figure}", flush=True)
    sys.exit(1 if failed else 0)


main()
