# What optional tests need beside the build: installed by `scripts/test.sh --all`. Without it these tests are skipped and say so.
# Sourced after say.sh, packages.sh and libtorch.sh, in the repository root.

# One row a part: its name; Debian packages; Python packages, which go into .venv-test together with torch.
optional_tests=(
  "plugin | | transformers==5.23.0 accelerate==1.15.0 peft==0.21.2 setuptools"   # the Python package and the Trainer's callback
  "mlflow | | mlflow==3.17.2"                                                    # tracking, against a server of its own
  "slurm  | slurm-wlm munge |"                                                   # the launcher, against a Slurm of its own
  "mpi    | libopenmpi-dev openmpi-bin |"                                        # quantization over ranks; the build must find it
)
test_venv=.venv-test

# optional_column NUMBER: that column of all rows, words on one line each.
optional_column() {
  local row
  for row in "${optional_tests[@]}"; do cut -d'|' -f"$1" <<<"$row"; done | tr -s ' ' '\n' | sed '/^$/d'
}

# Sets SALIENT_TEST_PYTHON, unless it is given, to a Python with the packages of all rows. What cannot be installed is said; its
# tests are skipped then.
install_optional_tests() {
  local row packages stamp extra
  for row in "${optional_tests[@]}"; do
    read -r -a packages <<<"$(cut -d'|' -f2 <<<"$row")"
    if [ "${#packages[@]}" -eq 0 ]; then continue; fi
    (install_packages "${packages[@]}") || say "going on without: tests that need ${packages[*]} are skipped"
  done
  if [ -n "${SALIENT_TEST_PYTHON:-}" ]; then return; fi
  mapfile -t packages < <(optional_column 3)
  stamp="torch $torch_version ${packages[*]}"
  if [ "$(cat "$test_venv/installed" 2>/dev/null)" != "$stamp" ]; then
    read -r -a extra <<<"${SALIENT_PIP_ARGS:-}"
    (
      make_venv "$test_venv"
      # The build that Salient is made with: both then work in one process.
      install_torch "$test_venv"
      say "installing into $test_venv: ${packages[*]}"
      quietly "pip install" "$test_venv/bin/python" -m pip --disable-pip-version-check --no-input install "${extra[@]}" "${packages[@]}" ||
        die "the Python packages could not be installed; check the network, set SALIENT_PIP_ARGS (another index), or SALIENT_TEST_PYTHON to a Python that has them"
      printf '%s\n' "$stamp" >"$test_venv/installed"
    ) || say "going on without: tests that need those packages are skipped"
  fi
  export SALIENT_TEST_PYTHON=$PWD/$test_venv/bin/python
}
