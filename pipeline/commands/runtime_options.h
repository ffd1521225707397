// The options of every command that runs a model: dtype, device, and the bits of activations and KV cache.
#pragma once

#include <vector>

#include "models/decoder/decoder.h"
#include "pipeline/commands/arguments.h"

namespace salient::pipeline {

// `rows` with --dtype, --device, --activation-bits and --kv-bits behind them.
std::vector<OptionRow> with_runtime_rows(std::vector<OptionRow> rows);

// Errors: invalid argument; unsupported for a device that is not there.
models::DecoderOptions decoder_options(const Arguments& arguments);

}  // namespace salient::pipeline
