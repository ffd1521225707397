#!/usr/bin/env bash
# AutoAWQ 0.2.9 with transformers 4.51: its four layouts, written by Salient and read by it, and the other way round.
#
# usage: scripts/interop/autoawq.sh     scripts/lib/interop.sh says which variables it reads
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. scripts/lib/say.sh
. scripts/lib/interop.sh

environment autoawq "torch==2.13.0 setuptools wheel" "transformers==4.51.3 datasets zstandard accelerate" "--no-deps --no-build-isolation autoawq==0.2.9"
check autoawq check_autoawq_layouts.py
