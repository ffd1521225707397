#!/usr/bin/env bash
# torch.jit.load in Python and in C++, in a program that this script builds with cmake against the libtorch of the same environment.
#
# usage: scripts/interop/torchscript.sh     scripts/lib/interop.sh says which variables it reads
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. scripts/lib/say.sh
. scripts/lib/interop.sh

environment torchscript "torch==2.13.0" "transformers==5.17.0 accelerate compressed-tensors==0.19.0"
torch_dir=$("$python" -c 'import torch; print(torch.utils.cmake_prefix_path)')
build="$interop_dir/torchscript_cpp"
say "torchscript: building $build"
quietly cmake cmake -S scripts/interop/torchscript_cpp -B "$build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$torch_dir" &&
  quietly "cmake --build" cmake --build "$build" || die "the C++ program could not be built; the lines above are the compiler's"
check torchscript check_torchscript_loaders.py --tool "run_torchscript=$build/run_torchscript"
