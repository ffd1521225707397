#!/usr/bin/env bash
# transformers with compressed-tensors: float, smoothed and compressed-tensors folders.
#
# usage: scripts/interop/transformers.sh     scripts/lib/interop.sh says which variables it reads
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. scripts/lib/say.sh
. scripts/lib/interop.sh

environment transformers "torch==2.13.0" "transformers==5.23.0 accelerate compressed-tensors==0.20.0"
check transformers check_transformers.py
