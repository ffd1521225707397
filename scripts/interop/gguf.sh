#!/usr/bin/env bash
# The Python package gguf: the layout and the values of every GGUF file, and the importance matrix against transformers' activations.
#
# usage: scripts/interop/gguf.sh     scripts/lib/interop.sh says which variables it reads
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. scripts/lib/say.sh
. scripts/lib/interop.sh

environment gguf "torch==2.13.0" "transformers==5.23.0 accelerate gguf==0.19.0"
check gguf check_gguf_package.py
