"""Writes tests/data/gguf/models.json: small GGUF files, described by what is in them, and the logits that transformers computes from them.

    python gguf_models.py [--out tests/data/gguf/models.json]

transformers reads GGUF files by itself: metadata, names, the order of rows, and dequantization through the gguf package. The bytes of every tensor
follow from its name (tests/support/golden_checkpoint.h), so that the test can write the same file without storing it.
"""

import argparse
import json
import tempfile
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from gguf_export import golden_tensor

ROOT = Path(__file__).resolve().parents[2]
Q = gguf.GGMLQuantizationType
VOCAB, TOKENS = 32, [3, 31, 0, 17, 8, 8, 25]
# Where float16 scales stand in a block, and what they are: random codes then give values of about 0.1.
SCALES = {"Q4_0": [(0, 2**-6)], "Q5_1": [(0, 2**-7), (2, -(2**-3))], "Q8_0": [(0, 2**-10)], "Q4_K": [(0, 2**-11), (2, 2**-8)],
          "Q5_K": [(0, 2**-12), (2, 2**-8)], "Q6_K": [(208, 2**-14)]}
# What transformers does not take from the file.
NOT_READ = {"qwen3moe": dict(moe_intermediate_size=32, norm_topk_prob=True)}


def golden_bytes(name, count):
    """As tests/models/gguf_checkpoint_test.cpp makes them."""
    seed = 14695981039346656037
    for byte in name.encode():
        seed = ((seed ^ byte) * 1099511628211) & (2**64 - 1)
    x = np.uint64(seed) + np.arange(count, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(40)).astype(np.uint8)


def stored(name, kind, shape):
    """The tensor's bytes as the GGUF package wants them."""
    if kind in ("F32", "F16", "BF16"):
        vector = len(shape) == 1
        values = golden_tensor(name, shape, 1.0 if vector else 0.0, 0.3 if vector else 0.2)
        if kind == "BF16":
            return gguf.quants.quantize(values, Q.BF16)
        return values.astype(np.float16 if kind == "F16" else np.float32)
    elements, size = gguf.GGML_QUANT_SIZES[Q[kind]]
    row = shape[-1] // elements * size
    blocks = golden_bytes(name, int(np.prod(shape[:-1])) * row).reshape(-1, size)
    for offset, scale in SCALES[kind]:
        blocks[:, offset : offset + 2] = np.frombuffer(np.float16(scale).tobytes(), dtype=np.uint8)
    return blocks.reshape(*shape[:-1], row)


def attention(i, hidden, heads, kv_heads, head, types, norms=False):
    q, k, v, o = types
    b = f"blk.{i}."
    rows = [(b + "attn_norm.weight", "F32", [hidden]), (b + "attn_q.weight", q, [heads * head, hidden]), (b + "attn_k.weight", k, [kv_heads * head, hidden]),
            (b + "attn_v.weight", v, [kv_heads * head, hidden]), (b + "attn_output.weight", o, [hidden, heads * head])]
    if norms:
        rows += [(b + "attn_q_norm.weight", "F32", [head]), (b + "attn_k_norm.weight", "F32", [head])]
    return rows


def mlp(i, hidden, ffn, types):
    gate, up, down = types
    b = f"blk.{i}."
    return [(b + "ffn_norm.weight", "F32", [hidden]), (b + "ffn_gate.weight", gate, [ffn, hidden]), (b + "ffn_up.weight", up, [ffn, hidden]),
            (b + "ffn_down.weight", down, [hidden, ffn])]


def sizes(arch, hidden, ffn, layers, heads, kv_heads, head, extra=()):
    pairs = [("context_length", "u32", 64), ("embedding_length", "u32", hidden), ("block_count", "u32", layers), ("feed_forward_length", "u32", ffn),
             ("attention.head_count", "u32", heads), ("attention.head_count_kv", "u32", kv_heads), ("attention.key_length", "u32", head),
             ("attention.value_length", "u32", head), ("attention.layer_norm_rms_epsilon", "f32", 1e-5), ("rope.freq_base", "f32", 50000.0),
             ("vocab_size", "u32", VOCAB), *extra]
    return [(f"{arch}.{key}", kind, value) for key, kind, value in pairs]


