#!/usr/bin/env python3
"""Reference values for tests/eval: GSM8K answer extraction by lm-evaluation-harness 0.4.13, SQuAD v2 scores by HF evaluate's `squad_v2`.

usage: eval_metrics.py EVALUATE_SQUAD_V2_FOLDER OUT_FOLDER
The folder is metrics/squad_v2 of https://github.com/huggingface/evaluate (squad_v2.py and compute_score.py); nothing is downloaded.
"""
import json, pathlib, random, sys
import importlib.util
from lm_eval.api.metrics import exact_match_hf_evaluate
from lm_eval.filters.extraction import RegexFilter

squad_folder, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
out.mkdir(parents=True, exist_ok=True)

# --- numeric answers: the filters and the metric of lm_eval/tasks/gsm8k/gsm8k.yaml
strict = RegexFilter(regex_pattern=r"#### (\-?[0-9\.\,]+)")
flexible = RegexFilter(regex_pattern=r"(-?[$0-9.,]{2,})|(-?[0-9]+)", group_select=-1)
ignore = [",", "\\$", "(?s).*#### ", "\\.$"]
texts = ["", " ", "18", "#### 18", "so\n#### 18.", "#### -5", "#### --5", "#### - 5", "####5", "#### $1,234.50 then", "#### ,", "#### 7\n#### 8", "x #### #### 9",
         "a 5", "-5", "- 5", "5-3", "$", "$$", "--", "-$4", "-$", "1.", "1.\n", "24.\n", "1,000.00.", "...", "a.b", "5.", "5", "$5", "3 apples and -12 pears",
         "total = 3 * 7 = 21.", "\u0661\u0662", "\uff15", "caf\u00e9 7", "12\u00a034", "#### 12\u00a0", "#### \u00a012", "0.5.6", "-,", "-.", "-1", "9-", "-9-9", "1e5", "#### 1e5", "[invalid]", "#### 3.00", "\u212a 4 K"]
rng = random.Random(7)
alphabet = "0123456789.,$-# \n" + "ab"
texts += ["".join(rng.choice(alphabet) for _ in range(rng.randrange(1, 14))) for _ in range(250)]
texts += ["#### " + "".join(rng.choice("0123456789.,$-") for _ in range(rng.randrange(1, 6))) for _ in range(60)]
references = ["First 3 * 7 = 21.\n#### 18", "#### 1,234.50", "#### -5", "#### 5", "24", "no answer", "[INVALID]", "#### 4.", "#### $5", "x\n#### 7\n#### 8"]
rows = []
for i, text in enumerate(texts):
    s, f = strict.apply([[text]], [{}])[0][0], flexible.apply([[text]], [{}])[0][0]
    reference = references[i % len(references)]
    same = lambda p, r: bool(exact_match_hf_evaluate([p], [r], regexes_to_ignore=ignore, ignore_case=True)["exact_match"])
    rows.append(dict(text=text, strict=s, flexible=f, reference=reference, strict_same=same(s, reference), flexible_same=same(f, reference),
                     text_same=same(text, text + "."), other_same=same(text, texts[(i + 1) % len(texts)])))
(out / "numeric_answers.json").write_text(json.dumps(rows, indent=0) + "\n")

# --- SQuAD v2
spec = importlib.util.spec_from_file_location("compute_score", squad_folder / "compute_score.py")
compute_score = importlib.util.module_from_spec(spec); spec.loader.exec_module(compute_score)
import evaluate
metric = evaluate.load(str(squad_folder))
answers = ["miner", "The Miner", "a sailor", "sailor.", "", " ", "the", "An apple a day", "U.S.A.", "usa", "\u00c9cole", "\u00e9cole", "\u0130stanbul", "STRASSE", "stra\u00dfe", "a\u0301 b", "a-b", "the-end",
           "unanswerable", "Unanswerable.", "in 1969", "1969", "\u4e2d\u6587", "\u4e2d \u6587", "x\u00a0y", "x\u3000y", "x\u200by", "\u2160 a \u2160", "a_b", "the _ a", "green turtle green", "green green turtle", "turtle", "\u00bd a", "a\u00bd", "$5", "\u20ac5"]
words = ["the", "a", "an", "green", "turtle", "Miner", "sailor", "1969", ".", ",", "works", "\u00c9t\u00e9", "USA"]
phrase = lambda: " ".join(rng.choice(words) for _ in range(rng.randrange(0, 5)))
pairs = [dict(prediction=p, gold=g) for p in answers for g in rng.sample(answers, 6)] + [dict(prediction=phrase(), gold=phrase()) for _ in range(80)]
for pair in pairs:
    pair.update(exact=compute_score.compute_exact(pair["gold"], pair["prediction"]), f1=float(compute_score.compute_f1(pair["gold"], pair["prediction"])))
normalized = [dict(text=a, normalized=compute_score.normalize_answer(a)) for a in answers + [phrase() for _ in range(30)]]
sets = []
for size, share in [(1, 0.0), (1, 1.0), (7, 0.5), (60, 0.4), (60, 0.0), (40, 1.0)]:
    items = []
    for i in range(size):
        has = rng.random() >= share
        golds = [rng.choice(answers + [phrase()]) for _ in range(rng.randrange(1, 4))] if has else []
        prediction = rng.choice(golds) if golds and rng.random() < 0.5 else rng.choice(["", "unanswerable", " unanswerable", phrase(), rng.choice(answers)])
        items.append(dict(id=str(i), prediction=prediction, answers=golds, no_answer_probability=rng.choice([0.0, 0.25, rng.random(), rng.random(), 1e-30])))
    score = metric.compute(predictions=[dict(id=i["id"], prediction_text=i["prediction"], no_answer_probability=i["no_answer_probability"]) for i in items],
                           references=[dict(id=i["id"], answers=dict(text=i["answers"], answer_start=[0] * len(i["answers"]))) for i in items])
    sets.append(dict(items=items, scores={k: float(v) for k, v in score.items() if not k.endswith(("_thresh", "total"))}))
(out / "squad.json").write_text(json.dumps(dict(pairs=pairs, normalized=normalized, sets=sets), indent=0) + "\n")
