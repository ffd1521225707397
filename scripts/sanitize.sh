#!/usr/bin/env bash
# Builds everything with sanitizers and runs the tests under them: what reads or writes where it must not, leaks, overflows, or races fails.
#
# usage: scripts/sanitize.sh asan|tsan [options of ctest]     for example: scripts/sanitize.sh asan -R models/
# asan: AddressSanitizer, LeakSanitizer and UndefinedBehaviorSanitizer, in build/asan; also notes which lines were run, for scripts/coverage.sh
# tsan: ThreadSanitizer, in build/tsan
# Needs clang from 16 on (Debian: clang-19 libclang-rt-19-dev libomp-19-dev). On two cores a build takes most of an hour and the tests twice as long as without.
#
# libtorch itself is built without sanitizers: what it does inside is not seen, what it is given and gives back is.
# scripts/sanitize/*.txt name what is known of other libraries. Tests that load the library into programs of others, and those that make
# operations of the program fail (scripts/faults.sh), are not among them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/say.sh
. scripts/lib/build.sh
. scripts/lib/clang.sh

preset=${1:-}
case $preset in
  asan) configure_with_clang asan -DSALIENT_COVERAGE=ON ;;
  tsan) configure_with_clang tsan ;;
  *) die "expected asan or tsan, found '$preset'; see the head of scripts/sanitize.sh" ;;
esac
shift
build all

export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=0:malloc_context_size=12:quarantine_size_mb=64
export LSAN_OPTIONS=suppressions=$PWD/scripts/sanitize/leaks.txt:print_suppressions=0
export UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=suppressions=$PWD/scripts/sanitize/races.txt:ignore_noninstrumented_modules=1:second_deadlock_stack=1
# A file for each program, into which all its processes add; those that a test kills leave nothing.
export LLVM_PROFILE_FILE=$PWD/$build_dir/coverage/%m.profraw
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec ctest --test-dir "$build_dir" --output-on-failure --no-tests=error --timeout 3600 -j "$(build_jobs)" "$@" </dev/null
