#!/usr/bin/env bash
# Fuzzes the readers of files from others with libFuzzer, under ASan and UBSan, and prints what was run and found.
#
# usage: scripts/fuzz.sh [--seconds N] [--runs N] [TARGET...]     for example: scripts/fuzz.sh --seconds 60 gguf template
# default: all targets of tests/fuzz/fuzz_targets.cpp, 60 seconds each. Needs clang from 16 on (Debian: clang-19 libclang-rt-19-dev libomp-19-dev).
#
# Inputs that reach new code collect in build/fuzz/corpus/TARGET; finds are build/fuzz/found/TARGET-*: copy one into
# tests/fuzz/corpus/TARGET, where tests/fuzz/replay_test.cpp runs it from then on.
# Exit status 1 when anything was found.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/say.sh
. scripts/lib/build.sh

seconds=60
runs=-1
targets=()
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) seconds=${2:?--seconds wants a number}; shift 2 ;;
    --runs) runs=${2:?--runs wants a number}; shift 2 ;;
    -*) die "unknown option $1; see the head of scripts/fuzz.sh" ;;
    *) targets+=("$1"); shift ;;
  esac
done
# 16 is the first that takes our C++20.
version=
for one in 19 18 17 16; do
  if [ -z "$version" ] && command -v "clang++-$one" >/dev/null; then version=$one; fi
done
[ -n "$version" ] || die "no clang from 16 on is there; on Debian: apt-get install clang-19 libclang-rt-19-dev libomp-19-dev"

bash scripts/setup.sh >&2
torch=$(cache_entry CMAKE_PREFIX_PATH)
pyarrow=$(cache_entry SALIENT_PYARROW)
build_dir=build/fuzz
if [ ! -f "$build_dir/build.ninja" ]; then
  quietly "cmake" cmake --preset fuzz "-DCMAKE_C_COMPILER=clang-$version" "-DCMAKE_CXX_COMPILER=clang++-$version" \
    "-DCMAKE_PREFIX_PATH=$torch" "-DSALIENT_PYARROW=$pyarrow" || die "the build could not be configured"
fi
build salient_fuzzer >&2
fuzzer=$build_dir/tests/fuzz/salient_fuzzer
export OMP_NUM_THREADS=1

mapfile -t known < <(SALIENT_FUZZ_TARGET='' "$fuzzer" /dev/null 2>&1 | sed -n 's/.*expected one of: //p' | tr ' ' '\n')
[ "${#targets[@]}" -gt 0 ] || targets=("${known[@]}")
mkdir -p "$build_dir/found" "$build_dir/log"
status=0
printf '%-16s %12s %10s %8s %8s %6s\n' target inputs 'a second' edges corpus finds
for target in "${targets[@]}"; do
  corpus=$build_dir/corpus/$target
  log=$build_dir/log/$target
  mkdir -p "$corpus"
  # Good files, and what earlier work kept.
  SALIENT_FUZZ_TARGET=$target SALIENT_FUZZ_SEEDS=$corpus "$fuzzer" /dev/null >/dev/null 2>&1 || true
  find "tests/fuzz/corpus/$target" -type f -exec cp -t "$corpus" {} + 2>/dev/null || true
  before=$(find "$build_dir/found" -name "$target-*" | wc -l)
  # No input may take ten seconds, or allocate half a gigabyte for its few kilobytes.
  SALIENT_FUZZ_TARGET=$target ASAN_OPTIONS=detect_leaks=1 "$fuzzer" "$corpus" -max_total_time="$seconds" -runs="$runs" -timeout=10 \
    -rss_limit_mb=3072 -malloc_limit_mb=512 -max_len=16384 -print_final_stats=1 -artifact_prefix="$build_dir/found/$target-" >"$log" 2>&1 || status=1
  after=$(find "$build_dir/found" -name "$target-*" | wc -l)
  stat() { sed -n "s/^stat::$1: *//p" "$log" | tail -1; }
  printf '%-16s %12s %10s %8s %8s %6s\n' "$target" "$(stat number_of_executed_units)" "$(stat average_exec_per_sec)" \
    "$(grep -o 'cov: [0-9]*' "$log" | tail -1 | cut -c6-)" "$(find "$corpus" -type f | wc -l)" $((after - before))
done
exit $status
