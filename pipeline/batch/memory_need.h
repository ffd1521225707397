// How much memory an evaluation takes, told from the heads of the files before anything is loaded.
#pragma once

#include <cstdint>
#include <optional>

#include "pipeline/batch/batch_settings.h"

namespace salient::pipeline {

// Weights as they lie in memory: packed ones as they are stored, floats in the dtype that runs, blocks of GGUF files dequantized.
uint64_t weights_in_memory(const ListedModel& model, const BatchSettings& settings);

struct MemoryNeed {
  uint64_t model = 0;
  uint64_t base = 0;  // 0 = none
  uint64_t work = 0;  // activations of --batch-tokens tokens, logits, keys and values of generations

  uint64_t total() const { return model + base + work; }
};

// An upper estimate. `base`: null where there is none. Errors: those of load_decoder_config.
MemoryNeed memory_need(const ListedModel& model, const ListedModel* base, const BatchSettings& settings);

}  // namespace salient::pipeline
