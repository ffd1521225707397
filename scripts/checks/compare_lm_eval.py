#!/usr/bin/env python3
"""lm-evaluation-harness 0.4.13 and Salient on the same models, rows and examples: the largest difference of each task; exit status 1 beyond the bounds.

usage: PYTHON scripts/checks/compare_lm_eval.py DATA_FOLDER [options], with a Python that has lm-eval 0.4.13, torch and transformers 5.23
DATA_FOLDER: ARC-Easy-test.jsonl and the others that scripts/lib/lm_eval_rows.py names, in Hugging Face's layout. Sets that are not there are made from others, which the output says.
Examples come from the rows behind the evaluated ones. Models: the demo, and two small random ones, a llama whose tokenizer begins every text with BOS and a qwen2
without, both with its tokenizer.
lm-evaluation-harness runs one row at a time: in a batch, its rows run past a stop string that is a special token, which its decoding then leaves out.
squad_v2 has no examples: lm-evaluation-harness 0.4.13 fails with any there.
Bounds: log-likelihoods 1e-3 (and 1e-6 of themselves, for whole pages), texts equal, metrics 1e-4.
"""
import argparse, json, os, pathlib, subprocess, sys, tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts/lib"))
import lm_eval_local, lm_eval_rows
from marked_section import markdown_table, replace_section

CASES = [("arc_easy", 0), ("arc_challenge", 5), ("hellaswag", 0), ("hellaswag", 3), ("piqa", 0), ("winogrande", 0), ("winogrande", 2), ("boolq", 1), ("mmlu_anatomy", 2),
         ("truthfulqa_mc1", 0), ("truthfulqa_mc2", 0), ("lambada_openai", 0), ("gsm8k", 2), ("gsm8k_cot", 2), ("squad_v2", 0), ("wikitext", 0)]
LOG_PROB_BOUND, RELATIVE_BOUND, METRIC_BOUND = 1e-3, 1e-6, 1e-4


def random_model(folder, kind, with_bos):
    """A small checkpoint with the demo's tokenizer; `with_bos` lets that begin every text with BOS."""
    import tiny_models, tokenizers, transformers
    demo = json.loads((ROOT / "models/demo/config.json").read_text())
    folder = folder / kind
    tiny_models.make(folder, kind, dict(vocab_size=demo["vocab_size"], bos_token_id=demo["pad_token_id"], pad_token_id=demo["pad_token_id"], eos_token_id=demo["eos_token_id"]))
    tokenizer = transformers.AutoTokenizer.from_pretrained(ROOT / "models/demo")
    if with_bos:
        bos = tokenizer.convert_ids_to_tokens(demo["pad_token_id"])
        tokenizer.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, demo["pad_token_id"])])
        tokenizer.bos_token = bos
    tokenizer.save_pretrained(folder)
    return folder


def models(work, wanted):
    made = {"demo": lambda: ROOT / "models/demo", "llama with BOS": lambda: random_model(work, "llama", True), "qwen2": lambda: random_model(work, "qwen2", False)}
    for name, make in made.items():
        if not wanted or name.split()[0] in wanted: yield name, make()


def salient_run(options, model, name, shots, files, folder):
    """Metrics and, in the order of the rows, what the model said: {"log_probs": [...], "text": ...}."""
    call = [str(options.salient), "eval", str(model), "--tasks", name, "--num-fewshot", str(shots), "--no-store", "--no-throughput", "--json", "--output-path", str(folder), "--log-samples"]
    for split, path in files.items(): call += ["--data", f"{name}:{split}={path}"]
    if options.chat: call.append("--apply-chat-template")
    done = subprocess.run(call, capture_output=True, text=True)
    if done.returncode: raise SystemExit(f"{' '.join(call)}\n{done.stderr}")
    return {m["metric"]: m["value"] for m in json.loads(done.stdout)["model"]["tasks"][0]["metrics"]}, own_samples(folder, name)


def likelihood(response): return response[0] if isinstance(response, (list, tuple)) else response


def own_samples(folder, name):
    """Of the first filter: one for each document."""
    samples = lm_eval_rows.read(next(folder.rglob(f"samples_{name}_*.jsonl")))
    return [s for s in samples if s["filter"] == samples[0]["filter"]]


def compare(ours, theirs):
    """Largest difference of a log-likelihood, how many are out of bounds, how many texts differ."""
    largest, bad, texts = 0.0, 0, 0
    for mine, other in zip(ours, theirs, strict=True):
        wanted = [likelihood(r) for r in other["responses"]]
        text = [r for r in wanted if isinstance(r, str)]
        numbers = [float(r) for r in wanted if not isinstance(r, str)]
        said = [r[0] for r in mine["resps"]]  # a text, a log-likelihood, or a pair of it and whether it is the greedy one
        found = [float(likelihood(r)) for r, o in zip(said, wanted) if not isinstance(o, str)]
        texts += text[:1] != [r for r, o in zip(said, wanted) if isinstance(o, str)][:1] if text else 0
        if len(found) != len(numbers): raise SystemExit(f"{len(found)} log-likelihoods here, {len(numbers)} there")
        for a, b in zip(found, numbers):
            largest = max(largest, abs(a - b))
            bad += abs(a - b) > LOG_PROB_BOUND + RELATIVE_BOUND * abs(b)
    return largest, bad, texts


