#!/usr/bin/env bash
# llama-quantize, built from the llama.cpp that llama-cpp-python's source package holds: the importance matrix that `salient imatrix` writes, and
# blocks beside its own.
#
# usage: scripts/interop/llama-quantize.sh     scripts/lib/interop.sh says which variables it reads; SALIENT_LLAMA_QUANTIZE names one that is built
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. scripts/lib/say.sh
. scripts/lib/interop.sh

package=llama-cpp-python version=0.3.36
environment llama-quantize "gguf==0.19.0"
quantizer=${SALIENT_LLAMA_QUANTIZE:-$interop_dir/llama.cpp/build/bin/llama-quantize}
if [ ! -x "$quantizer" ]; then
  [ -z "${SALIENT_LLAMA_QUANTIZE:-}" ] || die "SALIENT_LLAMA_QUANTIZE=$quantizer is no program"
  source_dir="$interop_dir/llama.cpp"
  rm -rf "$source_dir"
  mkdir -p "$source_dir"
  say "llama-quantize: fetching $package $version, compiling llama.cpp (minutes)"
  quietly "pip download" "$python" -m pip --disable-pip-version-check --no-input download --no-deps --no-build-isolation --no-binary :all: -d "$source_dir" "$package==$version" ||
    die "the source package of $package $version could not be fetched; check the network, or set SALIENT_LLAMA_QUANTIZE to a program"
  tar -xzf "$source_dir"/*.tar.gz -C "$source_dir" --strip-components=1
  quietly cmake cmake -S "$source_dir/vendor/llama.cpp" -B "$source_dir/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF &&
    quietly "cmake --build" cmake --build "$source_dir/build" --target llama-quantize || die "llama-quantize could not be built; the lines above are the compiler's"
fi
check llama-quantize check_llama_quantize.py --tool "llama-quantize=$quantizer" --tool "version=llama.cpp of $package $version"
