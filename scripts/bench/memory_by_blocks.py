#!/usr/bin/env python3
"""Peak memory of `salient quantize` for models of 4, 8 and 16 equal blocks: it must not grow with their number.

  python3 -m venv env && env/bin/pip install numpy safetensors
  env/bin/python scripts/bench/memory_by_blocks.py

Random Llama (or, with --experts, Mixtral) checkpoints with the demo model's tokenizer, in float16, quantized one after the other on the demo's
calibration texts. Prints a table; --check makes the exit status 1 when the increase from the fewest to the most blocks is 2 % of the larger
model's size or more.
"""
import argparse
import json
import os
import pathlib
import shutil
import sys
import tempfile

import numpy
from safetensors.numpy import save_file

from tool_runs import run

ROOT = pathlib.Path(__file__).resolve().parents[2]
BOUND = 0.02
ROWS_A_SHARD = 4  # blocks


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--salient", default=ROOT / "build/release/salient", metavar="FILE", help="the program (default: build/release)")
    parser.add_argument("--blocks", default="4,8,16", help="numbers of blocks (default 4,8,16)")
    parser.add_argument("--hidden", type=int, default=1536, help="hidden size (default 1536)")
    parser.add_argument("--intermediate", type=int, default=4096, help="MLP size, of one expert if there are any (default 4096)")
    parser.add_argument("--experts", type=int, default=0, help="experts of a block (default 0: a dense model)")
    parser.add_argument("--samples", type=int, default=16, help="calibration texts (default 16)")
    parser.add_argument("--n-grid", type=int, default=1, help="steps of the scale search: time, not memory (default 1)")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--check", action="store_true", help="exit status 1 when the increase is beyond the bound")
    return parser.parse_args()


def block_tensors(generator, prefix, options):
    hidden, width = options.hidden, options.intermediate
    shapes = {f"self_attn.{name}_proj": (hidden, hidden) for name in "qkvo"}
    if options.experts == 0:
        shapes |= {"mlp.gate_proj": (width, hidden), "mlp.up_proj": (width, hidden), "mlp.down_proj": (hidden, width)}
    else:
        shapes["block_sparse_moe.gate"] = (options.experts, hidden)
        for expert in range(options.experts):
            shapes |= {f"block_sparse_moe.experts.{expert}.w{i}": (hidden, width) if i == 2 else (width, hidden) for i in (1, 2, 3)}
    tensors = {f"{prefix}{name}.weight": generator.standard_normal(shape, numpy.float32) / shape[1] ** 0.5 for name, shape in shapes.items()}
    for name in ("input_layernorm", "post_attention_layernorm"):
        tensors[f"{prefix}{name}.weight"] = 1 + 0.1 * generator.standard_normal(hidden, numpy.float32)
    return {name: tensor.astype(numpy.float16) for name, tensor in tensors.items()}


def make_model(folder, blocks, options):
    folder.mkdir()
    demo = ROOT / "models/demo"
    vocab = json.loads((demo / "config.json").read_text())["vocab_size"]
    config = {"model_type": "mixtral" if options.experts else "llama", "vocab_size": vocab, "hidden_size": options.hidden,
              "intermediate_size": options.intermediate, "num_hidden_layers": blocks, "num_attention_heads": options.hidden // 64,
              "num_key_value_heads": options.hidden // 64, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
              "tie_word_embeddings": True, "torch_dtype": "float16", "architectures": ["MixtralForCausalLM" if options.experts else "LlamaForCausalLM"]}
    if options.experts:
        config |= {"num_local_experts": options.experts, "num_experts_per_tok": 2}
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(demo / name, folder / name)
    generator = numpy.random.default_rng(0)
    outer = {"model.embed_tokens.weight": generator.standard_normal((vocab, options.hidden), numpy.float32).astype(numpy.float16),
             "model.norm.weight": numpy.ones(options.hidden, numpy.float16)}
    where, size = {}, 0
    for index in range(0, blocks, ROWS_A_SHARD):
        tensors = dict(outer) if index == 0 else {}
        for block in range(index, min(blocks, index + ROWS_A_SHARD)):
            tensors |= block_tensors(generator, f"model.layers.{block}.", options)
        file = f"model-{index // ROWS_A_SHARD + 1:05}.safetensors"
        save_file(tensors, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(tensors, file)
        size += sum(tensor.nbytes for tensor in tensors.values())
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": where}))
    return size


def quantize(model, out, options):
    command = [options.salient, "quantize", "--model", model, "--calib", ROOT / "models/demo/data/calib_mixed.jsonl", "--out", out, "--samples",
               options.samples, "--max-seq-len", 256, "--n-grid", options.n_grid, "--no-clip", "--json"]
    text, _, _ = run(command)
    return json.loads(text)


def main():
    options = parse_arguments()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for blocks in map(int, options.blocks.split(",")):
            model = pathlib.Path(folder) / f"model_{blocks}"
            size = make_model(model, blocks, options)
            result = quantize(model, pathlib.Path(folder) / "out", options)
            rows.append({"blocks": blocks, "model_mb": size / 1e6, "peak_mb": result["peak_memory_mb"], "seconds": result["quantize_s"]})
            shutil.rmtree(model)
            shutil.rmtree(pathlib.Path(folder) / "out")
    print("blocks  model, MB  peak memory, MB  seconds")
    for row in rows:
        print(f"{row['blocks']:6}  {row['model_mb']:9.1f}  {row['peak_mb']:15.1f}  {row['seconds']:7.1f}")
    increase = rows[-1]["peak_mb"] - rows[0]["peak_mb"]
    share = increase / rows[-1]["model_mb"]
    print(f"increase from {rows[0]['blocks']} to {rows[-1]['blocks']} blocks: {increase:.1f} MB, {share:.2%} of the model (bound {BOUND:.0%})")
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps({"rows": rows, "increase_share": share, "threads": os.environ.get("OMP_NUM_THREADS")}))
    if options.check and share >= BOUND:
        sys.exit(1)


main()
