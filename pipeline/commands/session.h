// What every command does first: threads and log level; and how commands print.
#pragma once

#include <memory>
#include <string>

#include "common/json.h"
#include "common/progress.h"
#include "pipeline/commands/arguments.h"

namespace salient::pipeline {

// --base, for commands that read models.
OptionRow adapter_base_option();

// Applies --threads, --log-level, and where a command has it --base.
void apply_common_options(const Arguments& arguments);

// "5GB", "512 MiB": bytes. Errors: invalid argument.
uint64_t parse_size_option(const Arguments& arguments, const std::string& name, uint64_t fallback);

// To standard output, with a line end.
void print_text(const std::string& text);
void print_json(const Json& value);
// To standard error: what is not a result.
void print_note(const std::string& line);

// Progress bars one after the other: a new label or total ends the last bar and starts the next.
class ProgressLine {
 public:
  ~ProgressLine() { finish(); }
  void show(const std::string& label, const std::string& unit, int64_t done, int64_t total);
  void finish();

 private:
  std::unique_ptr<Progress> bar_;
  std::string label_;
  int64_t total_ = 0;
  int64_t done_ = 0;
};

}  // namespace salient::pipeline
