#!/usr/bin/env bash
# clang-tidy finds nothing in common/, which a test run has the time for; scripts/tidy.sh looks through the rest.
# usage: tidy.sh      exit status 77 = skipped: there is none
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
for version in 19 18 17 16; do
  if command -v "clang++-$version" >/dev/null && command -v "clang-tidy-$version" >/dev/null; then exec scripts/tidy.sh common; fi
  if command -v "clang++-$version" >/dev/null; then break; fi
done
echo "skipped: there is no clang with its clang-tidy (Debian: clang-19 clang-tidy-19 libomp-19-dev)"
exit 77
