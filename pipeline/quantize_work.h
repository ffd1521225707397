// What one call of quantize_model works on: its options in full, the source's configuration and hashes, the work folder and the
// fingerprint of everything that decides the result's bytes.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "calibration/token_blocks.h"
#include "common/json.h"
#include "models/io/checkpoint.h"
#include "pipeline/activation_file.h"
#include "pipeline/calibration_pass.h"
#include "pipeline/gguf_output.h"
#include "pipeline/quantize_model.h"
#include "pipeline/quantize_plan.h"

namespace salient::pipeline {

// An output folder without a trailing slash, and what the format decides: export_compatible and GGUF set others of the options.
// Errors: invalid argument (no name), those of apply_gguf_format.
QuantizeModelOptions normalized(QuantizeModelOptions options);

// The options as a quantization configuration in YAML has them (to_json of QuantizationConfig).
Json settings_json(const AwqOptions& awq);

// SHA-256 of a tensor's elements, in hexadecimal.
std::string hash_tensor(const at::Tensor& tensor);

// Nothing of it changes while the call runs.
struct QuantizeWork {
  // Reads headers and configuration, hashes the source's files. Errors: those of Checkpoint, load_decoder_config, GgufOutput.
  QuantizeWork(const QuantizeModelOptions& given, const calibration::TokenBlocks& calibration_tokens);
  QuantizeWork(const QuantizeWork&) = delete;  // `stored` refers to `checkpoint` or `gguf`
  QuantizeWork& operator=(const QuantizeWork&) = delete;

  int64_t blocks() const { return config.num_hidden_layers; }
  // The input of a block, of all calibration rows or of this rank's part of them: a new file, and one that is there.
  ActivationFile create_hidden(int64_t block) const;
  ActivationFile open_hidden(int64_t block) const;
  std::filesystem::path hidden_path(int64_t block) const;
  // Over the calibration tokens, shared where ranks share the work.
  CalibrationPass make_pass() const;
  // The first block's input, durable.
  ActivationFile embed(const CalibrationPass& pass) const;
  bool is_shared() const { return salient::is_shared(options.ranks); }
  void say(const std::string& line) const {
    if (options.on_message) options.on_message(line);
  }

  QuantizeModelOptions options;
  const calibration::TokenBlocks& tokens;
  std::vector<std::string> padding_notes;
  Json source_state;              // before anything is read of the files
  models::Checkpoint checkpoint;  // as pad_intermediate shows it
  models::DecoderConfig config;
  std::vector<models::PlannedTensor> kept;
  Json source_hashes;
  std::filesystem::path work;
  std::optional<GgufOutput> gguf;  // where that is the format
  StoredDtype stored;
  Json inputs;              // everything that decides the result's bytes
  std::string fingerprint;  // of the inputs
};

}  // namespace salient::pipeline
