# Completion of `salient` for bash: commands, and the options of each as its --help has them; files else.
# Installed as share/bash-completion/completions/salient. By hand: source scripts/completion/salient.bash
# In zsh: autoload -U bashcompinit && bashcompinit, then source it.

# _salient_words PROGRAM COMMAND: the commands where COMMAND is empty, else its options. Asked once a shell: starting takes a moment.
_salient_words() {
  local name="_salient_words_${2//-/_}"
  if [ -z "${!name+set}" ]; then
    if [ -z "$2" ]; then
      printf -v "$name" '%s' "$("$1" --help 2>/dev/null | sed -n '/^commands:/,/^$/s/^  \([a-z][a-z-]*\) .*/\1/p' | tr '\n' ' ')"
    else
      printf -v "$name" '%s' "$("$1" "$2" --help 2>/dev/null | grep -o -E '(^|[ ,])--[a-z][a-z0-9-]*' | tr -d ' ,' | sort -u | tr '\n' ' ')"
    fi
  fi
  printf '%s' "${!name}"
}

_salient() {
  local current=${COMP_WORDS[COMP_CWORD]} program=${COMP_WORDS[0]} command=${COMP_WORDS[1]:-}
  COMPREPLY=()
  # In this shell, not in that of $(...): so the words are kept.
  if [ "$COMP_CWORD" -eq 1 ]; then
    _salient_words "$program" "" >/dev/null
    mapfile -t COMPREPLY < <(compgen -W "$_salient_words_" -- "$current")
  elif [[ $current == -* ]]; then
    _salient_words "$program" "$command" >/dev/null
    local name="_salient_words_${command//-/_}"
    mapfile -t COMPREPLY < <(compgen -W "${!name}" -- "$current")
  fi
}

complete -o default -F _salient salient
