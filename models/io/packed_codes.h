// The codes of one linear of a checkpoint, whatever layout they are packed in (models/io/packed_layout.h), recognized by names and
// shapes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>

#include "models/io/checkpoint.h"
#include "models/io/packed_layout.h"
#include "quant/affine.h"
#include "quant/awq_gemm.h"

namespace salient::models {

struct StoredCodes {
  PackedLayout layout;  // nothing in it is open
  quant::QuantizedWeight weight;
  // compressed-tensors with GPTQ's "group" order: the group of each input channel, int64 [in_features]. Undefined: groups lie
  // together.
  at::Tensor channel_groups;
};

// Whether the module's weight is in codes.
bool has_codes(const Checkpoint& checkpoint, const std::string& module);

// Errors: not found; unsupported for a layout that is unknown or cannot be read, such as GPTQ's; corruption, with folder and
// tensor, for shapes that do not fit each other or the features that config.json says, and for scales that are not finite.
StoredCodes load_codes(const Checkpoint& checkpoint, const std::string& module, int64_t out_features, int64_t in_features);

// The tensors of a linear in AutoAWQ's GEMM layout of 4 bits, of which qweight may be a view of the mapped file; nothing for any
// other layout. Let go of it with release_awq_gemm when it has been read. Errors: as load_codes.
std::optional<quant::PackedGemm> view_awq_gemm(const Checkpoint& checkpoint, const std::string& module, int64_t out_features,
                                               int64_t in_features);
void release_awq_gemm(const Checkpoint& checkpoint, const std::string& module);

}  // namespace salient::models
