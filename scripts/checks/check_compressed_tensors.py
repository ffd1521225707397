#!/usr/bin/env python3
"""usage: check_compressed_tensors.py FOLDER [--salient PROGRAM] [--tokens N]

A compressed-tensors folder in transformers with compressed-tensors (CPU, float32) against `salient logits`: as the files say, and with the inputs of linears,
or keys and values, left as computed where the files round them. transformers rounds both while it runs (compressed-tensors' hooks on linears and on the
cache), but only when it is not told to dequantize: then it forgets what was said of activations and the KV cache. Packed zero points it can load only
dequantized (5.23), with products in the scales' dtype; for such a folder the codes are unpacked by compressed-tensors and multiplied in float32 here, and the
hooks put on a float model, from the same configuration.

Rounding is a step: where a sum lies on its edge, the order of additions decides. Such a number changes what follows by a step, so that two correct programs
differ by more than float rounding, but by much less than rounding itself changes. So the mean difference must be at most 5 % of what leaving the rounding
out changes, or twice what the reference itself changes when its embeddings are moved by one part in a million; without rounding the bound is 1e-3
for every logit. (With compressed-tensors' scale, max / 127.5, the largest activation of a token lies on an edge whenever it is negative.) Needs transformers, compressed-tensors.
"""
import argparse
import copy
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy
import torch
import transformers
from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
from safetensors import safe_open

ALL = {"activations": True, "kv_cache": True}


def stored_tensors(folder):
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as handle:
            found |= {name: handle.get_tensor(name) for name in handle.keys()}
    return found


def float_model(folder, tensors):
    """The same weights as floats; of one width and group size."""
    config = transformers.AutoConfig.from_pretrained(folder)
    scheme = next(iter(config.quantization_config["config_groups"].values()))["weights"]
    del config.quantization_config
    weights = {}
    for name, tensor in tensors.items():
        module, part = name.rsplit(".", 1)
        if part == "weight_packed":
            shape = torch.Size(tensors[module + ".weight_shape"].tolist())
            scale = tensors[module + ".weight_scale"].float()
            codes = unpack_from_int32(tensor, scheme["num_bits"], shape).float()
            zeros = unpack_from_int32(tensors[module + ".weight_zero_point"], scheme["num_bits"], torch.Size([shape[0], scale.shape[1]]), packed_dim=0).float()
            wide = [part.repeat_interleave(shape[1] // scale.shape[1], 1) for part in (zeros, scale)]
            weights[module + ".weight"] = (codes - wide[0]) * wide[1]
        elif part == "weight" or part == "bias":
            weights[name] = tensor.float()
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    missing = [name for name in missing if not (name == "lm_head.weight" and config.tie_word_embeddings)]
    if missing or unexpected:
        sys.exit(f"{folder}: missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    return model


def with_hooks(model, tensors, config):
    """Rounding as the configuration says, on a model in float."""
    fields = copy.deepcopy({key: value for key, value in config.items() if key not in ("quant_method", "version", "sparsity_config", "transform_config")})
    for group in fields["config_groups"].values():
        group["weights"] = None  # they are what they are
        group["format"] = None
    fields["format"] = "dense"
    apply_quantization_config(model, QuantizationConfig.model_validate(fields), show_progress=False)
    modules = dict(model.named_modules())
    for name, tensor in tensors.items():
        if name.endswith((".k_scale", ".v_scale")):
            module, parameter = name.rsplit(".", 1)
            getattr(modules[module], parameter).data = tensor.float()
    return model


def load(folder, config):
    asymmetric = any(not group["weights"]["symmetric"] for group in config["config_groups"].values())
    if not asymmetric:
        return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tensors = stored_tensors(folder)
    return with_hooks(float_model(folder, tensors).eval(), tensors, config)


@torch.inference_mode()
def reference(model, ids, activations, kv_cache):
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.quantization_enabled = activations
        elif hasattr(module, "kv_cache"):
            module.quantization_enabled = kv_cache
    return model(torch.tensor([ids])).logits[0].float()


def sensitivity(model, ids, activations, kv_cache, expected):
    """Mean change of the reference's logits for inputs that differ in their last bits."""
    embedding = model.get_input_embeddings()
    noise = 1 + 1e-6 * torch.randn(model.config.hidden_size, generator=torch.Generator().manual_seed(1))
    hook = embedding.register_forward_hook(lambda module, inputs, output: output * noise)
    changed = reference(model, ids, activations, kv_cache)
    hook.remove()
    return (changed - expected).abs().mean().item()


def ours(program, folder, ids, activations, kv_cache):
    with tempfile.TemporaryDirectory() as work:
        out = pathlib.Path(work) / "logits.npy"
        options = ([] if activations else ["--activation-bits", "16"]) + ([] if kv_cache else ["--kv-bits", "16"])
        subprocess.run([program, "logits", "--model", folder, "--ids", ",".join(map(str, ids)), "--out", out, *options], check=True)
        return torch.from_numpy(numpy.load(out))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--salient", default="build/release/salient")
    parser.add_argument("--tokens", type=int, default=64)
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    config = json.loads((arguments.folder / "config.json").read_text())["quantization_config"]
    says = {"activations": any(group.get("input_activations") for group in config["config_groups"].values()), "kv_cache": bool(config.get("kv_cache_scheme"))}
    model = load(arguments.folder, config)
    ids = torch.randint(3, model.config.vocab_size, (arguments.tokens,), generator=torch.Generator().manual_seed(7)).tolist()
    exact = reference(model, ids, False, False)
    passed = True
    for activations in sorted({False, says["activations"]}):
        for kv_cache in sorted({False, says["kv_cache"]}):
            expected = reference(model, ids, activations, kv_cache)
            difference = (ours(arguments.salient, arguments.folder, ids, activations, kv_cache) - expected).abs()
            effect = (expected - exact).abs().mean().item()
            rounded = activations or kv_cache
            own = sensitivity(model, ids, activations, kv_cache, expected)
            good = difference.mean().item() <= max(0.05 * effect, 2 * own) and effect > 0 if rounded else difference.max().item() <= 1e-3
            passed &= good
            print(f"{'ok' if good else 'FAILED':6} a{8 if activations else 16} kv{8 if kv_cache else 16}: mean difference {difference.mean():.1e}, largest "
                  f"{difference.max():.1e}; what rounding changes: mean {effect:.1e}; the reference's own: {own:.1e}; logits' deviation {expected.std():.2f}")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
