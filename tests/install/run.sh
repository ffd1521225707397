#!/usr/bin/env bash
# Installs a build into an empty folder and uses what is there as somebody else would: the program, the library through pkg-config from C, the
# completion, the manual page. Libraries are found without LD_LIBRARY_PATH.
#
# usage: tests/install/run.sh CMAKE BUILD_FOLDER C_COMPILER
set -euo pipefail
cmake=$1 build=$2 compiler=$3
prefix=$(mktemp -d)
trap 'rm -rf "$prefix"' EXIT
unset LD_LIBRARY_PATH
"$cmake" --install "$build" --prefix "$prefix" >/dev/null

version=$("$prefix/bin/salient" --version)
[[ $version == "salient "* ]] || { echo "salient --version: found '$version'"; exit 1; }
for file in share/salient/demo.yaml share/bash-completion/completions/salient share/man/man1/salient.1; do
  [ -f "$prefix/$file" ] || { echo "$file is not installed"; exit 1; }
done
if command -v groff >/dev/null; then
  warnings=$(groff -man -ww -z "$prefix/share/man/man1/salient.1" 2>&1)
  [ -z "$warnings" ] || { echo "salient.1: $warnings"; exit 1; }
fi

cat >"$prefix/main.c" <<'END'
#include <salient.h>
#include <stdio.h>
int main(void) {
  printf("salient %s\n", salient_version());
  return salient_abi_version() != SALIENT_ABI_VERSION;
}
END
file=$(find "$prefix" -name salient.pc)
export PKG_CONFIG_PATH=${file%/*}
read -r -a flags < <(pkg-config --cflags --libs salient)
"$compiler" "$prefix/main.c" -o "$prefix/main" "${flags[@]}" -Wl,-rpath,"$(pkg-config --variable=libdir salient)"
found=$("$prefix/main")
[ "$found" = "$version" ] || { echo "through the library: found '$found', expected '$version'"; exit 1; }
