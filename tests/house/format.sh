#!/usr/bin/env bash
# Every source is as .clang-format wants it. Versions differ in details, so it is one version that says what that is: 14, Debian 12's.
# usage: format.sh      exit status 77 = skipped: there is none
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
if ! command -v clang-format-14 >/dev/null; then
  echo "skipped: clang-format-14 is not installed (Debian: clang-format-14)"
  exit 77
fi
find calibration common eval models pipeline quant tests \( -name '*.h' -o -name '*.cpp' \) -print0 |
  xargs -0 -P 2 -n 50 clang-format-14 --dry-run --Werror || {
  echo "expected the sources formatted; do: clang-format-14 -i FILE..."
  exit 1
}
