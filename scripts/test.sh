#!/usr/bin/env bash
# Sets the machine up where needed, builds everything, runs the tests. Exit status 0 when all pass.
#
# usage: scripts/test.sh [options of ctest]     for example: scripts/test.sh -R quant/
# environment: SALIENT_TORCH, SALIENT_PIP_ARGS, CMAKE_BUILD_PARALLEL_LEVEL (scripts/lib), OMP_NUM_THREADS (1 here unless set)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/say.sh
. scripts/lib/build.sh
. scripts/lib/packages.sh

bash scripts/setup.sh
(install_packages "${test_packages[@]}") || say "going on without: tests that need ${test_packages[*]} are skipped"
build all
# Two test programs at a time with one thread each: with more, libtorch's threads would wait for one another.
jobs=$(nproc)
if ((jobs > 2)); then jobs=2; fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec ctest --test-dir "$build_dir" --output-on-failure --no-tests=error -j "$jobs" "$@" </dev/null
