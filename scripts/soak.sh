#!/usr/bin/env bash
# Runs pipelines, sweeps, quantizations, exports and evaluations for an hour, kills them at random moments, starts them again, and
# compares what they leave with what undisturbed ones left: files byte for byte, stores row by row. Prints the audit; exit status 1
# on any difference.
#
# usage: scripts/soak.sh [--minutes N] [--seed N] [--iteration N] [--only NAME] [--threads N] [--keep]
# for example: scripts/soak.sh --minutes 3. All options: scripts/soak.sh --help
# Everything happens in a folder of its own below TMPDIR, which takes about 200 MB.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/say.sh
. scripts/lib/build.sh

bash scripts/setup.sh >&2
build salient >&2
exec python3 scripts/soak/soak.py "$@"
