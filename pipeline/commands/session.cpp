#include "pipeline/commands/session.h"

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "common/error.h"
#include "common/log.h"
#include "common/text.h"
#include "models/io/adapter.h"
#include "pipeline/commands/command_ranks.h"
#include "pipeline/torch_options.h"

namespace salient::pipeline {
namespace {

thread_local const CommandHost* current_host = nullptr;

}  // namespace

CommandHostScope::CommandHostScope(const CommandHost& host) : before_(current_host) { current_host = &host; }

CommandHostScope::~CommandHostScope() { current_host = before_; }

OptionRow adapter_base_option() {
  return {"adapter-base", "MODEL",
          "of a LoRA adapter: the model that it was trained on; default: what its adapter_config.json names"};
}

void apply_common_options(const Arguments& arguments) {
  const LogLevel level = parse_log_level(arguments.text_or("log-level", "warn"));
  const bool speaks = !is_shared(command_ranks()) || command_ranks()->is_root();
  set_log_level(speaks ? level : LogLevel::kOff);
  set_threads(arguments.integer_or("threads", 0, 0, 1024));
  if (arguments.has("adapter-base")) models::set_adapter_base({}, arguments.text("adapter-base"));
}

uint64_t parse_size_option(const Arguments& arguments, const std::string& name, uint64_t fallback) {
  if (!arguments.has(name)) return fallback;
  const std::string text = arguments.text(name);
  const std::optional<uint64_t> bytes = parse_bytes(text);
  if (!bytes || *bytes == 0)
    fail(ErrorKind::kInvalidArgument, "--{}: found '{}', expected a size such as 5GB or 512MiB", name, text);
  return *bytes;
}

void print_text(const std::string& text) {
  if (text.empty()) return;
  print_part(text.back() == '\n' ? text : text + '\n');
}

void print_part(std::string_view text) {
  if (current_host != nullptr) return current_host->result(text);
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0) return;
  const int code = errno;
  throw Error(ErrorKind::kIo, fmt::format("standard output: cannot write: {}", std::strerror(code)))
      .with_hint("what is stored is kept: free the disk, or give the output another place, and give the same command again");
}

void print_json(const Json& value) { print_text(dump_json(value, 2)); }

void print_note(const std::string& line) {
  if (current_host != nullptr) return current_host->note(line);
  std::fprintf(stderr, "%s\n", line.c_str());
}

void ProgressLine::show(const std::string& label, const std::string& unit, int64_t done, int64_t total) {
  if (current_host != nullptr) return current_host->progress(label, unit, done, total);
  if (!bar_ || label != label_ || total != total_) {
    finish();
    if (done == total) return;  // over before there was anything to show
    bar_ = std::make_unique<Progress>(total, label, unit);
    label_ = label;
    total_ = total;
    done_ = 0;
    // The first call of a job that goes on tells how much an earlier one did.
    if (done > 0) bar_->resume_at(done);
  } else {
    bar_->advance(done - done_);
  }
  done_ = done;
  if (done == total) finish();
}

void ProgressLine::finish() {
  if (bar_ && done_ == total_) bar_->finish();
  bar_.reset();
}

}  // namespace salient::pipeline
