// llama.cpp's importance matrix (models/gguf/imatrix.h) of a model: for each weight of its GGUF file the sum of the squares of what
// each input channel read, over all calibration tokens, and of an expert over those that the router sent to it. As llama-imatrix
// measures it, but for the tokens: Salient's calibration blocks. The head has no entry, as in llama-imatrix's files.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "calibration/token_blocks.h"
#include "models/gguf/imatrix.h"
#include "models/io/checkpoint.h"

namespace salient::pipeline {

struct ImportanceOptions {
  std::filesystem::path
      work_folder;  // for the hidden states; exists, nobody else works in it, what is written in it is removed again
  at::Device device = at::kCPU;
  int64_t batch_tokens = 4096;
  std::function<void(int64_t done, int64_t total)> on_progress;  // blocks
};

// Whether measure_importance gives a file of its work folder this name.
bool is_importance_work(const std::string& name);

// Sums are taken in float64. Memory: one block, with all of its experts. Errors: unsupported for an architecture that llama.cpp has
// not; those of Checkpoint; io.
models::Imatrix measure_importance(const models::Checkpoint& checkpoint, const calibration::TokenBlocks& tokens,
                                   const ImportanceOptions& options);

}  // namespace salient::pipeline
