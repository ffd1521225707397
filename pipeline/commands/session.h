// What every command does first: threads and log level; and how commands print.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

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

// Takes what commands print where they run inside another program. All three are given.
struct CommandHost {
  std::function<void(std::string_view text)> result;  // what would go to standard output, in pieces
  std::function<void(const std::string& line)> note;  // what would go to standard error, a line without its end
  std::function<void(const std::string& label, const std::string& unit, int64_t done, int64_t total)> progress;  // instead of a bar
};

// While it lives, what commands of this thread print goes to `host`, which outlives it. As standard output, it is what surrounds a
// command and changes nothing of its work.
class CommandHostScope {
 public:
  explicit CommandHostScope(const CommandHost& host);
  ~CommandHostScope();
  CommandHostScope(const CommandHostScope&) = delete;
  CommandHostScope& operator=(const CommandHostScope&) = delete;

 private:
  const CommandHost* before_;
};

// To standard output, with a line end; print_part as it is.
void print_text(const std::string& text);
void print_json(const Json& value);
void print_part(std::string_view text);
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
