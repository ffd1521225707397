"""Folders in AutoAWQ's GEMM layout as float32 weights, through AutoAWQ's own unpacking function, for measure_artifacts.py and scripts/checks."""
import importlib.util
import json
import pathlib

from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM


def load_packing_utils(path):
    """The module at `path` (tool_runs.packing_utils_of), loaded without importing AutoAWQ."""
    spec = importlib.util.spec_from_file_location("packing_utils", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def unpack(folder, packing):
    """The tensors of a folder with their packed weights in float32; the divisors of activations apart from them, by module."""
    folder, stored = pathlib.Path(folder), {}
    for file in sorted(folder.glob("*.safetensors")):
        stored.update(load_file(file))
    quantization = json.loads((folder / "config.json").read_text())["quantization_config"]
    weights, divisors = {}, {}
    for name, tensor in stored.items():
        stem, _, kind = name.rpartition(".")
        if kind == "qweight":
            dense = packing.dequantize_gemm(tensor, stored[f"{stem}.qzeros"], stored[f"{stem}.scales"].float(), quantization["bits"],
                                            quantization["group_size"])
            weights[f"{stem}.weight"] = dense.t().contiguous().float()
        elif kind == "scales" and f"{stem}.qweight" not in stored:
            divisors[stem] = tensor.float()
        elif kind not in ("qzeros", "scales"):
            weights[name] = tensor.float()
    return weights, divisors


def load_unpacked(folder, packing):
    """transformers' model with these weights. Divisors of activations are not applied."""
    weights, _ = unpack(folder, packing)
    config = AutoConfig.from_pretrained(folder)
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config).float()
    missing, unexpected = model.load_state_dict(weights, strict=False)
    missing = [name for name in missing if not (name == "lm_head.weight" and config.tie_word_embeddings)]
    if missing or unexpected:
        raise RuntimeError(f"{folder}: tensors missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    return model.eval()
