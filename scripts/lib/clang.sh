# A build of clang's beside build/release: for fuzzing and sanitizers. Sourced after say.sh and build.sh, in the repository root.

# find_clang: sets clang_version to the newest clang that is installed; 16 is the first that takes our C++20.
find_clang() {
  local one
  clang_version=
  for one in 19 18 17 16; do
    if [ -z "$clang_version" ] && command -v "clang++-$one" >/dev/null; then clang_version=$one; fi
  done
  [ -n "$clang_version" ] || die "no clang from 16 on is there; on Debian: apt-get install clang-19 libclang-rt-19-dev libomp-19-dev llvm-19"
}

# configure_with_clang PRESET [OPTIONS OF CMAKE]: sets build_dir to build/PRESET, which it configures with the libraries of build/release; each
# time, since a folder that was configured before a preset changed would be built without what the preset now asks for.
configure_with_clang() {
  local preset=$1 torch pyarrow
  shift
  bash scripts/setup.sh >&2
  build_dir=build/release
  torch=$(cache_entry CMAKE_PREFIX_PATH)
  pyarrow=$(cache_entry SALIENT_PYARROW)
  build_dir=build/$preset
  find_clang
  quietly "cmake" cmake --preset "$preset" "-DCMAKE_C_COMPILER=clang-$clang_version" "-DCMAKE_CXX_COMPILER=clang++-$clang_version" \
    "-DCMAKE_PREFIX_PATH=$torch" "-DSALIENT_PYARROW=$pyarrow" "$@" || die "the build could not be configured"
}
