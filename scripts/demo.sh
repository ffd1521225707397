#!/usr/bin/env bash
# Quantizes and evaluates the bundled demo model: sets the machine up where needed, builds the program, runs configs/demo.yaml.
#
# usage: scripts/demo.sh [options of "salient run"]     for example: scripts/demo.sh --dry-run
# environment: SALIENT_TORCH, SALIENT_PIP_ARGS, CMAKE_BUILD_PARALLEL_LEVEL (scripts/lib)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/say.sh
. scripts/lib/build.sh

bash scripts/setup.sh
build salient
exec "$build_dir/salient" run configs/demo.yaml "$@"
