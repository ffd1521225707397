#!/usr/bin/env bash
# Fuzzes the readers of files from others with libFuzzer, under ASan and UBSan, and prints what was run and found: now, and in all calls together.
#
# usage: scripts/fuzz.sh [--seconds N] [--runs N | --until N] [--jobs N] [TARGET...]     for example: scripts/fuzz.sh --seconds 60 gguf template
#        --until N: as many inputs as are missing to N in all calls together, within the seconds; a target that has them is left out
#        scripts/fuzz.sh --report       what all calls ran so far; runs nothing
#        scripts/fuzz.sh --pack [TARGET...]   writes what the inputs reach, with few of them, to tests/fuzz/corpus
# default: all targets of tests/fuzz/fuzz_targets.cpp, 60 seconds each, one at a time (--jobs). Needs clang from 16 on
# (Debian: clang-19 libclang-rt-19-dev libomp-19-dev) and python3.
#
# Inputs that reach new code collect in build/fuzz/corpus/TARGET; finds are build/fuzz/found/TARGET-*: copy one into tests/fuzz/seeds or --pack it,
# and tests/fuzz/replay_test.cpp runs it from then on. What was run is added to tests/fuzz/history.txt, a line for each call and target, to be committed.
# Exit status 1 when anything was found.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/say.sh
. scripts/lib/build.sh
. scripts/lib/clang.sh

seconds=60
runs=-1
until=-1
jobs=1
does=fuzz
targets=()
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) seconds=${2:?--seconds wants a number}; shift 2 ;;
    --runs) runs=${2:?--runs wants a number}; shift 2 ;;
    --until) until=${2:?--until wants a number}; shift 2 ;;
    --jobs) jobs=${2:?--jobs wants a number}; shift 2 ;;
    --report | --pack) does=${1#--}; shift ;;
    -*) die "unknown option $1; see the head of scripts/fuzz.sh" ;;
    *) targets+=("$1"); shift ;;
  esac
done
build_dir=build/fuzz
history=tests/fuzz/history.txt  # date target inputs seconds finds

# row TARGET INPUTS SECONDS EDGES CORPUS FINDS: a line of the table, with what all calls ran.
heading() { printf '%-16s %12s %10s %8s %8s %6s %14s %10s\n' target inputs 'a second' edges corpus finds 'all inputs' 'all hours'; }
all_of() { awk -v target="$1" '$2 == target {inputs += $3; seconds += $4} END {printf "%d %.2f", inputs, seconds / 3600}' "$history"; }
row() {
  local all
  read -r -a all <<<"$(all_of "$1")"
  printf '%-16s %12s %10s %8s %8s %6s %14s %10s\n' "$1" "$2" "$(($2 / ($3 > 0 ? $3 : 1)))" "$4" "$5" "$6" "${all[0]}" "${all[1]}"
}

if [ "$does" = report ]; then
  [ -s "$history" ] || die "nothing was run yet: there is no $history"
  awk '{inputs[$2] += $3; seconds[$2] += $4; finds[$2] += $5; total += $3; hours += $4 / 3600; found += $5}
    END {for (name in inputs) printf "%-16s %14d inputs %8.2f hours %6d finds\n", name, inputs[name], seconds[name] / 3600, finds[name] | "sort"
      close("sort"); printf "%-16s %14d inputs %8.2f hours %6d finds\n", "all", total, hours, found}' "$history"
  exit 0
fi

configure_with_clang fuzz
build salient_fuzzer >&2
fuzzer=$build_dir/tests/fuzz/salient_fuzzer
export OMP_NUM_THREADS=1
# No stacks of allocations, little kept of what was freed, no second stack for locals: more than half as many inputs again in the same time. What a find
# needs to be understood is shown by running it again: SALIENT_FUZZ_TARGET=TARGET build/fuzz/tests/fuzz/salient_fuzzer FILE.
export ASAN_OPTIONS=detect_leaks=1:malloc_context_size=0:detect_stack_use_after_return=0:quarantine_size_mb=8

