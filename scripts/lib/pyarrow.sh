# Where Apache Arrow is, which reads Parquet files, and its installation when it is nowhere. Sourced after libtorch.sh, in the repository root.
#
#   SALIENT_PYARROW   the folder of a Python package pyarrow (.../site-packages/pyarrow). Used as it is.
#
# Without it: the pyarrow beside libtorch, else that of .venv, into which it is installed from where SALIENT_PIP_ARGS says. With SALIENT_TORCH nothing is
# installed. Parquet is no reason to stop: without Arrow, Salient is built and says so when it is given such a file.

pyarrow_version=26.0.1

# is_pyarrow FOLDER: whether CMake can build with it.
is_pyarrow() { [ -f "$1/include/parquet/arrow/reader.h" ] && compgen -G "$1/libarrow.so.*" >/dev/null && compgen -G "$1/libparquet.so.*" >/dev/null; }

# venv_pyarrow: prints the pyarrow folder in .venv when the wanted version is wholly there.
venv_pyarrow() {
  local info
  for info in .venv/lib/python3*/site-packages/pyarrow-"$pyarrow_version".dist-info; do
    if [ -f "$info/INSTALLER" ] && is_pyarrow "${info%/*}/pyarrow"; then
      realpath "${info%/*}/pyarrow"
      return 0
    fi
  done
  return 1
}

# Only headers and libraries of the wheel are used. What an older version left goes first: its libraries have other names and would stay beside the new.
install_pyarrow() {
  rm -rf .venv/lib/python3*/site-packages/pyarrow .venv/lib/python3*/site-packages/pyarrow-*.dist-info
  local args
  read -r -a args <<<"${SALIENT_PIP_ARGS:-}"
  say "installing pyarrow $pyarrow_version (about 50 MB) into .venv"
  quietly "pip install" .venv/bin/python -m pip --disable-pip-version-check --no-input --retries 2 install --no-deps --ignore-installed \
    --only-binary :all: "${args[@]}" "pyarrow==$pyarrow_version"
}

# find_pyarrow TORCH_DIR: sets pyarrow_dir to the absolute folder, or to nothing where there is none.
find_pyarrow() {
  if [ -n "${SALIENT_PYARROW:-}" ]; then
    is_pyarrow "$SALIENT_PYARROW" ||
      die "SALIENT_PYARROW=$SALIENT_PYARROW is no folder of the package pyarrow (include/parquet/arrow/reader.h, libarrow.so.*, libparquet.so.* expected): name .../site-packages/pyarrow"
    pyarrow_dir=$(realpath "$SALIENT_PYARROW")
    return
  fi
  if [ -n "${SALIENT_TORCH:-}" ]; then
    pyarrow_dir=""
    if is_pyarrow "$1/../pyarrow"; then pyarrow_dir=$(realpath "$1/../pyarrow"); fi
    return
  fi
  if pyarrow_dir=$(venv_pyarrow); then return; fi
  make_venv
  if install_pyarrow && pyarrow_dir=$(venv_pyarrow); then return; fi
  pyarrow_dir=""
  say "pyarrow $pyarrow_version could not be installed: going on without Parquet files; SALIENT_PYARROW names a folder that has it"
}
