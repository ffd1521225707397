#!/usr/bin/env python3
"""usage: scripts/goldens/eval_class_metrics.py  -- writes tests/data/eval/class_metrics.json

lm-evaluation-harness 0.4.13 with scikit-learn 1.9.1: what ConfigurableTask.process_results makes of choices' log-likelihoods for acc, f1 and mcc, and what the
aggregations f1, matthews_corrcoef and nanmean make of that, with their bootstrapped standard errors. No model runs.
"""
import json
import math
import pathlib
import random
import types
import warnings

from lm_eval.api import metrics
from lm_eval.api.registry import get_aggregation
from lm_eval.api.task import ConfigurableTask

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "eval" / "class_metrics.json"
DRAWS = 3000
random.seed(5)
warnings.filterwarnings("ignore")


def process(document):
    names = ["acc", "f1", "mcc"]
    task = types.SimpleNamespace(config=types.SimpleNamespace(process_results=None), OUTPUT_TYPE="multiple_choice", _metric_fn_list=dict.fromkeys(names), multiple_input=False,
                                 multiple_target=False, doc_to_choice=lambda d: d["choices"], doc_to_target=lambda d: d["gold"])
    scores = ConfigurableTask.process_results(task, document, [(value, False) for value in document["log_probs"]])
    gold, predicted = scores["f1"]
    assert (gold, predicted) == scores["mcc"]
    return dict(document, acc=float(scores["acc"]), label=int(gold), predicted=int(predicted))


def aggregated(name, items):
    function = get_aggregation(name)
    return dict(value=float(function(items)), stderr=float(metrics.stderr_for_metric(function, DRAWS)(items)) if len(items) > 1 else None)


def case(count, choices, golds, skill, aggregations):
    documents = []
    for _ in range(count):
        gold = random.choice(golds)
        values = [round(random.uniform(-9, -1), 3) for _ in choices]
        index = choices.index(gold) if gold in choices else gold
        if isinstance(index, int) and 0 <= index < len(choices) and random.random() < skill: values[index] = -0.5
        documents.append(process(dict(choices=choices, gold=gold, log_probs=values)))
    pairs = [(d["label"], d["predicted"]) for d in documents]
    return dict(documents=documents, aggregations={a: aggregated(a, pairs) for a in aggregations})


both = ["f1", "matthews_corrcoef"]
cases = [case(40, ["no", "yes"], [0, 1], 0.5, both), case(30, ["no", "yes"], ["no", "yes", "yes"], 0.2, both), case(12, ["no", "yes"], [0], 1.0, both), case(9, ["no", "yes"], [1], 0.0, both),
         case(2, ["no", "yes"], [1], 1.0, both), case(1, ["no", "yes"], [1], 1.0, both), case(50, ["a", "b", "c", "d"], [0, 1, 2, 3], 0.6, ["matthews_corrcoef"]),
         case(20, ["a", "b", "c"], ["c", 7, "not there"], 0.7, ["matthews_corrcoef"])]
values = [0.25, math.nan, 1.0, 3.5, math.nan, -2.0, 0.125]
nanmean = dict(values=[None if math.isnan(v) else v for v in values], **aggregated("nanmean", values))
OUT.write_text(json.dumps(dict(draws=DRAWS, cases=cases, nanmean=nanmean, bypass=get_aggregation("bypass")([None])), indent=0) + "\n")
print([c["aggregations"] for c in cases], nanmean)