mapfile -t known < <(SALIENT_FUZZ_TARGET='' "$fuzzer" /dev/null 2>&1 | sed -n 's/.*expected one of: //p' | tr ' ' '\n')
[ "${#targets[@]}" -gt 0 ] || targets=("${known[@]}")
for target in "${targets[@]}"; do
  [[ " ${known[*]} " == *" $target "* ]] || die "unknown target $target; known: ${known[*]}"
done
mkdir -p "$build_dir/found" "$build_dir/log"
touch "$history"

# collect TARGET: good files, and what earlier work kept, into the target's corpus.
collect() {
  local corpus=$build_dir/corpus/$1
  mkdir -p "$corpus"
  SALIENT_FUZZ_TARGET=$1 SALIENT_FUZZ_SEEDS=$corpus "$fuzzer" /dev/null >/dev/null 2>&1 || true
  if [ -f "tests/fuzz/corpus/$1.base64" ]; then python3 scripts/fuzz/corpus.py unpack "tests/fuzz/corpus/$1.base64" "$corpus"; fi
}

# What one input may take: ten seconds, half a gigabyte in one piece.
limits=(-timeout=10 -rss_limit_mb=3072 -malloc_limit_mb=512)
# Short inputs for three quarters of the time, since they take half as long; then long ones.
lengths=(512 512 512 16384)

# fuzz TARGET: runs it, notes what it ran, prints its row; fails where something was found.
fuzz() {
  local target=$1 corpus=$build_dir/corpus/$1 log=$build_dir/log/$1 status=0 started=$SECONDS took before after inputs=0 part ran runs=$runs all
  if [ "$until" -ge 0 ]; then
    read -r -a all <<<"$(all_of "$target")"
    runs=$((until - all[0]))
    [ "$runs" -gt 0 ] || return 0
  fi
  collect "$target"
  before=$(find "$build_dir/found" -name "$target-*" | wc -l)
  for part in "${!lengths[@]}"; do
    SALIENT_FUZZ_TARGET=$target "$fuzzer" "$corpus" -max_total_time=$(((seconds + 3) / 4)) -runs=$((runs < 0 ? -1 : (runs + 3) / 4)) "${limits[@]}" \
      -max_len="${lengths[part]}" -print_final_stats=1 -artifact_prefix="$build_dir/found/$target-" >"$log.$part" 2>&1 || status=1
    ran=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log.$part" | tail -1)
    # A process that a find ended may not have said it: the last number that it gave.
    [ -n "$ran" ] || ran=$(sed -n 's/^#\([0-9]*\)\t.*/\1/p' "$log.$part" | tail -1)
    inputs=$((inputs + ${ran:-0}))
  done
  took=$((SECONDS - started))
  after=$(find "$build_dir/found" -name "$target-*" | wc -l)
  printf '%s %s %s %s %s\n' "$(date -u +%F)" "$target" "$inputs" "$took" $((after - before)) >>"$history"
  row "$target" "$inputs" "$took" "$(grep -o 'cov: [0-9]*' "$log.3" | tail -1 | cut -c6-)" "$(find "$corpus" -type f | wc -l)" $((after - before))
  return $status
}

# pack TARGET: the fewest, shortest inputs that reach what the corpus reaches.
pack() {
  local target=$1 few=$build_dir/few/$1
  collect "$target"
  rm -rf "$few"
  mkdir -p "$few"
  SALIENT_FUZZ_TARGET=$target "$fuzzer" -merge=1 "${limits[@]}" -max_len=1024 "$few" "$build_dir/corpus/$target" >"$build_dir/log/$target.merge" 2>&1 ||
    die "$target: merging failed, see $build_dir/log/$target.merge"
  mkdir -p tests/fuzz/corpus
  python3 scripts/fuzz/corpus.py pack "$few" "tests/fuzz/corpus/$target.base64"
  say "tests/fuzz/corpus/$target.base64: $(wc -l <"tests/fuzz/corpus/$target.base64") inputs, $(wc -c <"tests/fuzz/corpus/$target.base64") bytes"
}

status=0
if [ "$does" = pack ]; then
  for target in "${targets[@]}"; do pack "$target"; done
  exit 0
fi
heading
for target in "${targets[@]}"; do
  while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n || status=1; done
  fuzz "$target" &
done
while [ -n "$(jobs -p)" ]; do wait -n || status=1; done
exit $status
