#!/usr/bin/env python3
"""Reference values for tests/eval/paired_statistics_test.cpp, by scipy 1.17.1 and statsmodels 0.15.0.

usage: paired_statistics.py OUT_FOLDER
"""
import json, pathlib, sys
import numpy as np
import scipy, statsmodels, statsmodels.api as sm
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

out = pathlib.Path(sys.argv[1])
rng = np.random.default_rng(8)
rounded = lambda values: [round(float(v), 6) for v in values]
golden = dict(versions=dict(scipy=scipy.__version__, statsmodels=statsmodels.__version__))

golden["mcnemar"] = []
for lost, gained in [(0, 0), (1, 0), (0, 5), (3, 3), (2, 9), (10, 25), (51, 50), (300, 240), (2000, 2001), (1500, 900)]:
    n, fewer = lost + gained, min(lost, gained)
    mid = 1.0 if lost == gained else 2 * stats.binom.cdf(fewer - 1, n, 0.5) + stats.binom.pmf(fewer, n, 0.5)
    golden["mcnemar"].append(dict(lost=lost, gained=gained, exact=float(mcnemar([[0, lost], [gained, 0]], exact=True).pvalue) if n else 1.0, mid=float(mid)))

golden["wilson"] = [dict(right=k, n=n, bounds=[float(b) for b in proportion_confint(k, n, 0.05, "wilson")])
                    for k, n in [(0, 10), (10, 10), (3, 17), (259, 400), (9999, 10042)]]

p_values = [0.04, 0.001, 0.8, 0.013, 0.04, 0.3]
golden["holm"] = dict(p=p_values, adjusted=[float(p) for p in multipletests(p_values, method="holm")[1]])

# Scores of questions about 14 passages that share what happens to them: an ordinary regression on a constant with clustered errors.
clusters = np.repeat(np.arange(14), rng.integers(1, 7, 14)) + 1
shared = rng.normal(0, 0.3, 15)[clusters]
base = rng.uniform(0, 1, len(clusters)).round(3)
value = (base + shared + rng.normal(0, 0.1, len(clusters))).round(3)
fit = sm.OLS(value - base, np.ones(len(clusters))).fit(cov_type="cluster", cov_kwds=dict(groups=clusters, use_correction=False))
sums = np.array([(value - base)[clusters == c].sum() for c in range(1, 15)])
flip = stats.permutation_test((sums, np.zeros(14)), lambda a, b, axis: np.sum(a - b, axis=axis), permutation_type="samples", vectorized=True, n_resamples=np.inf)
golden["clusters"] = dict(value=rounded(value), base=rounded(base), cluster=[int(c) for c in clusters], stderr=float(fit.bse[0]), p=float(flip.pvalue))

# More pairs than are enumerated: the reference takes many random signs.
def percentile_bounds(a, b, statistic):
    r = stats.bootstrap((a, b), statistic, paired=True, vectorized=True, n_resamples=200_000, method="percentile", random_state=np.random.default_rng(1))
    return [float(r.confidence_interval.low), float(r.confidence_interval.high), float(r.standard_error)]
difference = lambda a, b, axis: np.mean(a, axis=axis) - np.mean(b, axis=axis)
ratio = lambda a, b, axis: np.mean(a, axis=axis) / np.mean(b, axis=axis)
ppl = lambda a, b, axis: np.exp(-np.mean(a, axis=axis)) - np.exp(-np.mean(b, axis=axis))
base = rng.uniform(0, 1, 60).round(3)
value = np.clip(base + rng.normal(-0.04, 0.15, 60), 0, 1).round(3)
flip = stats.permutation_test((value, base), difference, permutation_type="samples", vectorized=True, n_resamples=400_000, random_state=np.random.default_rng(2))
golden["scores"] = dict(value=rounded(value), base=rounded(base), p=float(flip.pvalue), difference=percentile_bounds(value, base, difference),
                        ratio=percentile_bounds(value, base, ratio), perplexity=percentile_bounds(value, base, ppl))
base = (rng.uniform(0, 1, 200) < 0.6).astype(float)
value = np.where(rng.uniform(0, 1, 200) < 0.1, 1 - base, base)
golden["right_or_wrong"] = dict(value=[int(v) for v in value], base=[int(v) for v in base], difference=percentile_bounds(value, base, difference),
                                ratio=percentile_bounds(value, base, ratio))
(out / "paired_statistics.json").write_text(json.dumps(golden) + "\n")
