# Configuring and building build/release. Sourced after say.sh, in the repository root.

build_dir=build/release

# cache_entry NAME: the value in CMakeCache.txt.
cache_entry() { sed -n "s|^$1:[A-Z]*=||p" "$build_dir/CMakeCache.txt" 2>/dev/null; }

# mpi_appeared: whether MPI was installed since the build was configured, which looked for it and found none.
mpi_appeared() { command -v mpicxx >/dev/null && [[ "$(cache_entry MPI_CXX_COMPILER)" == *-NOTFOUND ]]; }

# configure TORCH_DIR PYARROW_DIR: runs CMake when this folder was never configured, or with other libraries, or for another place; changed CMake
# files are noticed by the build itself.
configure() {
  if [ -f "$build_dir/build.ninja" ] && [ "$(cache_entry CMAKE_PREFIX_PATH)" = "$1" ] &&
    [ "$(cache_entry SALIENT_PYARROW)" = "$2" ] && [ "$(cache_entry CMAKE_HOME_DIRECTORY)" = "$PWD" ]; then
    if mpi_appeared; then quietly "cmake" cmake --preset release -U 'MPI_*'; fi
    return
  fi
  say "configuring $build_dir with libtorch of $1"
  # An old cache holds the libraries of the old libtorch.
  rm -rf "$build_dir/CMakeCache.txt" "$build_dir/CMakeFiles" "$build_dir/build.ninja"
  quietly "cmake" cmake --preset release "-DCMAKE_PREFIX_PATH=$1" "-DSALIENT_PYARROW=$2" ||
    die "the build could not be configured; the lines above name what CMake did not find"
}

# build_jobs: prints how many compilers may run at once: one a core, and 2 GiB of free memory each, which torch's headers can take.
build_jobs() {
  local cores memory_kib limit jobs
  if [ -n "${CMAKE_BUILD_PARALLEL_LEVEL:-}" ]; then
    printf '%s\n' "$CMAKE_BUILD_PARALLEL_LEVEL"
    return
  fi
  cores=$(nproc)
  memory_kib=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo)
  limit=$(cat /sys/fs/cgroup/memory.max 2>/dev/null) || limit=max
  if [[ $limit =~ ^[0-9]+$ ]] && ((limit / 1024 < memory_kib)); then memory_kib=$((limit / 1024)); fi
  jobs=$((memory_kib / (2 * 1024 * 1024)))
  if ((jobs > cores)); then jobs=$cores; fi
  if ((jobs < 1)); then jobs=1; fi
  printf '%s\n' "$jobs"
}

# build TARGET: compiles what has changed.
build() {
  cmake --build "$build_dir" --target "$1" --parallel "$(build_jobs)" </dev/null ||
    die "the build of $1 failed; the compiler's messages are above"
}
