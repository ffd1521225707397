#!/usr/bin/env python3
"""lm-evaluation-harness 0.4.13 and Salient on the same model, rows and examples: prints the largest difference of each task, fails beyond the bounds.

usage: compare_lm_eval.py SALIENT MODEL DATA_FOLDER [--limit N] [--tasks a,b] [--chat]
DATA_FOLDER: the sets that data/INDEX.md of the checks names (ARC-Easy-test.jsonl and so on), in Hugging Face's layout. Sets that are not there are made
from others: boolq and squad_v2 share rows, lambada takes lines of WikiText, mmlu rows of ARC. Examples come from the rows behind the evaluated ones.
lm-evaluation-harness runs one row at a time: in a batch, its rows run past a stop string that is a special token, which its decoding then leaves out.
squad_v2 has no examples: lm-evaluation-harness 0.4.13 fails with any there.
Bounds: log-likelihoods 1e-3 (and 1e-6 of themselves, for whole pages), texts and metrics equal.
"""
import argparse, json, pathlib, subprocess, sys, tempfile
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))
import lm_eval_local

CASES = [("arc_easy", 0), ("arc_challenge", 5), ("hellaswag", 0), ("hellaswag", 3), ("piqa", 0), ("winogrande", 0), ("winogrande", 2), ("boolq", 1), ("mmlu_anatomy", 2),
         ("truthfulqa_mc1", 0), ("truthfulqa_mc2", 0), ("lambada_openai", 0), ("gsm8k", 2), ("gsm8k_cot", 2), ("squad_v2", 0), ("wikitext", 0)]


def read(path): return [json.loads(line) for line in open(path, encoding="utf-8")]


def pages(text):
    out, lines = [], []
    for line in text.split("\n"):
        heading = line.replace("= = =", "===").replace("= =", "==").strip()
        if heading.startswith("= ") and heading.endswith(" ="):
            if "\n".join(lines).strip(): out.append("\n".join(lines))
            lines = []
        lines.append(line)
    return [dict(page=p) for p in out + ["\n".join(lines)]]


def rows_of(name, data):
    if name == "boolq": return [dict(passage=r["context"], question=r["question"].rstrip("?"), label=i % 2) for i, r in enumerate(read(data / "squad_v2_validation_sixth.jsonl"))]
    if name == "lambada_openai": return [dict(text=line.strip()) for line in open(data / "wikitext2_test.raw", encoding="utf-8") if len(line.split()) > 30]
    if name == "mmlu_anatomy":
        return [dict(question=r["question"], choices=r["choices"]["text"], answer=r["choices"]["label"].index(r["answerKey"]), subject="anatomy")
                for r in read(data / "ARC-Challenge-test.jsonl") if len(r["choices"]["text"]) == 4]
    if name == "wikitext": return pages((data / "wikitext2_test.raw").read_text(encoding="utf-8"))
    return read(data / {"arc_easy": "ARC-Easy-test.jsonl", "arc_challenge": "ARC-Challenge-test.jsonl", "hellaswag": "hellaswag_val_1000.jsonl", "piqa": "piqa_validation.jsonl",
                        "winogrande": "winogrande_xl-validation.jsonl", "truthfulqa_mc1": "truthfulqa_mc_validation.jsonl", "truthfulqa_mc2": "truthfulqa_mc_validation.jsonl",
                        "gsm8k": "gsm8k_test.jsonl", "gsm8k_cot": "gsm8k_test.jsonl", "squad_v2": "squad_v2_validation_sixth.jsonl"}[name])


def likelihood(response): return response[0] if isinstance(response, (list, tuple)) else response


def compare(ours, theirs):
    """Largest difference of a log-likelihood, how many are out of bounds, how many texts differ."""
    largest, bad, texts = 0.0, 0, 0
    for mine, other in zip(ours, theirs, strict=True):
        wanted = [likelihood(r) for r in other["responses"]]
        text = [r for r in wanted if isinstance(r, str)]
        numbers = [float(r) for r in wanted if not isinstance(r, str)]
        texts += text[:1] != [mine.get("text", "")] if text else 0
        found = mine.get("log_probs", [])
        if len(found) != len(numbers): raise SystemExit(f"{len(found)} log-likelihoods here, {len(numbers)} there")
        for a, b in zip(found, numbers):
            largest = max(largest, abs(a - b))
            bad += abs(a - b) > 1e-3 + 1e-6 * abs(b)
    return largest, bad, texts


def main():
    a = argparse.ArgumentParser(); a.add_argument("salient"); a.add_argument("model"); a.add_argument("data"); a.add_argument("--limit", type=int, default=20)
    a.add_argument("--tasks", default=""); a.add_argument("--chat", action="store_true"); a = a.parse_args()
    data, work, failed = pathlib.Path(a.data), pathlib.Path(tempfile.mkdtemp()), False
    lm = lm_eval_local.load_model(a.model, batch_size=1)
    print(f"{'task':<16}{'shots':>6}{'docs':>6}{'log-prob':>12}{'texts':>7}{'metrics':>12}  largest differences")
    for name, shots in CASES:
        if a.tasks and name not in a.tasks.split(","): continue
        rows, (stock, evaluated, examples) = rows_of(name, data), lm_eval_local.STOCK[name]
        limit = min(a.limit, 3 if name == "wikitext" else a.limit)
        files = {evaluated: lm_eval_local.write_rows(work / f"{name}_{shots}.jsonl", rows[:limit])}
        if examples: files[examples] = lm_eval_local.write_rows(work / f"{name}_{shots}_pool.jsonl", rows[limit:limit + 500])
        options = dict(apply_chat_template=True, fewshot_as_multiturn=True) if a.chat else {}
        theirs = lm_eval_local.run(lm, name, files, shots, **options)
        # A split that is not asked for is not needed here; lm-eval loads it in any case.
        call = [a.salient, "eval", a.model, "--tasks", name, "--num-fewshot", str(shots), "--no-store", "--no-throughput", "--json", "--samples", str(work / "samples")]
        for split, path in files.items(): call += ["--data", f"{name}:{split}={path}"]
        ours = json.loads(subprocess.run(call + (["--apply-chat-template"] if a.chat else []), check=True, capture_output=True, text=True).stdout)
        figures = {m["metric"]: m["value"] for m in ours["model"]["tasks"][0]["metrics"]}
        shared = [k for k in theirs["metrics"] if k in figures and name != "squad_v2"]  # squad_v2 is scored by another package
        metric = max((abs(figures[k] - theirs["metrics"][k]) / max(1.0, abs(theirs["metrics"][k])) for k in shared), default=0.0)
        largest, bad, texts = compare(read(work / "samples" / f"samples_{name}.jsonl"), theirs["samples"])
        wrong = bad > 0 or texts > 0 or metric > 1e-4
        failed = failed or wrong
        shown = f"{metric:.2e}" if shared else "-"
        print(f"{name:<16}{shots:>6}{limit:>6}{largest:>12.2e}{texts:>7}{shown:>12}  {'OUT OF BOUNDS' if wrong else ''}", flush=True)
    sys.exit(1 if failed else 0)


main()
