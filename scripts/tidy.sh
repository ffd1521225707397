#!/usr/bin/env bash
# Has clang-tidy look through sources of the program for mistakes (.clang-tidy says for which). Exit status 1 when it finds one.
#
# usage: scripts/tidy.sh [FOLDER|FILE...]     for example: scripts/tidy.sh common quant/kernels; without: all
# A source that includes libtorch takes about 10 seconds. Needs clang-tidy of the clang that is there (Debian: clang-19 clang-tidy-19 libomp-19-dev).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/say.sh
. scripts/lib/build.sh
. scripts/lib/clang.sh

folders=("$@")
if [ "${#folders[@]}" -eq 0 ]; then folders=(calibration common eval models pipeline quant); fi
# One command a source, each with the headers it includes itself.
configure_with_clang tidy
command -v "clang-tidy-$clang_version" >/dev/null ||
  die "clang-$clang_version is there, clang-tidy-$clang_version is not; on Debian: apt-get install clang-tidy-$clang_version"
mapfile -t sources < <(find "${folders[@]}" -name '*.cpp' | sort)
[ "${#sources[@]}" -gt 0 ] || die "no source in ${folders[*]}"
say "clang-tidy $clang_version over ${#sources[@]} sources"
# What it says beside its finds, as how many warnings it did not show, is of no use.
printf '%s\0' "${sources[@]}" | xargs -0 -P "$(build_jobs)" -n 4 "clang-tidy-$clang_version" --quiet -p "$build_dir" 2>/dev/null || {
  say "expected no finds; what .clang-tidy asks for wrongly is left out there, with the reason"
  exit 1
}
