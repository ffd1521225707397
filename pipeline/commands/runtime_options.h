// The options of every command that runs a model: dtype, device, and the bits of activations and KV cache.
#pragma once

#include <vector>

#include "eval/language_model.h"
#include "models/decoder/decoder.h"
#include "pipeline/commands/arguments.h"

namespace salient::pipeline {

// `rows` with --dtype, --device, --activation-bits and --kv-bits behind them.
std::vector<OptionRow> with_runtime_rows(std::vector<OptionRow> rows);

// The same, and --trust-torchscript: for commands that run whatever models there are.
std::vector<OptionRow> with_model_rows(std::vector<OptionRow> rows);

// Errors: invalid argument; unsupported for a device that is not there.
models::DecoderOptions decoder_options(const Arguments& arguments);
// The same with --trust-torchscript, and --bos where a command has it.
eval::LanguageModelOptions language_model_options(const Arguments& arguments);

}  // namespace salient::pipeline
