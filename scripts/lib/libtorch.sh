# Where libtorch is, and its installation when it is nowhere. Sourced after say.sh and packages.sh, in the repository root.
#
#   SALIENT_TORCH     a folder with libtorch: the root of a libtorch archive, or the torch folder of a Python installation
#                     (.../site-packages/torch). Used as it is; nothing is installed then.
#   SALIENT_PIP_ARGS  options for "pip install" of the torch wheel, for example "--index-url https://mirror.example/simple" or
#                     "--find-links /media/wheels". Given, they alone say where the wheel comes from.

torch_version=2.13.0
torch_cpu_index=https://download.pytorch.org/whl/cpu

# is_libtorch FOLDER: whether CMake can build with it.
is_libtorch() {
  [ -f "$1/share/cmake/Torch/TorchConfig.cmake" ] && [ -f "$1/include/ATen/core/Tensor.h" ] &&
    [ -e "$1/lib/libtorch.so" ] && [ -e "$1/lib/libtorch_cpu.so" ] && [ -e "$1/lib/libc10.so" ]
}

# venv_torch: prints the torch folder in .venv when the wheel of the wanted version is wholly there. pip writes INSTALLER when
# all files of the wheel have been copied, so a stopped installation does not have it.
venv_torch() {
  local info
  for info in .venv/lib/python3*/site-packages/torch-"$torch_version"*.dist-info; do
    if [ -f "$info/INSTALLER" ] && is_libtorch "${info%/*}/torch"; then
      realpath "${info%/*}/torch"
      return 0
    fi
  done
  return 1
}

# make_venv [FOLDER]: .venv, or another one, with a pip that runs; one that was left half made is completed.
make_venv() {
  local folder=${1:-.venv}
  if ! "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
    say "making $folder"
    quietly "python3 -m venv" python3 -m venv "$folder" && "$folder/bin/python" -m pip --version >/dev/null 2>&1 ||
      die "$folder could not be made; remove the folder $folder, check that python3 -m venv works (package python3-venv), and run this again"
  fi
}

# Only headers, libraries and CMake files of the wheel are used, so none of its Python dependencies is installed. PyPI's wheel is made for
# CUDA, several times as large and not usable without the CUDA toolkit: so the CPU wheel is asked for first, from the configured index,
# then from torch's own, and whatever the configured index calls this version only when neither has it.
# install_torch [FOLDER]: into .venv, or another one.
install_torch() {
  local folder=${1:-.venv}
  local pip=("$folder/bin/python" -m pip --disable-pip-version-check --no-input --retries 2 install --no-deps --ignore-installed --only-binary :all:)
  if [ -n "${SALIENT_PIP_ARGS:-}" ]; then
    local args
    read -r -a args <<<"$SALIENT_PIP_ARGS"
    say "installing torch $torch_version into $folder (pip options: $SALIENT_PIP_ARGS)"
    quietly "pip install" "${pip[@]}" "${args[@]}" "torch==$torch_version" ||
      die "torch $torch_version could not be installed with SALIENT_PIP_ARGS='$SALIENT_PIP_ARGS'; correct them, or set SALIENT_TORCH to a libtorch folder"
    return
  fi
  say "installing torch $torch_version (CPU wheel, about 200 MB) into $folder"
  if "${pip[@]}" "torch==$torch_version+cpu" </dev/null >/dev/null 2>&1; then return; fi
  say "the configured package index has no CPU wheel of it: trying $torch_cpu_index"
  if "${pip[@]}" --index-url "$torch_cpu_index" "torch==$torch_version" </dev/null >/dev/null 2>&1; then return; fi
  say "that one is out of reach: taking what the configured index has"
  quietly "pip install" "${pip[@]}" "torch==$torch_version" ||
    die "torch $torch_version could not be installed; check the network, or set SALIENT_PIP_ARGS (another index) or SALIENT_TORCH (a libtorch folder)"
}

# find_torch: sets torch_dir to the absolute libtorch folder, installing the wheel where there is none.
find_torch() {
  if [ -n "${SALIENT_TORCH:-}" ]; then
    is_libtorch "$SALIENT_TORCH" ||
      die "SALIENT_TORCH=$SALIENT_TORCH is no libtorch folder (share/cmake/Torch/TorchConfig.cmake and lib/libtorch_cpu.so expected): name the root of a libtorch archive or a site-packages/torch folder"
    torch_dir=$(realpath "$SALIENT_TORCH")
    return
  fi
  if torch_dir=$(venv_torch); then return; fi
  # Ubuntu and Debian split venv off from python3; ensurepip is the part that is missing then.
  if ! python3 -c 'import ensurepip, venv' >/dev/null 2>&1; then
    if command -v dpkg-query >/dev/null; then install_packages python3 python3-venv; fi
    python3 -c 'import ensurepip, venv' >/dev/null 2>&1 ||
      die "python3 with venv is needed to install libtorch: install the package python3-venv, or set SALIENT_TORCH to a libtorch folder"
  fi
  make_venv
  install_torch
  torch_dir=$(venv_torch) || die "torch $torch_version was installed into .venv, but its libtorch is not whole: remove the folder .venv and run this again"
}
