// What a quantization will read, write and need, before any of it happens.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "models/decoder/decoder_config.h"
#include "models/io/checkpoint.h"
#include "models/io/safetensors_header.h"
#include "pipeline/awq_linear.h"
#include "pipeline/awq_options.h"

namespace salient::pipeline {

StoredDtype one_dtype(at::ScalarType dtype);
// Of packed formats: float16, for compressed-tensors of a bfloat16 model bfloat16.
at::ScalarType packed_dtype(const models::DecoderConfig& config, WeightFormat format);
// packed_dtype for packed formats, float32 for rounded floats; for smoothing alone each tensor's own in the source, which must
// outlive the result.
StoredDtype stored_dtypes(const models::Checkpoint& checkpoint, const models::DecoderConfig& config, const AwqOptions& options);

// lm_head in codes: 8 bits, one symmetric scale for each token of the vocabulary.
inline constexpr LinearSetting kHeadSetting{8, -1, false};
bool quantizes_head(const AwqOptions& options);
models::LinearSpec head_spec(const models::DecoderConfig& config);

// The tensors outside of the blocks, in the order in which they are stored.
struct OuterTensors {
  std::vector<models::PlannedTensor> before;
  std::vector<models::PlannedTensor> after;
  std::vector<models::PlannedTensor> head;  // in codes, where quantizes_head says so
};
// Without `options`: as a float checkpoint has them.
OuterTensors plan_outer(const models::DecoderConfig& config, const StoredDtype& stored, const AwqOptions* options = nullptr);

// The tensors of one block. Parameters are planned with the dtype that `checkpoint` has them in; without one, as float32. Errors:
// invalid argument, naming the layers, for a group size that does not divide, and for a linear whose shape the format does not
// have.
std::vector<models::PlannedTensor> plan_block(const models::DecoderConfig& config, int64_t block, const AwqOptions& options,
                                              const StoredDtype& stored, const models::Checkpoint* checkpoint = nullptr);

// The tensors of a multimodal checkpoint that are not the text model's, as they are there: names in order, dtypes of the source.
// They are copied unchanged. Empty for a model of text alone.
std::vector<models::PlannedTensor> plan_kept(const models::Checkpoint& checkpoint, const models::DecoderConfig& config);

// Every tensor that the architecture names must be there with its shape; every other one would be lost, but for those of plan_kept.
// Returns what the user should see: what is kept as it is, and what is left out on purpose because it follows from the config, or
// serves training or speculative decoding only. Errors: not found, corruption, unsupported.
std::vector<std::string> check_tensors(const models::Checkpoint& checkpoint, const models::DecoderConfig& config);

// Modules of the artifact that stay in float, for quantization_config: empty when there are none besides lm_head. Those of a
// multimodal model are named so that readers find them by the beginning or the end of a name or anywhere in it, however they spell
// its beginning. `kept`: what plan_kept gave.
std::vector<std::string> float_modules(const models::DecoderConfig& config, const AwqOptions& options,
                                       const std::vector<models::PlannedTensor>& kept = {});
// The same where `linears` of the blocks, by their names in the checkpoint, are those in float.
std::vector<std::string> float_modules(const models::DecoderConfig& config, WeightFormat format,
                                       const std::vector<std::string>& linears, const std::vector<models::PlannedTensor>& kept);

// Every module that is stored in codes, by its name in the checkpoint.
std::map<std::string, LinearSetting> quantized_modules(const models::DecoderConfig& config, const AwqOptions& options);

// Bytes of memory and disk that quantize_model will need at most, from the shapes alone.
struct QuantizeEstimate {
  uint64_t peak_memory_bytes = 0;
  uint64_t disk_bytes = 0;   // the artifact and the work files
  uint64_t block_bytes = 0;  // of the peak, the largest block's weights and Gram matrices
};
QuantizeEstimate estimate_quantize(const models::DecoderConfig& config, const AwqOptions& options, int64_t calibration_tokens,
                                   int64_t batch_tokens);

}  // namespace salient::pipeline
