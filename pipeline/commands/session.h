// What every command does first: threads, log level; and how commands print.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "common/json.h"
#include "pipeline/commands/arguments.h"

namespace salient::pipeline {

// Applies --threads and --log-level. `threads` 0: every core, as OMP_NUM_THREADS allows.
void apply_common_options(const Arguments& arguments);
void set_threads(int64_t threads);

// "float32" or "bfloat16"; "cpu", "cuda" or "cuda:1". Errors: invalid argument; unsupported when this libtorch has no CUDA.
at::ScalarType parse_dtype(const std::string& name);
at::Device parse_device(const std::string& name);

// "5GB", "512 MiB": bytes. Errors: invalid argument.
uint64_t parse_size_option(const Arguments& arguments, const std::string& name, uint64_t fallback);

// To standard output, with a line end.
void print_text(const std::string& text);
void print_json(const Json& value);

}  // namespace salient::pipeline