def cases():
    hidden, ffn, heads, kv_heads, head = 256, 256, 4, 2, 64
    outer = [("token_embd.weight", "Q6_K", [VOCAB, hidden]), ("output_norm.weight", "F32", [hidden])]
    head_row = [("output.weight", "Q8_0", [VOCAB, hidden])]
    yield ("llama", "llama_k", sizes("llama", hidden, ffn, 2, heads, kv_heads, head, [("rope.dimension_count", "u32", head)]),
           outer + head_row
           + attention(0, hidden, heads, kv_heads, head, ("Q4_K", "Q5_K", "Q6_K", "Q4_K")) + mlp(0, hidden, ffn, ("Q4_K", "Q4_K", "Q6_K"))
           + attention(1, hidden, heads, kv_heads, head, ("Q4_0", "Q8_0", "Q5_1", "Q4_0")) + mlp(1, hidden, ffn, ("Q4_0", "Q5_1", "Q8_0")))
    yield ("qwen3", "qwen3_tied_floats", sizes("qwen3", 64, 96, 1, 2, 1, 128),  # transformers takes no other head size from qwen3 files
           [("token_embd.weight", "F16", [VOCAB, 64]), ("output_norm.weight", "F32", [64])]
           + attention(0, 64, 2, 1, 128, ("F16", "BF16", "F32", "BF16"), norms=True) + mlp(0, 64, 96, ("F16", "BF16", "F32")))
    experts, expert = 4, 32
    yield ("qwen3moe", "qwen3_moe",
           sizes("qwen3moe", 64, 96, 1, 4, 2, 32, [("expert_count", "u32", experts), ("expert_used_count", "u32", 2), ("expert_feed_forward_length", "u32", expert)]),
           [("token_embd.weight", "Q8_0", [VOCAB, 64]), ("output_norm.weight", "F32", [64]), ("output.weight", "F16", [VOCAB, 64])]
           + attention(0, 64, 4, 2, 32, ("Q8_0", "Q8_0", "Q5_1", "Q4_0"), norms=True)
           + [("blk.0.ffn_norm.weight", "F32", [64]), ("blk.0.ffn_gate_inp.weight", "F32", [experts, 64]), ("blk.0.ffn_gate_exps.weight", "Q4_0", [experts, expert, 64]),
              ("blk.0.ffn_up_exps.weight", "Q5_1", [experts, expert, 64]), ("blk.0.ffn_down_exps.weight", "Q8_0", [experts, 64, expert])])


def write(path, arch, pairs, tensors):
    writer = gguf.GGUFWriter(path, arch)
    add = {"u32": writer.add_uint32, "f32": writer.add_float32}
    for key, kind, value in pairs:
        add[kind](key, value)
    for name, kind, shape in tensors:
        writer.add_tensor(name, stored(name, kind, shape), raw_dtype=Q[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=ROOT / "tests/data/gguf/models.json")
    out = parser.parse_args().out
    written = []
    for arch, name, pairs, tensors in cases():
        with tempfile.TemporaryDirectory() as scratch:
            write(Path(scratch) / "m.gguf", arch, pairs, tensors)
            model = transformers.AutoModelForCausalLM.from_pretrained(scratch, gguf_file="m.gguf", dtype=torch.float32, attn_implementation="eager",
                                                                     **NOT_READ.get(arch, {})).eval()
        with torch.inference_mode():
            logits = model(torch.tensor([TOKENS])).logits[0]
        print(name, model.config.model_type, tuple(logits.shape), float(logits.std()))
        written.append({"name": name, "architecture": arch, "metadata": pairs, "tensors": tensors, "ids": TOKENS,
                        "logits": [[float(f"{v:.6g}") for v in row] for row in logits.tolist()]})
    text = json.dumps({"transformers": transformers.__version__, "scales": SCALES, "cases": "@"}).replace(
        '"@"', "[\n" + ",\n".join(json.dumps(case) for case in written) + "\n]")
    out.write_text(text + "\n")


if __name__ == "__main__":
    main()
