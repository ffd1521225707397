#!/usr/bin/env bash
# Makes one operation after the other of the program fail, in tests/pipeline/fault_*_test.cpp, and prints how each kind of fault ended.
#
# usage: scripts/faults.sh [--faults N|all] [TEST...]     for example: scripts/faults.sh --faults 20 quantize export
# default: all of them, up to 10 faults for each row: a kind of operation, and what becomes of it. all: every operation, which takes days.
#
# The columns: operations of the kind in all commands, faults injected, and of those how many the command went on after, how many it
# reported as an error, how many ended the process, and how many lost nothing. Exit status 1 when one lost anything.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/say.sh
. scripts/lib/build.sh

faults=10
tests=()
while [ $# -gt 0 ]; do
  case $1 in
    --faults) faults=${2:?--faults wants a number, or all}; shift 2 ;;
    -*) die "unknown option $1; see the head of scripts/faults.sh" ;;
    *) tests+=("$1"); shift ;;
  esac
done
if [ "${#tests[@]}" -eq 0 ]; then
  for file in tests/pipeline/fault_*_test.cpp; do
    name=${file##*/fault_}
    tests+=("${name%_test.cpp}")
  done
fi

bash scripts/setup.sh >&2
log=$build_dir/faults
mkdir -p "$log"
status=0
for test in "${tests[@]}"; do
  build "pipeline_fault_${test}_test" >&2
  SALIENT_FAULTS=$faults "$build_dir/tests/pipeline_fault_${test}_test" >"$log/$test.log" 2>&1 || {
    status=1
    say "$test: something was lost; $log/$test.log has it"
  }
done
for test in "${tests[@]}"; do grep '^faults ' "$log/$test.log" || true; done | awk '
  { row = sprintf("%-12s %-8s", $3, $4); if (!(row in injected)) order[++rows] = row
    operations[row] += $5; injected[row] += $6; went_on[row] += $7; failed[row] += $8; ended[row] += $9; survived[row] += $10 }
  END {
    format = "%s %10s %10s %10s %10s %10s %10s\n"
    printf format, "operation    fault   ", "operations", "injected", "went on", "error", "ended", "kept all"
    for (i = 1; i <= rows; ++i) {
      row = order[i]
      printf format, row, operations[row], injected[row], went_on[row], failed[row], ended[row], survived[row]
      all += injected[row]; on += went_on[row]; told += failed[row]; dead += ended[row]; kept += survived[row]
    }
    printf format, sprintf("%-21s", "all"), "", all, on, told, dead, kept
  }'
exit $status
