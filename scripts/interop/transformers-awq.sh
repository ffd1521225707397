#!/usr/bin/env bash
# transformers with the kernel package that it wants for AWQ today, GPTQModel, on the CPU.
#
# usage: scripts/interop/transformers-awq.sh     scripts/lib/interop.sh says which variables it reads
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. scripts/lib/say.sh
. scripts/lib/interop.sh

# The last version that takes this torch; without its CUDA extensions.
BUILD_CUDA_EXT=0 environment transformers-awq "torch==2.13.0" "transformers==5.23.0 accelerate" "gptqmodel==7.0.0 torch==2.13.0 transformers==5.23.0"
check transformers-awq check_transformers_awq.py
