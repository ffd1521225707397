#!/usr/bin/env python3
"""usage: scripts/goldens/eval_choice_filter.py  -- writes tests/data/eval/choice_filter.json

What the filter multi_choice_regex of lm-evaluation-harness 0.4.13 finds where choices and answers hold punctuation and symbols of many scripts.
"""
import json
import pathlib

from lm_eval.filters.extraction import MultiChoiceRegexFilter

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "eval" / "choice_filter.json"
CHOICES = ["«rot»", "it’s–so", "a+b=c", "£5", "「青」、", "x_y", "¿qué?", "Straße…", "1/2"]
TEXTS = ["rot", "«rot»", "it's so", "its–so", "itsso", "a+b=c", "ab c", "abc", "£5.", "5", "青", "青、。", "xy", "x_y", "qué", "que", "strasse", "STRASSE…", "straße", "12", "½", "1⁄2", "x‿y", "x·y", "", ": B", ":C", "none (D)", "#### 7", "it’s—so", "†rot‡", "a－b"]
CASES = [dict(ignore_punctuation=True), dict(ignore_punctuation=True, ignore_case=True), dict(ignore_case=True), dict(ignore_punctuation=True, regexes_to_ignore=["[0-9]", "\\s"]), dict()]
rows = [dict(arguments=c, found=MultiChoiceRegexFilter(**c).apply([[t] for t in TEXTS], [dict(choices=CHOICES)] * len(TEXTS))) for c in CASES]
for row in rows: row["found"] = [one[0] for one in row["found"]]
OUT.write_text(json.dumps(dict(choices=CHOICES, texts=TEXTS, cases=rows), ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
