#!/usr/bin/env python3
"""The result files of lm-evaluation-harness 0.4.13 and of `salient eval --output-path --log-samples` on the same model and rows: keys, types, hashes, figures.

usage: compare_lm_eval_files.py SALIENT MODEL [--limit N]
Runs both on the bundled demo's rows (ARC as a group of its own, GSM8K with its two filters, SQuAD rows as BoolQ, lines of text as LAMBADA and WikiText) and prints what differs; exit
status 1 where a key of lm-eval's is missing, a type differs, or a hash, a prompt, a target or a figure is another one.
"""
import argparse, json, pathlib, subprocess, sys, tempfile
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))
import lm_eval_local

DATA = pathlib.Path(__file__).resolve().parents[2] / "models/demo/data"
# Salient's name, lm-eval's file, evaluated split, split of examples, examples.
TASKS = [("arc_easy", "arc/arc_easy.yaml", "test", "train", 1), ("gsm8k", "gsm8k/gsm8k.yaml", "test", "train", 1), ("boolq", "super_glue/boolq/default.yaml", "validation", "train", 0),
         ("hellaswag", "hellaswag/hellaswag.yaml", "validation", "train", 0), ("winogrande", "winogrande/default.yaml", "validation", "train", 1), ("lambada_openai", "lambada/lambada_openai.yaml", "test", None, 0), ("wikitext", "wikitext/wikitext.yaml", "test", "train", 0)]
# What only a program's own surroundings decide.
OWN = {"date", "git_hash", "upper_git_hash", "pretty_env_info", "transformers_version", "total_evaluation_time_seconds", "model_source", "model_name", "model_name_sanitized", "config", "configs", "salient"}


def read(name): return [json.loads(line) for line in open(DATA / name, encoding="utf-8")]


def rows_of(name):
    if name == "boolq": return [dict(passage=r["context"], question=r["question"].rstrip("?"), label=i % 2) for i, r in enumerate(read("squad_test.jsonl"))]
    if name == "lambada_openai": return [dict(text=line.strip()) for line in open(DATA / "heldout.txt", encoding="utf-8") if len(line.split()) > 10]
    things = [("cup", "table", "heavy"), ("ball", "box", "small"), ("book", "bag", "thick"), ("caf\u00e9", "street", "narrow")] * 4
    if name == "hellaswag":
        return [dict(ind=i, activity_label=f"Making a {a}", ctx_a=f"A person holds a {a} [header] near the {b}.", ctx_b="the PERSON then", ctx="", endings=[f" [title] puts it on the {b}.", "eats it.", f"says the {a} is {c}.", "leaves."],
                     label=str(i % 4)) for i, (a, b, c) in enumerate(things)]
    if name == "winogrande": return [dict(sentence=f"The {a} broke the {b} because the _ was too {c}.", option1=a, option2=b, answer=str(1 + i % 2)) for i, (a, b, c) in enumerate(things)]
    if name == "wikitext": return [dict(page=" = Page = \n" + line) for line in open(DATA / "heldout.txt", encoding="utf-8") if len(line.split()) > 10]
    return read({"arc_easy": "arc_test.jsonl", "gsm8k": "openmath_test.jsonl"}[name])


def run_lm_eval(model, files, limit, out):
    import lm_eval, yaml
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager
    folder, root = pathlib.Path(tempfile.mkdtemp()), pathlib.Path(lm_eval.__file__).parent / "tasks"
    for name, stock, evaluated, examples, shots in TASKS:
        splits = {evaluated: files[name]} | ({examples: files[name]} if examples else {})
        spec = dict(include=str(root / stock), task=name, dataset_path="json", dataset_name=None, dataset_kwargs=dict(data_files=splits), tag=None, num_fewshot=shots)
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(spec))
    tracker = EvaluationTracker(output_path=str(out))
    result = lm_eval.simple_evaluate(model="hf", model_args=dict(pretrained=model, dtype="float32", softmax_dtype="float32"), device="cpu", batch_size=1, limit=limit, tasks=[t[0] for t in TASKS],
                                     task_manager=TaskManager(include_path=str(folder), include_defaults=False), log_samples=True, evaluation_tracker=tracker)
    samples = result.pop("samples")
    tracker.save_results_aggregated(results=result, samples=samples)
    for task in samples: tracker.save_results_samples(task_name=task, samples=samples[task])


