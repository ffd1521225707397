#!/usr/bin/env bash
# Which calibration content serves better: the prompt alone, or the conversation with its answer? Quantizes the demo model with both, for
# several seeds, and prints the mean KL to float on held-out rows (the openmath test set as conversations) and on the mixed held-out text.
# usage: scripts/checks/content_mode.sh [PROGRAM]
set -euo pipefail
cd "$(dirname "$0")/../.."
program=${1:-build/release/salient}
model=models/demo
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$program" calibrate --model $model --data $model/data/openmath_test.jsonl --dataset heldout --samples 400 --keep-duplicates \
  --out "$work" >/dev/null
heldout=$(ls "$work"/calibration_heldout_*.jsonl)

kl() {  # ARTIFACT TEXT -> mean KL, nats
  "$program" eval "$1" --compare-with $model --tasks perplexity --data perplexity="$2" --window 256 --limit 100 --no-throughput --no-store \
    --json 2>/dev/null | awk -F'[:,]' '/"metric": "kl_divergence"/ {found = 1} /"value"/ && found {print $2; exit}'
}

printf '%-14s %-6s %14s %14s\n' content seed "KL, same data" "KL, mixed text"
for content in prompt conversation; do
  for seed in 1 2 3; do
    name=$work/$content$seed
    "$program" calibrate --model $model --data $model/data/openmath_train.jsonl --dataset openmath --seed $seed --content $content \
      --out "$name.calib" >/dev/null 2>&1
    "$program" quantize --model $model --calib "$name".calib/*.jsonl --out "$name" >/dev/null 2>&1
    printf '%-14s %-6s %14.3g %14.3g\n' $content $seed "$(kl "$name" "$heldout")" "$(kl "$name" $model/data/heldout.txt)"
  done
done