def as_parquet(path):
    import pyarrow, pyarrow.parquet
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(lm_eval_rows.read(path)), pathlib.Path(path).with_suffix(".parquet"))
    return str(pathlib.Path(path).with_suffix(".parquet"))


def run_case(lm, model, name, shots, options, work):
    rows, (stock, evaluated, examples) = lm_eval_rows.rows_of(name, options.data), lm_eval_local.STOCK[name]
    limit = min(options.limit, 3 if name == "wikitext" else options.limit)
    files = {evaluated: lm_eval_local.write_rows(work / f"{name}_{shots}.jsonl", rows[:limit])}
    if examples: files[examples] = lm_eval_local.write_rows(work / f"{name}_{shots}_pool.jsonl", rows[limit:limit + 500])
    theirs = lm_eval_local.run(lm, name, files, shots, **(dict(apply_chat_template=True, fewshot_as_multiturn=True) if options.chat else {}))
    if options.parquet: files = {split: as_parquet(path) for split, path in files.items()}
    figures, samples = salient_run(options, model, name, shots, files, pathlib.Path(tempfile.mkdtemp(dir=work)))
    shared = [k for k in theirs["metrics"] if k in figures and name != "squad_v2"]  # squad_v2 is scored by another package
    metric = max((abs(figures[k] - theirs["metrics"][k]) / max(1.0, abs(theirs["metrics"][k])) for k in shared), default=None)
    largest, bad, texts = compare(samples, theirs["samples"])
    return dict(documents=limit, log_prob=largest, texts=texts, metric=metric, wrong=bad > 0 or texts > 0 or (metric or 0) > METRIC_BOUND)


def shown(value): return "-" if value is None else f"{value:.1e}"


def docs_table(results):
    names = list(dict.fromkeys(model for model, _, _ in results))
    lines = []
    for name, shots in CASES:
        cells = [results[model, name, shots] for model in names]
        lines.append([name, str(shots), str(cells[0]["documents"]), *(shown(c["log_prob"]) for c in cells), str(sum(c["texts"] for c in cells)),
                      shown(max((c["metric"] for c in cells if c["metric"] is not None), default=None))])
    return markdown_table(["task", "examples", "documents", *names, "texts that differ", "metrics"], lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--salient", type=pathlib.Path, default=ROOT / "build/release/salient", metavar="FILE", help="the program (default: build/release)")
    parser.add_argument("--limit", type=int, default=20, help="documents of a task (default 20)")
    parser.add_argument("--tasks", default="", metavar="LIST", help="only these")
    parser.add_argument("--models", default="", metavar="LIST", help="only these of demo, llama, qwen2")
    parser.add_argument("--chat", action="store_true", help="behind the demo's chat template")
    parser.add_argument("--parquet", action="store_true", help="give Salient the rows as Parquet")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/evaluation.md")
    options = parser.parse_args()
    work, results = pathlib.Path(tempfile.mkdtemp()), {}
    cases = [(name, shots) for name, shots in CASES if not options.tasks or name in options.tasks.split(",")]
    if options.docs and (cases != CASES or options.models): raise SystemExit("--docs writes all tasks and models: leave --tasks and --models out")
    for name, source in lm_eval_rows.MADE.items():
        if any(name == case for case, _ in cases): print(f"{name}: its own set is not at hand; the rows are {source}")
    print(f"{'model':<16}{'task':<16}{'shots':>6}{'docs':>6}{'log-prob':>12}{'texts':>7}{'metrics':>12}  largest differences", flush=True)
    for model, folder in models(work, options.models.split(",") if options.models else []):
        lm = lm_eval_local.load_model(folder, batch_size=1)
        for name, shots in cases:
            result = results[model, name, shots] = run_case(lm, folder, name, shots, options, work)
            print(f"{model:<16}{name:<16}{shots:>6}{result['documents']:>6}{shown(result['log_prob']):>12}{result['texts']:>7}{shown(result['metric']):>12}  "
                  f"{'OUT OF BOUNDS' if result['wrong'] else ''}", flush=True)
    wrong = sum(result["wrong"] for result in results.values())
    print(f"{len(results)} comparisons, {wrong} out of bounds")
    if options.docs and not wrong: replace_section(ROOT / "docs/evaluation.md", "lm-eval", docs_table(results))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
