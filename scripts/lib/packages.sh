# The Debian packages that the build needs. Sourced after say.sh.

# What each is for: docs/dependencies.md.
debian_packages=(
  g++ cmake ninja-build ccache pkg-config
  libspdlog-dev libfmt-dev libyaml-cpp-dev nlohmann-json3-dev libboost-program-options-dev libsqlite3-dev
  libpcre2-dev libutf8proc-dev libssl-dev libcurl4-openssl-dev libminizip-dev zlib1g-dev libgtest-dev libgmock-dev
)

# What single tests need beside that; without them they are skipped.
test_packages=(chromium clang-format-14 clang-19 clang-tidy-19 libomp-19-dev)

# missing_packages NAME...: those of the names that are not installed, one a line.
missing_packages() {
  local name state installed=" "
  while read -r name state; do
    if [ "$state" = installed ]; then installed+="$name "; fi
  done < <(dpkg-query -W -f='${Package} ${db:Status-Status}\n' "$@" 2>/dev/null)
  for name in "$@"; do
    if [[ $installed != *" $name "* ]]; then printf '%s\n' "$name"; fi
  done
}

# install_packages NAME...: makes sure that all are installed; does nothing, and needs neither network nor root, when they are.
install_packages() {
  if ! command -v dpkg-query >/dev/null; then
    say "not a Debian or Ubuntu system: going on with what is installed (docs/dependencies.md lists what is needed)"
    return
  fi
  local missing as_root=()
  mapfile -t missing < <(missing_packages "$@")
  if [ "${#missing[@]}" -eq 0 ]; then return; fi

  local by_hand="apt-get install --no-install-recommends ${missing[*]}"
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || die "packages are missing and there is no sudo; run as root: $by_hand"
    as_root=(sudo)
    if ! sudo -n true 2>/dev/null; then
      [ -t 0 ] || die "packages are missing and sudo asks for a password; run: sudo $by_hand"
      sudo -v || die "packages are missing and sudo was refused; run as root: $by_hand"
    fi
  fi
  local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)

  say "installing ${#missing[@]} Debian packages: ${missing[*]}"
  # An index that could not be fetched is not fatal here: the packages may still be found in the lists there are.
  quietly "apt-get update" "${apt[@]}" update || say "the package lists could not be brought up to date"
  quietly "apt-get install" "${apt[@]}" install -y --no-install-recommends "${missing[@]}" ||
    die "the packages could not be installed; check the network and the package sources, then run: $by_hand"
  mapfile -t missing < <(missing_packages "$@")
  [ "${#missing[@]}" -eq 0 ] || die "still not installed: ${missing[*]}"
}
