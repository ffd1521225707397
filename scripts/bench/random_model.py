#!/usr/bin/env python3
"""A model of random weights in a known shape, to measure speed, memory and load time with: as an artifact in AutoAWQ's GEMM layout, or as the float16
checkpoint of the same weights.

usage: random_model.py SHAPE FOLDER [--float] [--blocks N] [--vocabulary N] [--seed N] [--tokenizer FOLDER]
  SHAPE         qwen3-0.6b (vocabulary of 4096 unless --vocabulary says otherwise) or llama-3-8b
  FOLDER        a new one: configuration, shards of at most 4 GB, tokenizer
  --tokenizer   the folder whose tokenizer is copied (default models/demo): texts then have ids below its vocabulary

No float model is made on the way: codes are drawn, and a tensor at a time is in memory. Needs NumPy.
"""
import argparse
import json
import pathlib
import shutil
import struct

import numpy

ROOT = pathlib.Path(__file__).resolve().parents[2]
GROUP = 128
SHARD_BYTES = 4 * 10**9
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # nibble of a word -> its output channel: quant/awq_gemm.h
NAMES = {numpy.dtype("int32"): "I32", numpy.dtype("float16"): "F16"}
SHAPES = {
    "qwen3-0.6b": dict(architectures=["Qwen3ForCausalLM"], model_type="qwen3", num_hidden_layers=28, hidden_size=1024, intermediate_size=3072,
                       num_attention_heads=16, num_key_value_heads=8, head_dim=128, vocab_size=4096, rope_theta=1000000.0, tie_word_embeddings=True),
    "llama-3-8b": dict(architectures=["LlamaForCausalLM"], model_type="llama", num_hidden_layers=32, hidden_size=4096, intermediate_size=14336,
                       num_attention_heads=32, num_key_value_heads=8, head_dim=128, vocab_size=128256, rope_theta=500000.0, tie_word_embeddings=False),
}


def linears(config):
    """(name, input features, output features) of a block."""
    hidden, head = config["hidden_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    return [("self_attn.q_proj", hidden, queries), ("self_attn.k_proj", hidden, keys), ("self_attn.v_proj", hidden, keys),
            ("self_attn.o_proj", queries, hidden), ("mlp.gate_proj", hidden, config["intermediate_size"]), ("mlp.up_proj", hidden, config["intermediate_size"]),
            ("mlp.down_proj", config["intermediate_size"], hidden)]


