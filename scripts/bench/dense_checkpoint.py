"""Writes the weights that a peer's quantized model computes with as an ordinary float32 checkpoint, for peer_runs.py."""
import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file


def write_dense(source, out, tensors):
    """`tensors` by their Hugging Face names; configuration and tokenizer are those of the folder `source`."""
    source, out = pathlib.Path(source), pathlib.Path(out)
    out.mkdir(parents=True)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    for key in ("dtype", "torch_dtype"):
        if key in config:
            config[key] = "float32"
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"):
        if (source / name).exists():
            shutil.copyfile(source / name, out / name)
    if config.get("tie_word_embeddings"):
        tensors = {name: tensor for name, tensor in tensors.items() if name != "lm_head.weight"}
    tensors = {name: tensor.detach().to(torch.float32).contiguous() for name, tensor in tensors.items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
