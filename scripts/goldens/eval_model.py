#!/usr/bin/env python3
"""Reference scores of the demo model for tests/eval: lm-evaluation-harness 0.4.13 in float32 (multiple choice, generation, an empty context) and
transformers (perplexity by windows).

usage: eval_model.py PROJECT_FOLDER OUT.json
"""
import json, math, pathlib, sys
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

project, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
model = project / "models/demo"
rows = lambda name, n: [json.loads(line) for line in open(model / "data" / name)][:n]
lm = HFLM(pretrained=str(model), dtype="float32", device="cpu", batch_size=4, softmax_dtype="float32")

pairs = [(f"Question: {r['question']}\nAnswer:", " " + c) for r in rows("arc_test.jsonl", 12) for c in r["choices"]["text"]]
pairs += [("", "The sky is blue."), ("Trailing space ", "moves"), ("Lines\n\n", " two"), ("tab\t \u00a0", "x"), ("5 + 5 =", " 10"), ("caf\u00e9 \u4e2d", "\u6587!"), ("word " * 1100, " the end of it")]
scores = lm.loglikelihood([Instance("loglikelihood", {}, p, i) for i, p in enumerate(pairs)], disable_tqdm=True)
kwargs = dict(until=["Question:", "</s>", "<|im_end|>"], do_sample=False, temperature=0.0)
prompts = [f"Question: {r['question']}\nAnswer:" for r in rows("openmath_test.jsonl", 8)]
texts = lm.generate_until([Instance("generate_until", {}, (p, kwargs), i) for i, p in enumerate(prompts)], disable_tqdm=True)
squad = [f"Title: {r['title']}\n\nBackground: {r['context']}\n\nQuestion: {r['question']}\n\nAnswer:" for r in rows("squad_test.jsonl", 8)]
squad_texts = lm.generate_until([Instance("generate_until", {}, (p, dict(until=["\n"])), i) for i, p in enumerate(squad)], disable_tqdm=True)

ids = lm.tokenizer((model / "data/heldout.txt").read_text(encoding="utf-8"), add_special_tokens=False, return_tensors="pt").input_ids[0]
window, count = 64, 12
batch = ids[: window * count].view(count, window)
with torch.no_grad(): losses = torch.nn.functional.cross_entropy(lm.model(batch).logits[:, :-1].flatten(0, 1).float(), batch[:, 1:].flatten(), reduction="none").view(count, window - 1)
result = dict(pairs=[dict(context=c, continuation=t, log_prob=s, is_greedy=g) for (c, t), (s, g) in zip(pairs, scores)],
              generations=[dict(prompt=p, text=t) for p, t in zip(prompts, texts)], squad=[dict(prompt=p, text=t) for p, t in zip(squad, squad_texts)],
              windows=dict(window=window, count=count, perplexity=math.exp(losses.mean().item()), second_half=math.exp(losses[:, window // 2:].mean().item())))
out.write_text(json.dumps(result, indent=0) + "\n")
