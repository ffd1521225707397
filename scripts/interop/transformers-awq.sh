#!/usr/bin/env bash
# transformers with the kernel package that it wants for AWQ today, GPTQModel, on the CPU.
#
# usage: scripts/interop/transformers-awq.sh     scripts/lib/interop.sh says which variables it reads
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. scripts/lib/say.sh
. scripts/lib/interop.sh

# gptqmodel asks for a newer torch than the others here and runs with this one, so it is installed without its requirements, which stand before it.
# It compiles a CPU kernel when the first layer runs: minutes, kept in ~/.cache/gptqmodel.
BUILD_CUDA_EXT=0 environment transformers-awq "torch==2.13.0" \
  "transformers==5.23.0 accelerate requests datasets torchao device-smi pypcre tokenicer logbar threadpoolctl defuser dill ninja protobuf pillow" \
  "--no-deps gptqmodel==7.7.0"
check transformers-awq check_transformers_awq.py
