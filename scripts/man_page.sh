#!/usr/bin/env bash
# The manual page, docs/man/salient.1, out of what the program's --help says; tests/pipeline/man_page_test.cpp compares the two.
#
# usage: scripts/man_page.sh [PROGRAM] > docs/man/salient.1     PROGRAM: default build/release/salient
set -euo pipefail
program=${1:-build/release/salient}
export LC_ALL=C

# Help on standard input -> roff. With a name: that of the command, whose options and examples become a section of their own.
roff() {
  awk -v name="${1:-}" '
    function plain(text) {
      gsub(/\\/, "\\e", text); gsub(/-/, "\\-", text); gsub(/\x27/, "\\(aq", text)
      gsub(/\^/, "\\(ha", text); gsub(/~/, "\\(ti", text); gsub(/`/, "\\(ga", text)
      return text ~ /^\./ ? "\\&" text : text
    }
    # "--out FILE", "-o [ --out ] FILE": names bold, what stands for a value in italics.
    function head_of(text,   words, count, i, line) {
      gsub(/ \[ /, ", ", text); gsub(/ \]/, "", text)
      count = split(text, words, " ")
      for (i = 1; i <= count; ++i)
        line = line (i > 1 ? " " : "") (words[i] ~ /^-/ ? "\\fB" : "\\fI") plain(words[i]) "\\fR"
      return line
    }
    function item(head, text) { print ".TP"; print head; print plain(text) }
    function flush_option() { if (head != "") item(head_of(head), text); head = ""; text = "" }
    # Lines as they are: examples, and tables in a description.
    function verbatim(begin) { if (begin && !kept) print ".PP\n.nf"; if (!begin && kept) print ".fi"; kept = begin }

    { lines[NR] = $0; if ($0 ~ /^  -h \[ --help \]/) column = index($0, "this text") }
    END {
      if (name != "") print ".SH \"SALIENT " plain(toupper(name)) "\""
      for (i = 1; i <= NR; ++i) {
        line = lines[i]
        if (line ~ /^usage: /) {
          if (name == "") continue
          sub(/^usage: /, "", line)
          print ".B " plain(line)
        } else if (line ~ /^(options|commands|examples):$/) {
          flush_option(); verbatim(0)
          part = substr(line, 1, length(line) - 1)
          if (part == "commands") print ".SH COMMANDS"
          if (part == "examples") { print name == "" ? ".SH EXAMPLES" : ".PP\nExamples:"; verbatim(1) }
        } else if (line == "") {
          verbatim(0); flush_option()
          if (part == "examples") part = ""
          if (part == "" && i > 1 && i < NR && lines[i + 1] !~ /^((options|commands|examples):$|salient COMMAND)/) print ".PP"
        } else if (part == "options") {
          if (substr(line, 1, 3) == "  -") {
            flush_option()
            head = line; text = ""
            if (length(line) >= column && substr(line, column - 1, 1) == " ") {
              head = substr(line, 1, column - 1); text = substr(line, column)
            }
          } else {
            sub(/^ +/, "", line)
            text = text (text == "" || text ~ / $/ ? "" : " ") line
          }
        } else if (part == "commands") {
          match(line, /^  [a-z-]+ +/)
          command = substr(line, 3, RLENGTH - 2); sub(/ +$/, "", command)
          item("\\fB" plain(command) "\\fR", substr(line, RLENGTH + 1))
        } else if (part == "examples") {
          sub(/^  /, "", line)
          print plain(line)
        } else {
          verbatim(line ~ /^ / || line ~ /  /)
          print plain(line)
        }
      }
      flush_option(); verbatim(0)
    }'
}

help=$("$program" --help)
version=$("$program" --version)
cat <<END_OF_HEAD
.\" Made by scripts/man_page.sh out of the program's --help.
.TH SALIENT 1 "" "${version/salient/Salient}" "User Commands"
.SH NAME
salient \- $(sed -n '1s/^[^:]*: \(.*\)\.$/\1/p' <<<"$help")
.SH SYNOPSIS
.B salient
.I COMMAND
[options]
END_OF_HEAD
# Without the first line, which is the page's name; what follows the examples: how a run ends.
roff <<<"$(sed 1d <<<"$help")" | sed 's/^salient COMMAND \\-\\-help explains a command\. Exit codes:/.SH "EXIT STATUS"\nExit codes:/'
sed -n '/^commands:/,/^$/s/^  \([a-z][a-z-]*\) .*/\1/p' <<<"$help" | while read -r command; do
  "$program" "$command" --help </dev/null | roff "$command"
done
