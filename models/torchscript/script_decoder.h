// A TorchScript module as a Decoder, for evaluation and generation.
#pragma once

#include <cstdint>
#include <filesystem>

#include "common/json.h"
#include "models/decoder/decoder.h"

namespace salient::models {

struct ScriptDecoder {
  Decoder decoder;
  Json config;  // config.json beside the file, else the one inside it, else {}
  uint64_t disk_bytes = 0;
};

// Whether `path` is a file, or a folder without a checkpoint's tensors in which find_torchscript_file finds one.
bool holds_script_model(const std::filesystem::path& path);

// model_type is "torchscript (<that of config.json>)". The module computes in the types it was saved with, whatever options.dtype
// says. Errors: those of ScriptModel::load.
ScriptDecoder load_script_decoder(const std::filesystem::path& path, const DecoderOptions& options);

}  // namespace salient::models
