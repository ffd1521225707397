#!/usr/bin/env bash
# Makes this machine ready to build Salient: Debian packages, libtorch, Apache Arrow, build/release configured. Installs only what is missing; with
# everything there it takes a fraction of a second and needs neither network nor root. demo.sh and test.sh call it.
#
# usage: scripts/setup.sh
# environment: SALIENT_TORCH, SALIENT_PIP_ARGS, SALIENT_PYARROW (scripts/lib/libtorch.sh and pyarrow.sh say what they are)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/say.sh
. scripts/lib/packages.sh
. scripts/lib/libtorch.sh
. scripts/lib/pyarrow.sh
. scripts/lib/build.sh

install_packages "${debian_packages[@]}"
find_torch
find_pyarrow "$torch_dir"
configure "$torch_dir" "$pyarrow_dir"
