#!/usr/bin/env bash
# llama.cpp through llama-cpp-python (pip compiles it: ten minutes on two cores), every GGUF format.
#
# usage: scripts/interop/llama-cpp.sh     scripts/lib/interop.sh says which variables it reads
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. scripts/lib/say.sh
. scripts/lib/interop.sh

environment llama-cpp "torch==2.13.0" "transformers==5.23.0 accelerate gguf==0.19.0" "llama-cpp-python==0.3.36"
check llama-cpp check_llama_cpp.py
