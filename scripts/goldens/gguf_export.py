"""Writes tests/data/gguf_export/*.json: what llama.cpp itself makes of small models.

    python gguf_export.py --llama-cpp CHECKOUT [--out tests/data/gguf_export]

CHECKOUT is a source tree of llama.cpp (its converter is Python); llama-cpp-python's package in the same version must be importable.

  converted.json  for cases of tests/data/architectures: metadata and tensors that convert_hf_to_gguf.py gives, tensors as shape and SHA-256 of their
                  float32 values (values themselves where they follow from config.json)
  mixtures.json   the type of each tensor after llama_model_quantize, for each file type
"""

import argparse
import ctypes
import hashlib
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
CASES = [
    ("llama", "default"), ("llama", "rope_llama3"), ("llama", "rope_linear_old"), ("llama", "rope_yarn"), ("llama", "tied_bias_old"),
    ("mistral", "default"), ("mixtral", "default"), ("qwen2", "default"), ("qwen2_moe", "default"), ("qwen3", "tied"), ("qwen3_moe", "default"),
    ("phi3", "longrope"), ("gemma", "default"), ("gemma2", "old"), ("granite", "tied_bias"), ("olmo2", "default"), ("starcoder2", "default"),
    ("seed_oss", "default"), ("arcee", "default"),
]
MADE = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


def golden_tensor(name, shape, offset, scale):
    """As tests/support/golden_checkpoint.h makes it."""
    seed = 14695981039346656037
    for byte in name.encode():
        seed = ((seed ^ byte) * 1099511628211) & (2**64 - 1)
    x = np.uint64(seed) + np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    unit = ((x >> np.uint64(40)).astype(np.int64) - (1 << 23)) / float(1 << 23)
    return (offset + scale * unit).astype(np.float32).reshape(shape)


def read_gguf(path):
    from gguf import GGUFReader, GGUFValueType

    reader = GGUFReader(path)
    pairs = {}
    for key, field in reader.fields.items():
        if key.startswith("GGUF."):
            continue
        pairs[key] = [GGUFValueType(field.types[0]).name, field.contents()]
    return reader, pairs


def convert(checkout, model_type, name, scratch):
    import torch
    from safetensors.torch import save_file

    sys.path[:0] = [str(checkout), str(checkout / "gguf-py")]
    import gguf
    from conversion import get_model_class
    from conversion.base import ModelBase

    file = json.loads((ROOT / "tests/data/architectures" / f"{model_type}.json").read_text())
    case = next(case for case in file["cases"] if case["name"] == name)
    folder = scratch / f"{model_type}_{name}"
    folder.mkdir()
    save_file({t[0]: torch.tensor(golden_tensor(*t)) for t in case["tensors"]}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(case["config"]))
    hparams = ModelBase.load_hparams(folder, False)
    model_class = get_model_class(hparams["architectures"][0])
    model_class.set_vocab = lambda self: None  # these models have no tokenizer
    out = folder / "out.gguf"
    with torch.inference_mode():
        model_class(folder, gguf.LlamaFileType.ALL_F32, out).write()
    reader, pairs = read_gguf(out)
    tensors = {}
    for tensor in reader.tensors:
        values = np.ascontiguousarray(tensor.data, dtype=np.float32)
        shape = [int(size) for size in reversed(tensor.shape)]
        entry = {"shape": shape}
        if tensor.name in MADE:
            entry["values"] = [float(v) for v in values.reshape(-1)]
        else:
            entry["sha256"] = hashlib.sha256(values.tobytes()).hexdigest()[:16]
        tensors[tensor.name] = entry
    kept = {key: value for key, value in pairs.items() if key == "general.architecture" or not key.startswith("general.")}
    return {"model_type": model_type, "case": name, "metadata": kept, "tensors": tensors}


