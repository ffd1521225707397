#!/usr/bin/env bash
# Sets the machine up where needed, builds everything, runs the tests. Exit status 0 when all pass.
#
# usage: scripts/test.sh [--all] [options of ctest]     for example: scripts/test.sh -R quant/
# --all: also installs what optional tests need, which are skipped otherwise (scripts/lib/optional_tests.sh): transformers, MLflow, Slurm, MPI
# environment: SALIENT_TORCH, SALIENT_PIP_ARGS, SALIENT_TEST_PYTHON, CMAKE_BUILD_PARALLEL_LEVEL (scripts/lib), OMP_NUM_THREADS (1 here unless set)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/say.sh
. scripts/lib/build.sh
. scripts/lib/packages.sh
. scripts/lib/libtorch.sh
. scripts/lib/optional_tests.sh

all=no
if [ "${1:-}" = --all ]; then
  all=yes
  shift
fi
# Before the build, which looks for some of them.
if [ "$all" = yes ]; then install_optional_tests; fi
bash scripts/setup.sh
(install_packages "${test_packages[@]}") || say "going on without: tests that need ${test_packages[*]} are skipped"
build all
# Two test programs at a time with one thread each: with more, libtorch's threads would wait for one another.
jobs=$(nproc)
if ((jobs > 2)); then jobs=2; fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec ctest --test-dir "$build_dir" --output-on-failure --no-tests=error -j "$jobs" "$@" </dev/null
