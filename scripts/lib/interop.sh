# What the scripts of scripts/interop share. Sourced after say.sh, in the repository root.
#
#   SALIENT_INTEROP_DIR      where environments, artifacts and results are kept and found again; default build/interop
#   SALIENT_PYTHON_<CLIENT>  a Python that has the client's packages already (the client in capitals, - as _); nothing is installed then
#   SALIENT_PIP_ARGS         options for pip, such as another index
#   SALIENT_PROGRAM          the program that is tried; default build/release/salient

interop_dir=${SALIENT_INTEROP_DIR:-build/interop}
program=${SALIENT_PROGRAM:-build/release/salient}
environments="$interop_dir/environments"

# environment CLIENT PACKAGES...: sets `python` to one that has the packages. Each PACKAGES is a line of arguments for one "pip install", in their
# order. The environment is made once for each list of packages.
environment() {
  local client=$1 given folder packages stamp
  shift
  given=SALIENT_PYTHON_${client^^}
  given=${given//-/_}
  if [ -n "${!given:-}" ]; then
    python=${!given}
    "$python" -c 'import sys' >/dev/null 2>&1 || die "$given=$python is no Python that runs: name the python of an environment with: $*"
    return
  fi
  folder="$environments/$client"
  python="$folder/bin/python"
  stamp=$(printf '%s\n' "$@")
  if [ "$(cat "$folder/installed" 2>/dev/null)" = "$stamp" ]; then return; fi
  say "$client: making $folder"
  rm -rf "$folder"
  mkdir -p "$environments"
  quietly "python3 -m venv" python3 -m venv "$folder" || die "no environment could be made in $folder; check that python3 -m venv works (package python3-venv)"
  for packages in "$@"; do
    local words extra
    read -r -a words <<<"$packages"
    read -r -a extra <<<"${SALIENT_PIP_ARGS:-}"
    say "$client: pip install $packages"
    quietly "pip install" "$python" -m pip --disable-pip-version-check --no-input install "${extra[@]}" "${words[@]}" ||
      die "$client: pip could not install $packages; check the network, set SALIENT_PIP_ARGS (another index), or set $given to a Python that has it"
  done
  printf '%s\n' "$stamp" >"$folder/installed"
}

# check CLIENT SCRIPT [ARGUMENTS...]: runs the Python script of a client; its rows are left in $interop_dir/rows/CLIENT.json.
check() {
  local client=$1 script=$2
  shift 2
  [ -x "$program" ] || die "$program is not there: build it (scripts/setup.sh, then cmake --build build/release --target salient), or set SALIENT_PROGRAM"
  mkdir -p "$interop_dir/rows"
  HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false "$python" "scripts/interop/$script" --client "$client" --work "$interop_dir" --salient "$program" "$@"
}