def run_salient(program, model, files, limit, out):
    for shots in (0, 1):  # one number for all tasks of a call
        call = [program, "eval", model, "--num-fewshot", str(shots), "--limit", str(limit), "--no-store", "--no-throughput", "--output-path", str(out / str(shots)), "--log-samples"]
        for name, _, evaluated, examples, wanted in TASKS:
            if wanted == shots:
                for split in filter(None, (evaluated, examples)): call += ["--data", f"{name}:{split}={files[name]}"]
        subprocess.run(call, check=True, capture_output=True)


def load(folder):
    """Results of all files below a folder, one after the other, and samples by task."""
    results, samples = {}, {}
    for file in sorted(folder.rglob("results_*.json")):
        for key, value in json.load(open(file)).items(): results[key] = results[key] | value if isinstance(value, dict) and isinstance(results.get(key), dict) else value
    for file in sorted(folder.rglob("samples_*.jsonl")): samples["_".join(file.stem.split("_")[1:-1])] = [json.loads(line) for line in open(file, encoding="utf-8")]
    return results, samples


def kind(value): return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


def close(a, b):
    if isinstance(a, list) and isinstance(b, list): return len(a) == len(b) and all(close(x, y) for x, y in zip(a, b))
    try: return abs(float(a) - float(b)) <= 1e-3 + 1e-6 * abs(float(b))
    except (TypeError, ValueError): return a == b


def compare(where, ours, theirs, found):
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key, value in theirs.items():
            if key not in ours: found.append(f"{where}.{key}: missing")
            else: compare(f"{where}.{key}", ours[key], value, found)
    elif kind(ours) != kind(theirs): found.append(f"{where}: {kind(ours)} here, {kind(theirs)} there ({ours!r}, {theirs!r})")
    elif not close(ours, theirs): found.append(f"{where}: {str(ours)[:90]!r} here, {str(theirs)[:90]!r} there")


def main():
    a = argparse.ArgumentParser(); a.add_argument("salient"); a.add_argument("model"); a.add_argument("--limit", type=int, default=4); a = a.parse_args()
    work = pathlib.Path(tempfile.mkdtemp())
    files = {name: lm_eval_local.write_rows(work / f"{name}.jsonl", rows_of(name)[:a.limit + 4]) for name, *_ in TASKS}
    run_salient(a.salient, a.model, files, a.limit, work / "ours")
    run_lm_eval(a.model, files, a.limit, work / "theirs")
    (ours, our_samples), (theirs, their_samples) = load(work / "ours"), load(work / "theirs")
    found = []
    for key, value in theirs.items():
        if key not in ours: found.append(f"{key}: missing")
        elif key == "config": found += [f"config.{k}: missing" for k in value if k not in ours[key]]
        elif key == "configs": found += [f"configs.{t}.{k}: missing" for t in value for k in value[t] if k not in ours[key].get(t, {}) and k not in ("fewshot_config", "dataset_kwargs", "doc_to_decontamination_query")]
        elif key not in OWN: compare(key, ours[key], value, found)
    for task, lines in their_samples.items():
        mine = our_samples.get(task, [])
        if len(mine) != len(lines): found.append(f"samples of {task}: {len(mine)} here, {len(lines)} there")
        for i, (one, other) in enumerate(zip(mine, lines)): compare(f"{task}[{i}]", one, other, found)
        hashes = sum(one[k] == other[k] for one, other in zip(mine, lines) for k in ("doc_hash", "prompt_hash", "target_hash"))
        print(f"{task:<16}{len(lines):>4} samples, {hashes} of {3 * len(lines)} hashes equal")
    for line in found: print(line)
    print(f"{len(found)} differences")
    sys.exit(1 if found else 0)


main()
