#!/usr/bin/env python3
"""usage: scripts/goldens/compressed_checkpoints.py  -- writes tests/data/compressed/<case>/ and tests/data/compressed/quantization_configs.json

Tiny Llama checkpoints compressed by compressed-tensors 0.20.0 and read back by transformers 5.23 (CPU, float32). A folder holds config.json, model.safetensors,
and logits.json: {"ids": [...], "logits": [[...] of every position]}, computed from what transformers loads. Where activations or the KV cache are quantized
too, "without_activations", "without_kv_cache" and "neither" are the logits when that is left out.

quantization_configs.json: configurations that compressed-tensors accepts, and with them, by its own matching of names, every module gets the scheme that
"modules" says (bits, group size, zero points); "float_modules" get none.
"""
import json
import pathlib
import shutil
import sys
import tempfile

import torch
import transformers
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.modeling import register_key_hook, register_value_hook
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme, apply_quantization_config
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import load_file, save_file

ROOT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "compressed"
SHAPE = dict(vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
             max_position_embeddings=64, dtype="float32", bos_token_id=1, eos_token_id=2, pad_token_id=0)
IDS = [1, 40, 7, 13, 62, 5, 33, 28, 50]


def weights(bits, group, symmetric):
    kind = {"strategy": "channel"} if group == -1 else {"strategy": "group", "group_size": group}
    return QuantizationArgs(num_bits=bits, symmetric=symmetric, **kind)


def scheme(targets, *setting, activations=None):
    return QuantizationScheme(targets=targets, weights=weights(*setting), input_activations=activations, format="pack-quantized")


EACH_TOKEN = QuantizationArgs(num_bits=8, symmetric=True, strategy="token", dynamic=True)
KV_CACHE = {"w4_a8_kv8": QuantizationArgs(num_bits=8, symmetric=True, strategy="tensor", dynamic=False)}

# case: (groups, ignore, tied)
CASES = {
    "w4_asym": ({"group_0": scheme(["Linear"], 4, 32, False)}, ["lm_head"], False),
    "w4_sym_channel": ({"group_0": scheme(["Linear"], 4, -1, True)}, ["lm_head"], True),
    "w3_sym": ({"group_0": scheme(["Linear"], 3, 32, True)}, ["lm_head"], False),
    "w4_a8_kv8": ({"group_0": scheme(["Linear"], 4, 32, True, activations=EACH_TOKEN)}, ["lm_head"], False),
    "mixed_head": ({"group_0": scheme(["re:.*self_attn.*"], 3, 16, False), "group_1": scheme(["re:.*gate_proj", "re:.*up_proj"], 5, 32, False),
                    "group_2": scheme(["model.layers.0.mlp.down_proj"], 6, 48, True), "group_3": scheme(["model.layers.1.mlp.down_proj"], 2, 96, False),
                    "group_4": scheme(["lm_head"], 8, -1, True)}, [], False),
}


def quantize(model):
    for module in model.modules():
        args = getattr(getattr(module, "quantization_scheme", None), "weights", None)
        if args is None:
            continue
        weight = module.weight.data
        group = weight.shape[1] if args.strategy == "channel" else args.group_size
        grouped = weight.view(weight.shape[0], -1, group)
        scale, zero = calculate_qparams(grouped.amin(2), grouped.amax(2), args)
        module.weight_scale.data = scale.half().float()
        if not args.symmetric:
            module.weight_zero_point.data = zero.to(module.weight_zero_point.dtype)


def calibrate_kv_cache(model):
    """k_scale and v_scale from the largest magnitude that the ids give."""
    attentions = [layer.self_attn for layer in model.model.layers]
    largest = {}

    def keep(kind):
        def hook(module, states):
            largest[module, kind] = states.abs().max()
        return hook

    hooks = [register(attention, keep(kind)) for attention in attentions
             for kind, register in (("k_scale", register_key_hook), ("v_scale", register_value_hook))]
    for attention in attentions:
        attention.quantization_enabled = False
    with torch.no_grad():
        model(torch.tensor([IDS]))
    for hook in hooks:
        hook.remove()
    for attention in attentions:
        attention.quantization_enabled = True
    for (module, kind), value in largest.items():
        getattr(module, kind).data.fill_((value / 127.5).half().float())


def logits_without(model, activations, kv_cache):
    """What the model gives when the inputs of linears, or keys and values, are not rounded."""
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.quantization_enabled = not activations
        elif hasattr(module, "quantization_scheme"):
            module.quantization_enabled = not kv_cache
    with torch.no_grad():
        return model(torch.tensor([IDS])).logits[0].float()