# Shapes for the mixtures: config.json's keys, so that the tests plan the tensors from the same.
MODELS = {
    "llama_16": dict(model_type="llama", num_hidden_layers=16, hidden_size=256, intermediate_size=256, num_attention_heads=4, num_key_value_heads=2),
    "llama_tied_narrow": dict(model_type="llama", num_hidden_layers=12, hidden_size=64, intermediate_size=256, num_attention_heads=4,
                              num_key_value_heads=4, tie_word_embeddings=True),
    "llama_odd": dict(model_type="llama", num_hidden_layers=9, hidden_size=256, intermediate_size=80, num_attention_heads=4, num_key_value_heads=2),
    "llama_80": dict(model_type="llama", num_hidden_layers=80, hidden_size=256, intermediate_size=64, num_attention_heads=2, num_key_value_heads=1),
    "mixtral_8": dict(model_type="mixtral", num_hidden_layers=8, hidden_size=256, intermediate_size=256, num_attention_heads=4, num_key_value_heads=2,
                      num_local_experts=8, num_experts_per_tok=2),
    "phi3_8": dict(model_type="phi3", num_hidden_layers=8, hidden_size=256, intermediate_size=256, num_attention_heads=4, num_key_value_heads=4),
}
FILE_TYPES = {"gguf-q8_0": 7, "gguf-q4_0": 2, "gguf-q4_k_s": 14, "gguf-q4_k_m": 15, "gguf-q5_k_m": 17, "gguf-q6_k": 18, "gguf-f16": 1, "gguf-bf16": 32}
VOCAB = 32


def write_model(path, config):
    from gguf import GGUFWriter

    arch = "phi3" if config["model_type"] == "phi3" else "llama"
    hidden, ffn, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    heads, kv_heads, experts = config["num_attention_heads"], config["num_key_value_heads"], config.get("num_local_experts", 0)
    head = hidden // heads
    writer = GGUFWriter(path, arch)
    writer.add_context_length(64)
    writer.add_embedding_length(hidden)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(VOCAB)
    writer.add_rope_dimension_count(head)
    if arch == "phi3":
        writer.add_sliding_window(0)
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_tokenizer_model("none")
    rng = np.random.default_rng(1)

    def add(name, *shape):
        writer.add_tensor(name, rng.standard_normal(shape, dtype=np.float32) * 0.02)

    add("token_embd.weight", VOCAB, hidden)
    add("output_norm.weight", hidden)
    if not config.get("tie_word_embeddings"):
        add("output.weight", VOCAB, hidden)
    for i in range(layers):
        b = f"blk.{i}."
        add(b + "attn_norm.weight", hidden)
        add(b + "ffn_norm.weight", hidden)
        if arch == "phi3":
            add(b + "attn_qkv.weight", hidden + 2 * kv_heads * head, hidden)
        else:
            add(b + "attn_q.weight", hidden, hidden)
            add(b + "attn_k.weight", kv_heads * head, hidden)
            add(b + "attn_v.weight", kv_heads * head, hidden)
        add(b + "attn_output.weight", hidden, hidden)
        if experts:
            add(b + "ffn_gate_inp.weight", experts, hidden)
            add(b + "ffn_gate_exps.weight", experts, ffn, hidden)
            add(b + "ffn_up_exps.weight", experts, ffn, hidden)
            add(b + "ffn_down_exps.weight", experts, hidden, ffn)
        else:
            if arch != "phi3":
                add(b + "ffn_gate.weight", ffn, hidden)
            add(b + "ffn_up.weight", 2 * ffn if arch == "phi3" else ffn, hidden)
            add(b + "ffn_down.weight", hidden, ffn)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantize(name, config, scratch):
    import llama_cpp

    source = scratch / f"{name}.gguf"
    write_model(source, config)
    types = {}
    for fmt, file_type in FILE_TYPES.items():
        target = scratch / f"{name}.{fmt}.gguf"
        params = llama_cpp.llama_model_quantize_default_params()
        params.ftype = file_type
        params.nthread = 1
        if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)) != 0:
            raise SystemExit(f"{name} {fmt}: llama_model_quantize failed")
        reader, pairs = read_gguf(target)
        assert pairs["general.file_type"][1] == file_type
        types[fmt] = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
        target.unlink()
    # Only what is not the most frequent type, to keep the file small.
    compact = {}
    for fmt, by_name in types.items():
        names = list(by_name.values())
        plain = max(set(names), key=names.count)
        compact[fmt] = {"plain": plain, "others": {tensor: kind for tensor, kind in by_name.items() if kind != plain}}
    return {"config": dict(config, vocab_size=VOCAB, max_position_embeddings=64, **({"original_max_position_embeddings": 64} if config["model_type"] == "phi3" else {})),
            "types": compact}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-cpp", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=ROOT / "tests/data/gguf_export")
    parser.add_argument("--only", choices=["converted", "mixtures"])
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if args.only != "mixtures":
            cases = [convert(args.llama_cpp, *case, scratch) for case in CASES]
            (args.out / "converted.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
        if args.only != "converted":
            models = {name: quantize(name, config, scratch) for name, config in MODELS.items()}
            (args.out / "mixtures.json").write_text("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in models.items()) + "\n}\n")


if __name__ == "__main__":
    main()
