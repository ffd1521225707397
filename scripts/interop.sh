#!/usr/bin/env bash
# Tries every format in the real loaders of it: makes artifacts of the demo model with build/release/salient, sets up an environment for each client,
# compares, prints one table. Exit status 1 where anything differs by more than its bound.
#
# usage: scripts/interop.sh [options] [CLIENT...]       default: every client, the scripts of scripts/interop
#   --work DIR             environments, artifacts, rows and table.json (default build/interop); a second call finds the environments there
#   --python CLIENT=PATH   a Python that has the client's packages; nothing is installed for it
#   --salient FILE         the program (default build/release/salient)
#   --docs                 put the table into docs/interop.md
#   -h, --help             this text and the clients
# environment: SALIENT_LLAMA_QUANTIZE (scripts/interop/llama-quantize.sh), SALIENT_PIP_ARGS (scripts/lib/interop.sh)
set -euo pipefail
here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/say.sh

all=()
for script in scripts/interop/*.sh; do all+=("$(basename "$script" .sh)"); done
clients=() docs=()
absolute() { case $1 in /*) printf '%s\n' "$1" ;; *) printf '%s\n' "$here/$1" ;; esac; }
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' scripts/interop.sh
      printf 'clients: %s\n' "${all[*]}"
      exit
      ;;
    --docs) docs=(--docs docs/interop.md) ;;
    --work | --salient | --python)
      [ $# -gt 1 ] || die "$1 needs a value"
      case $1 in
        --work) SALIENT_INTEROP_DIR=$(absolute "$2") ;;
        --salient) SALIENT_PROGRAM=$(absolute "$2") ;;
        --python)
          client=${2%%=*}
          [ -f "scripts/interop/$client.sh" ] && [ "$client" != "$2" ] || die "--python $2: expected CLIENT=PATH with one of: ${all[*]}"
          name=SALIENT_PYTHON_${client^^}
          declare -x "${name//-/_}=$(absolute "${2#*=}")"
          ;;
      esac
      shift
      ;;
    -*) die "unknown option $1; scripts/interop.sh --help lists them" ;;
    *)
      [ -f "scripts/interop/$1.sh" ] || die "unknown client $1; there are: ${all[*]}"
      clients+=("$1")
      ;;
  esac
  shift
done
export SALIENT_INTEROP_DIR=${SALIENT_INTEROP_DIR:-build/interop}
if [ -n "${SALIENT_PROGRAM:-}" ]; then export SALIENT_PROGRAM; fi
if [ "${#clients[@]}" -eq 0 ]; then clients=("${all[@]}"); fi

rows="$SALIENT_INTEROP_DIR/rows"
rm -rf "$rows"
mkdir -p "$rows"
failed=()
for client in "${clients[@]}"; do
  bash "scripts/interop/$client.sh" || failed+=("$client")
done
python3 scripts/interop/table.py "$rows" "$SALIENT_INTEROP_DIR/table.json" "${docs[@]}" -- "${clients[@]}"
[ "${#failed[@]}" -eq 0 ] || die "failed: ${failed[*]}"