def random_linear(seed, inputs, outputs):
    """AutoAWQ's tensors of one linear. Weights have a deviation of about 1 / sqrt(inputs), so that values neither grow nor vanish from block to block."""
    random = numpy.random.default_rng(seed)
    groups = inputs // GROUP
    weight = random.integers(-2**31, 2**31, (inputs, outputs // 8), dtype=numpy.int32)
    # 7 or 8, around the middle of the codes
    zeros = (random.integers(-2**31, 2**31, (groups, outputs // 8), dtype=numpy.int32) & 0x11111111) + 0x77777777
    scales = (random.random((groups, outputs), dtype=numpy.float32) + 0.5) / (4 * inputs**0.5)
    return {"qweight": weight, "qzeros": zeros, "scales": scales.astype(numpy.float16)}


def nibbles(words):
    """int32 [rows, words] -> uint8 [rows, 8 * words], in the order of the output channels."""
    out = numpy.empty((words.shape[0], words.shape[1], 8), numpy.uint8)
    for place, channel in enumerate(ORDER):
        out[:, :, channel] = words >> 4 * place & 15
    return out.reshape(words.shape[0], -1)


def dequantized(parts):
    """float16 [outputs, inputs]."""
    zeros, scales = (numpy.repeat(values.astype(numpy.float32), GROUP, axis=0) for values in (nibbles(parts["qzeros"]), parts["scales"]))
    return numpy.ascontiguousarray(((nibbles(parts["qweight"]) - zeros) * scales).astype(numpy.float16).T)


def modules(config, seed, as_float):
    """(shapes by tensor name, function that makes the tensors by name) of each module, in the order of the model."""
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]

    def table(name, key):
        random = lambda: numpy.random.default_rng((seed, key)).standard_normal((vocabulary, hidden), numpy.float32)
        return {name: ("F16", (vocabulary, hidden))}, lambda: {name: random().astype(numpy.float16)}

    def norm(name, size):
        return {name: ("F16", (size,))}, lambda: {name: numpy.ones(size, numpy.float16)}

    yield table("model.embed_tokens.weight", 1)
    for block in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{block}."
        yield norm(prefix + "input_layernorm.weight", hidden)
        yield norm(prefix + "post_attention_layernorm.weight", hidden)
        if config["model_type"] == "qwen3":
            for name in ("q_norm", "k_norm"):
                yield norm(f"{prefix}self_attn.{name}.weight", config["head_dim"])
        for index, (name, inputs, outputs) in enumerate(linears(config)):
            def make(key=(seed, 2, block, index), inputs=inputs, outputs=outputs, name=prefix + name):
                parts = random_linear(key, inputs, outputs)
                return {f"{name}.weight": dequantized(parts)} if as_float else {f"{name}.{part}": value for part, value in parts.items()}
            packed = {"qweight": ("I32", (inputs, outputs // 8)), "qzeros": ("I32", (inputs // GROUP, outputs // 8)),
                      "scales": ("F16", (inputs // GROUP, outputs))}
            shapes = {"weight": ("F16", (outputs, inputs))} if as_float else packed
            yield {f"{prefix}{name}.{part}": shape for part, shape in shapes.items()}, make
    yield norm("model.norm.weight", hidden)
    if not config["tie_word_embeddings"]:
        yield table("lm_head.weight", 3)


def size_of(shape):
    name, sizes = shape
    return (4 if name == "I32" else 2) * int(numpy.prod(sizes))


def write_shard(path, group):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for shapes, _ in group:
        for name, shape in shapes.items():
            header[name] = dict(dtype=shape[0], shape=shape[1], data_offsets=[offset, offset + size_of(shape)])
            offset += size_of(shape)
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % 64)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for shapes, make in group:
            tensors = make()
            for name, shape in shapes.items():
                assert (NAMES[tensors[name].dtype], tensors[name].shape) == shape, name
                tensors[name].tofile(file)


def write_model(shape, folder, as_float=False, blocks=None, vocabulary=None, seed=0, tokenizer=ROOT / "models/demo"):
    config = dict(SHAPES[shape])
    config["num_hidden_layers"] = blocks or config["num_hidden_layers"]
    config["vocab_size"] = vocabulary or config["vocab_size"]
    folder, tokenizer = pathlib.Path(folder), pathlib.Path(tokenizer)
    folder.mkdir(parents=True)
    shards, total = [[]], 0
    for module in modules(config, seed, as_float):
        size = sum(map(size_of, module[0].values()))
        if shards[-1] and total + size > SHARD_BYTES:
            shards.append([])
            total = 0
        shards[-1].append(module)
        total += size
    names = ["model.safetensors"] if len(shards) == 1 else [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    for name, group in zip(names, shards):
        write_shard(folder / name, group)
    if len(shards) > 1:
        index = {name: file for file, group in zip(names, shards) for shapes, _ in group for name in shapes}
        total = sum(size_of(shape) for group in shards for shapes, _ in group for shape in shapes.values())
        (folder / "model.safetensors.index.json").write_text(json.dumps(dict(metadata=dict(total_size=total), weight_map=index), indent=1) + "\n")
    config.update(torch_dtype="float16", hidden_act="silu", rms_norm_eps=1e-6, attention_bias=False, mlp_bias=False, max_position_embeddings=8192,
                  bos_token_id=None, eos_token_id=config["vocab_size"] - 1)
    if not as_float:
        config["quantization_config"] = dict(quant_method="awq", bits=4, group_size=GROUP, zero_point=True, version="gemm", modules_to_not_convert=None)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        if (tokenizer / name).exists():
            shutil.copyfile(tokenizer / name, folder / name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--float", action="store_true", dest="as_float")
    parser.add_argument("--blocks", type=int)
    parser.add_argument("--vocabulary", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokenizer", type=pathlib.Path, default=ROOT / "models/demo")
    write_model(**vars(parser.parse_args()))
