"""GGUF files and the importance matrix as the Python package gguf reads them."""
import importlib.metadata
import json
import sys

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import artifacts
import rows

SUMS_BOUND = 1e-4  # of the largest sum of a tensor: Salient's activations are float32, the reference's float64


def layout(path):
    text = rows.run([sys.executable, rows.ROOT / "scripts/checks/check_gguf_reader.py", path])
    return text.splitlines()[0].rsplit(": ", 1)[-1] + ", all values finite", text.splitlines()[-1] == "fine"


@torch.inference_mode()
def sums_of_squares(folder, texts):
    """By GGUF name: sum of squares of each input channel of each linear over all tokens, in float64; and the number of tokens."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval(), AutoTokenizer.from_pretrained(folder)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, model.config.num_hidden_layers)
    sums, tokens = {}, 0
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            def add(_, inputs, key=names.get_name(name) + ".weight"):
                sums[key] = sums.get(key, 0) + inputs[0].square().sum((0, 1))
            module.register_forward_pre_hook(add)
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        tokens += len(ids)
        model(torch.tensor([ids]))
    return {name: total.numpy() for name, total in sums.items()}, tokens


def imatrix(table):
    path, folder = table.artifacts.path("imatrix"), table.artifacts.path("smoothed")
    lines = (artifacts.DEMO / "data/calib_mixed.jsonl").read_text(encoding="utf-8").splitlines()[:artifacts.IMATRIX_ROWS]
    expected, tokens = sums_of_squares(folder, [json.loads(line)["text"] for line in lines])
    reader = gguf.GGUFReader(path)
    if reader.fields["general.type"].contents() != "imatrix":
        return f"general.type is {reader.fields['general.type'].contents()!r}", False
    stored = {tensor.name: np.array(tensor.data, np.float64).reshape(-1) for tensor in reader.tensors}
    missing = [name for name in expected if f"{name}.in_sum2" not in stored or f"{name}.counts" not in stored]
    if missing:
        return f"{len(missing)} tensors missing, such as {missing[0]}", False
    if any(stored[f"{name}.counts"].max() != tokens for name in expected):
        return f"counts are not {tokens}", False
    worst = max(rows.relative(stored[f"{name}.in_sum2"], sums) for name, sums in expected.items())
    return f"{worst:.1e} (bound {SUMS_BOUND:g}), {len(expected)} tensors, {tokens} tokens", worst < SUMS_BOUND


def main():
    table = rows.Rows(__doc__, importlib.metadata.version("gguf"))
    torch.set_num_threads(table.threads)
    for name in artifacts.GGUF_FORMATS:
        table.check(name, "layout of the file, values of all tensors", lambda: layout(table.artifacts.path(name)))
    table.check("imatrix.gguf", "sums of squares against transformers in float64", lambda: imatrix(table))
    sys.exit(table.exit_status())


main()
