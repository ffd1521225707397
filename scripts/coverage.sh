#!/usr/bin/env bash
# Which lines of the source the tests ran, by folder, as scripts/sanitize.sh asan noted it.
#
# usage: scripts/coverage.sh [--files N]     --files: also the N files with the most lines that nothing ran
# Needs llvm's tools of clang's version (Debian: llvm-19) and python3. Lines of headers count once, whichever source includes them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/say.sh
. scripts/lib/build.sh
. scripts/lib/clang.sh

files=0
while [ $# -gt 0 ]; do
  case $1 in
    --files) files=${2:?--files wants a number}; shift 2 ;;
    *) die "unknown option $1; see the head of scripts/coverage.sh" ;;
  esac
done
find_clang
build_dir=build/asan
[ -n "$(find $build_dir/coverage -name '*.profraw' -print -quit 2>/dev/null)" ] || die "nothing was noted yet: run scripts/sanitize.sh asan"
for tool in llvm-profdata llvm-cov; do
  command -v $tool-"$clang_version" >/dev/null || die "there is no $tool-$clang_version; on Debian: apt-get install llvm-$clang_version"
done

# A program that was built anew since leaves notes that no longer fit beside the new ones: those are left out.
"llvm-profdata-$clang_version" merge -sparse -failure-mode=all -o $build_dir/coverage/merged.profdata $build_dir/coverage/*.profraw
objects=()
for program in "$build_dir"/tests/*_test "$build_dir"/salient; do
  if [ -f "$program" ]; then objects+=(-object "$program"); fi
done
"llvm-cov-$clang_version" export -summary-only -instr-profile=$build_dir/coverage/merged.profdata "${objects[@]:1}" |
  python3 scripts/sanitize/coverage_table.py "$PWD" "$files"
