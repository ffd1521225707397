// A program run to its end, with what it printed: sbatch, squeue and the like.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace salient::pipeline {

struct ChildOptions {
  std::filesystem::path folder;    // working folder; empty: this process's
  std::filesystem::path out_file;  // standard output goes there instead of into the result
  int keep_descriptor = -1;        // inherited by the program: a lock that outlives this process
  std::vector<std::string> unset;  // environment variables that start so are left out
};

struct ChildResult {
  int exit_code = 0;  // 128 + number of the signal that ended it
  std::string out;
  std::string err;
};

// In a process group of its own, so that Ctrl-C on the terminal reaches this process alone; standard input is empty. The program is
// looked for on the PATH. Errors: not found (no such program), io.
ChildResult run_child(const std::vector<std::string>& command, const ChildOptions& options = {});

// As a POSIX shell reads it as one word: plain words stay, others are put into single quotes.
std::string shell_quote(const std::string& word);
std::string shell_command(const std::vector<std::string>& words);

}  // namespace salient::pipeline
