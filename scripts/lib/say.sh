# Messages of the scripts. Sourced.

say() { printf '%s\n' "salient: $*" >&2; }

die() {
  printf '%s\n' "salient: error: $*" >&2
  exit 1
}

# quietly WHAT COMMAND...: runs the command without input, its output kept back; when it fails, shows the end of that output and returns
# the exit status. WHAT names the step in the failure's heading.
quietly() {
  local what=$1 log status=0
  shift
  log=$(mktemp) || die "no temporary file can be made in ${TMPDIR:-/tmp}: free some space, or set TMPDIR"
  "$@" </dev/null >"$log" 2>&1 || status=$?
  if [ "$status" -ne 0 ]; then
    printf -- '--- %s: exit status %s, the end of its output ---\n' "$what" "$status" >&2
    tail -n 15 "$log" >&2
    printf -- '---\n' >&2
  fi
  rm -f "$log"
  return "$status"
}
