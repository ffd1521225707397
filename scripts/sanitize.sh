#!/usr/bin/env bash
# Builds everything with sanitizers and runs the tests under them: what reads or writes where it must not, leaks, overflows, or races fails.
#
# usage: scripts/sanitize.sh asan|tsan|locks [options of ctest]     for example: scripts/sanitize.sh asan -R models/
# asan:  AddressSanitizer, LeakSanitizer and UndefinedBehaviorSanitizer, in build/asan; also notes which lines were run, for scripts/coverage.sh
# tsan:  ThreadSanitizer, in build/tsan: numbers that two threads read and write without an order
# locks: the same build, other options: the order of locks, copies of memory, signal handlers, in the tests of what has threads of its own
# Needs clang from 16 on (Debian: clang-19 libclang-rt-19-dev libomp-19-dev). On two cores a build takes most of an hour and the tests twice as long as without.
#
# libtorch itself is built without sanitizers: what it does inside is not seen, what it is given and gives back is. Nor are the vector
# instructions of our kernels seen by ThreadSanitizer: their tests compare the bits of several numbers of threads instead.
# scripts/sanitize/*.txt name what is known of other libraries. Tests that load the library into programs of others, and those that make
# operations of the program fail (scripts/faults.sh), are not among them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/say.sh
. scripts/lib/build.sh
. scripts/lib/clang.sh

kind=${1:-}
case $kind in
  asan) configure_with_clang asan -DSALIENT_COVERAGE=ON ;;
  tsan | locks) configure_with_clang tsan ;;
  *) die "expected asan, tsan or locks, found '$kind'; see the head of scripts/sanitize.sh" ;;
esac
shift
build all

lists=$PWD/scripts/sanitize
reports=$PWD/$build_dir/reports
tests=()
threads=1
case $kind in
  asan)
    export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=0:malloc_context_size=12:quarantine_size_mb=64
    export LSAN_OPTIONS=suppressions=$lists/leaks.txt:print_suppressions=0
    export UBSAN_OPTIONS=print_stacktrace=1
    # A file for each program, into which all its processes add; those that a test kills leave nothing.
    export LLVM_PROFILE_FILE=$PWD/$build_dir/coverage/%m.profraw
    ;;
  tsan | locks)
    # Tells ThreadSanitizer what libomp orders. libtorch's own regions run on the same libomp, since the program names it before libtorch names libgomp.
    export OMP_TOOL_LIBRARIES=/usr/lib/llvm-$clang_version/lib/libarcher.so KMP_BLOCKTIME=0
    [ -f "$OMP_TOOL_LIBRARIES" ] || die "there is no $OMP_TOOL_LIBRARIES; on Debian: apt-get install libomp-$clang_version-dev"
    # Into files: tests compare what programs print, and do not look at the exit code of those that they kill.
    common=ignore_noninstrumented_modules=1:die_after_fork=0:log_path=$reports/race
    ;;&
  tsan)
    threads=3
    # The order of locks is the other pass: here it would end where a library takes more of them than fit into a table.
    export TSAN_OPTIONS=suppressions=$lists/races.txt:history_size=7:detect_deadlocks=0:$common
    ;;
  locks)
    # The first setting is what libomp's tool reads, the one in the file what holds.
    export TSAN_OPTIONS=suppressions=$lists/locks.txt:second_deadlock_stack=1:$common:include=$lists/all_modules.txt
    tests=(-R '^(common/|calibration/recording|models/(tokenizer|side_by_side)|eval/model_scores|pipeline/(tracking|background|slurm|launch|sweep|concurrent|evaluation_resume|batch_evaluation|interrupted|c_interface))')
    ;;
esac
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$threads}
rm -rf "$reports"
mkdir -p "$reports"
status=0
ctest --test-dir "$build_dir" --output-on-failure --no-tests=error --timeout 3600 -j "$(build_jobs)" "${tests[@]}" "$@" </dev/null || status=$?
if [ -n "$(find "$reports" -type f -print -quit)" ]; then
  say "$(find "$reports" -type f | wc -l) processes reported something: $reports"
  head -60 "$(find "$reports" -type f -print -quit)" >&2
  status=1
fi
exit $status
