"""Rows of real benchmarks in Hugging Face's layout, for comparisons with lm-evaluation-harness. A set that is not at hand is made from another one."""
import json, pathlib

FILES = {"arc_easy": "ARC-Easy-test.jsonl", "arc_challenge": "ARC-Challenge-test.jsonl", "hellaswag": "hellaswag_val_1000.jsonl", "piqa": "piqa_validation.jsonl",
         "winogrande": "winogrande_xl-validation.jsonl", "truthfulqa_mc1": "truthfulqa_mc_validation.jsonl", "truthfulqa_mc2": "truthfulqa_mc_validation.jsonl",
         "gsm8k": "gsm8k_test.jsonl", "gsm8k_cot": "gsm8k_test.jsonl", "squad_v2": "squad_v2_validation_sixth.jsonl"}
# What is made, and from what.
MADE = {"boolq": "passages and questions of SQuAD v2, with labels in turns", "mmlu_anatomy": "questions of ARC-Challenge", "lambada_openai": "lines of WikiText-2"}


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


def rows_of(name, folder):
    folder = pathlib.Path(folder)
    if name == "boolq": return [dict(passage=r["context"], question=r["question"].rstrip("?"), label=i % 2) for i, r in enumerate(read(folder / FILES["squad_v2"]))]
    if name == "lambada_openai": return [dict(text=line.strip()) for line in open(folder / "wikitext2_test.raw", encoding="utf-8") if len(line.split()) > 30]
    if name == "mmlu_anatomy":
        return [dict(question=r["question"], choices=r["choices"]["text"], answer=r["choices"]["label"].index(r["answerKey"]), subject="anatomy")
                for r in read(folder / FILES["arc_challenge"]) if len(r["choices"]["text"]) == 4]
    if name == "wikitext": return pages((folder / "wikitext2_test.raw").read_text(encoding="utf-8"))
    return read(folder / FILES[name])
