"""What the linears of the demo model read, in float64 (norms in float32 inside), by transformers:
tests/data/online/channel_statistics.safetensors.

For rows of token ids run one by one: mean|x|, max|x| and rms of every channel of the input of the first linear of each kind of input.
usage: channel_statistics.py            (transformers 5.23, torch 2.13)
"""

import json
import pathlib

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "demo"
LINEARS = ["self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"]
TEXTS = ["Question: Iris has 7 pens and buys 3 more. How many pens does she have?\nAnswer: 7 + 3 = 10.", "There are three planets", "Which of these is a metal?"]


def main():
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float64)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    rows = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    seen = {}
    for name, module in model.named_modules():
        if any(name.endswith(linear) for linear in LINEARS):
            module.register_forward_pre_hook(lambda _, args, name=name: seen.setdefault(name, []).append(args[0].flatten(0, 1)))
    with torch.no_grad():
        for row in rows:
            model(torch.tensor([row]))
    tensors = {}
    for name, inputs in seen.items():
        x = torch.cat(inputs).abs()
        assert x.dtype == torch.float64 and len(x) == sum(map(len, rows))
        tensors[name] = torch.stack([x.mean(0), x.amax(0), x.square().mean(0).sqrt()]).float()
    path = ROOT / "tests" / "data" / "online" / "channel_statistics.safetensors"
    save_file(tensors, path, metadata={"rows": json.dumps(rows)})
    print(path, path.stat().st_size, [len(row) for row in rows])


if __name__ == "__main__":
    main()
