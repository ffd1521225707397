#include "pipeline/commands/session.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <cstdio>

#include "common/error.h"
#include "common/log.h"
#include "common/text.h"

namespace salient::pipeline {

void set_threads(int64_t threads) {
  if (threads > 0) at::set_num_threads(static_cast<int>(threads));
}

void apply_common_options(const Arguments& arguments) {
  set_log_level(parse_log_level(arguments.text_or("log-level", "warn")));
  set_threads(arguments.integer_or("threads", 0, 0, 1024));
}

at::ScalarType parse_dtype(const std::string& name) {
  if (name == "float32") return at::kFloat;
  if (name == "bfloat16") return at::kBFloat16;
  fail(ErrorKind::kInvalidArgument, "dtype '{}': expected float32 or bfloat16", name);
}

at::Device parse_device(const std::string& name) {
  if (name == "cpu") return at::kCPU;
  if (name != "cuda" && !name.starts_with("cuda:")) fail(ErrorKind::kInvalidArgument, "device '{}': expected cpu, cuda or cuda:N", name);
  if (!at::hasCUDA()) {
    throw Error(ErrorKind::kUnsupported, fmt::format("device '{}': this libtorch was built without CUDA, or no CUDA device is there", name))
        .with_code("KERNEL_NOT_FOUND")
        .with_hint("use --device cpu, or build with a CUDA libtorch (SALIENT_TORCH)");
  }
  return at::Device(name);
}

uint64_t parse_size_option(const Arguments& arguments, const std::string& name, uint64_t fallback) {
  if (!arguments.has(name)) return fallback;
  const std::string text = arguments.text(name);
  const std::optional<uint64_t> bytes = parse_bytes(text);
  if (!bytes || *bytes == 0) fail(ErrorKind::kInvalidArgument, "--{}: found '{}', expected a size such as 5GB or 512MiB", name, text);
  return *bytes;
}

void print_text(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  if (text.empty() || text.back() != '\n') std::fputc('\n', stdout);
  std::fflush(stdout);
}

void print_json(const Json& value) { print_text(dump_json(value, 2)); }

}  // namespace salient::pipeline
