#!/usr/bin/env bash
# The versions of transformers and compressed-tensors that llm-compressor 0.14 wants: the same checks as transformers.sh.
#
# usage: scripts/interop/compressed-tensors.sh     scripts/lib/interop.sh says which variables it reads
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. scripts/lib/say.sh
. scripts/lib/interop.sh

environment compressed-tensors "torch==2.13.0" "transformers==5.17.0 accelerate compressed-tensors==0.19.0"
check compressed-tensors check_transformers.py
