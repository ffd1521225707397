#!/usr/bin/env bash
# Runs the tests of the Python package with a Python that has torch, transformers and accelerate: SALIENT_TEST_PYTHON, else that
# of .venv-test, which `scripts/test.sh --all` makes. Exit status 77 (skipped) with the reason where there is none.
#
# usage: tests/python/run.sh LIBSALIENT SALIENT
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${SALIENT_TEST_PYTHON:-$here/../../.venv-test/bin/python}
if ! command -v "$python" >/dev/null; then
  printf 'skipped: no Python to test with: %s is not there; scripts/test.sh --all makes it, SALIENT_TEST_PYTHON names another\n' "$python"
  exit 77
fi
if ! missing=$("$python" -c 'import accelerate, torch, transformers' 2>&1); then
  printf 'skipped: %s lacks a package: %s; scripts/test.sh --all installs them\n' "$python" "${missing##*$'\n'}"
  exit 77
fi
export SALIENT_LIBRARY=$1 SALIENT_TEST_PROGRAM=$2 PYTHONPATH=$here/../../pipeline/plugin/python PYTHONDONTWRITEBYTECODE=1
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false CUDA_VISIBLE_DEVICES=
unset SALIENT_PROCESS
exec "$python" -m unittest discover --start-directory "$here" --pattern 'test_*.py' --verbose