def make(name):
    groups, ignore, tied = CASES[name]
    torch.manual_seed(3 if name == "mixed_head" else list(CASES).index(name))
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE, tie_word_embeddings=tied)).eval()
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data.normal_(0, 0.15)
        parameter.data = parameter.data.half().float()  # stored in half the room
    apply_quantization_config(model, QuantizationConfig(config_groups=groups, format="pack-quantized", ignore=ignore, kv_cache_scheme=KV_CACHE.get(name)))
    quantize(model)
    if name in KV_CACHE:
        calibrate_kv_cache(model)
    compressor = ModelCompressor.from_pretrained_model(model, None if name in KV_CACHE else "pack-quantized")  # would be forced on attention modules, too
    compressor.compress_model(model)
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary)
        compressor.update_config(temporary)
        folder = ROOT / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        tensors = load_file(pathlib.Path(temporary) / "model.safetensors")
        save_file({key: value.half() if value.is_floating_point() else value for key, value in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
        config = json.loads((pathlib.Path(temporary) / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
        # What transformers makes of it, with scales in float32: it multiplies codes and scales in their dtype. It dequantizes with the first scheme only, and
        # without dequantize cannot load packed zero points, not even those that it wrote.
        read = None
        if len(groups) == 1:
            # Dequantized, it forgets what was said of activations and the KV cache.
            options = {} if name in KV_CACHE else {"quantization_config": transformers.CompressedTensorsConfig(dequantize=True)}
            read = transformers.AutoModelForCausalLM.from_pretrained(temporary, dtype=torch.float32, **options).eval()
    compressor.decompress_model(model)
    with torch.no_grad():
        logits = model(torch.tensor([IDS])).logits[0].float()
        assert read is None or torch.equal(read(torch.tensor([IDS])).logits[0], logits)
    assert logits.isfinite().all() and 0.3 < logits.std() < 10, logits.std()
    written = {"logits": logits}
    if name in KV_CACHE:
        written |= {"without_activations": logits_without(model, True, False), "without_kv_cache": logits_without(model, False, True),
                    "neither": logits_without(model, True, True)}
        for key, value in written.items():
            print(key, f"mean difference {(value - logits).abs().mean():.1e}")
    rounded = {key: [[round(v, 5) for v in row] for row in value.tolist()] for key, value in written.items()}
    (folder / "logits.json").write_text(json.dumps({"ids": IDS, **rounded}) + "\n")
    print(name, f"std {logits.std():.2f}", sorted(set(k.rsplit(".", 1)[1] for k in tensors)))


def setting(bits, group, zero_point):
    return {"bits": bits, "group_size": group, "zero_point": zero_point}


def group(targets, bits, size, zero_point):
    return {"targets": targets, "input_activations": None, "output_activations": None, "format": "pack-quantized",
            "weights": {"num_bits": bits, "type": "int", "symmetric": not zero_point, "strategy": "channel" if size == -1 else "group",
                        "group_size": None if size == -1 else size, "block_structure": None, "actorder": None, "dynamic": False}}


def whole(groups, ignore):
    return {"quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed", "version": "0.20.0",
            "config_groups": groups, "ignore": ignore, "kv_cache_scheme": None, "global_compression_ratio": None}


class Tree(torch.nn.Module):
    """Linears by their dotted names."""

    def __init__(self, names):
        super().__init__()
        for name in names:
            parent = self
            *path, last = name.split(".")
            for part in path:
                if part not in parent._modules:
                    parent.add_module(part, torch.nn.Module())
                parent = parent._modules[part]
            parent.add_module(last, torch.nn.Linear(96, 96))


def config_cases():
    attention = [f"model.layers.{i}.self_attn.{p}_proj" for i in (0, 1, 10) for p in "qko"]
    experts = [f"model.layers.{i}.mlp.experts.{e}.up_proj" for i in (1, 10) for e in range(12)]
    uniform = {name: setting(4, 32, True) for name in attention}
    yield uniform, ["model.layers.1.mlp.gate"], whole({"group_0": group(["Linear"], 4, 32, True)}, ["model.layers.1.mlp.gate", "lm_head"])
    channel = {name: setting(3, -1, False) for name in attention}
    yield channel, [], whole({"group_0": group(["Linear"], 3, -1, False)}, ["lm_head"])
    mixed = {name: setting(4, 32, True) for name in experts} | {name: setting(3, 32, True) for name in attention}
    mixed["model.layers.10.mlp.experts.3.up_proj"] = setting(6, 32, True)
    mixed["lm_head"] = setting(8, -1, False)
    apart = sorted(name for name in experts if name.startswith("model.layers.10.") and "experts.3." not in name)
    groups = {"group_0": group([r"re:model\.layers\.1\.mlp\.experts\.\d+\.up_proj$"] + apart, 4, 32, True), "group_1": group(sorted(attention), 3, 32, True),
              "group_2": group(["model.layers.10.mlp.experts.3.up_proj"], 6, 32, True), "group_3": group(["lm_head"], 8, -1, False)}
    ignore = [r"re:(.*\.)?visual\..*", "model.layers.1.mlp.gate"]
    yield mixed, ignore, whole(groups, ignore)


def checked(modules, float_modules, config):
    unquantized = [name for name in float_modules if not name.startswith("re:")] + ["model.visual.blocks.0.attn.qkv"] * any("visual" in n for n in float_modules)
    tree = Tree([*modules, *unquantized])
    fields = {key: value for key, value in config.items() if key not in ("quant_method", "version")}
    apply_quantization_config(tree, QuantizationConfig.model_validate(fields))
    for name, module in tree.named_modules():
        found = getattr(module, "quantization_scheme", None)
        if name in modules:
            args, wanted = found.weights, modules[name]
            size = -1 if args.strategy == "channel" else args.group_size
            assert setting(args.num_bits, size, not args.symmetric) == wanted, (name, args, wanted)
        else:
            assert found is None, name
    return {"modules": modules, "float_modules": float_modules, "config": config}


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    for chosen in sys.argv[1:] or CASES:
        make(chosen)
    ROOT.joinpath("quantization_configs.json").write_text(json.dumps([checked(*case) for case in config_cases()], indent=1) + "\n")
