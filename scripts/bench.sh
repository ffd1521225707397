#!/usr/bin/env bash
# Measures speed, memory and load time against their targets and against llama.cpp, AutoAWQ and llm-compressor, on this machine in one sitting, and prints
# one table. Nothing is installed: the peers' Pythons are named, and a row that cannot run says why. Run it on a quiet machine; the whole takes an hour.
#
#   python3 -m venv llama && llama/bin/pip install numpy llama-cpp-python==0.3.36
#   scripts/bench.sh --python llama-cpp=llama/bin/python --docs
#
# scripts/bench/compare_peers.py says how the Pythons of autoawq and llm-compressor are made. Options and rows: scripts/bench.sh --help.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/say.sh"
python3 -c 'import numpy' 2>/dev/null || die "python3 has no NumPy: install the package python3-numpy, or put an environment with numpy first in PATH"
exec python3 "$(dirname "${BASH_SOURCE[0]}")/bench/performance_table.py" "$@"
