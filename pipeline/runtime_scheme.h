// What an artifact tells engines to round while they run: the inputs of its linears and the KV cache (write_runtime_bits).
// compressed-tensors alone has a place for it: input_activations of its config_groups, found for each token while the model runs,
// and kv_cache_scheme with one scale of a block's keys and one of its values, which are measured here.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/io/compressed_config.h"
#include "models/io/safetensors_header.h"
#include "pipeline/activation_file.h"
#include "pipeline/awq_linear.h"
#include "pipeline/awq_options.h"
#include "pipeline/calibration_pass.h"

namespace salient::pipeline {

// What `options` write; nothing where write_runtime_bits is off.
models::RuntimeBits written_runtime_bits(const AwqOptions& options);

// "8-bit activations and an 8-bit KV cache"; "" for nothing.
std::string runtime_text(const models::RuntimeBits& bits);

// Errors: unsupported for another format than compressed-tensors, and for bits other than 8 and 16; invalid argument when there is
// nothing to write.
void check_runtime_scheme(const AwqOptions& options);

// "<attention module>.k_scale" and ".v_scale" of a block, [1]. None where no KV cache is rounded or the block keeps none (linear
// attention).
std::vector<models::PlannedTensor> plan_kv_scales(const models::DecoderConfig& config, int64_t block, const AwqOptions& options,
                                                  const StoredDtype& stored);

// Stores them: the largest magnitude of the keys, after the rotary embedding, and of the values that the calibration tokens give,
// divided by 127.5, as llm-compressor does. `weights`: as the artifact computes, since scaling changes the size of values; `input`:
// of the block.
void store_kv_scales(const models::DecoderConfig& config, int64_t block, const AwqOptions& options, const CalibrationPass& pass,
                     const models::BlockWeights& weights, const RowReader& input, const StoredDtype& stored,
                     const TensorSink& sink);

}  // namespace salient::pipeline
