// One linear: from its float weight, already scaled, to what is stored.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>

#include "models/decoder/block_layout.h"
#include "models/decoder/linear.h"
#include "pipeline/awq_options.h"
#include "quant/affine.h"
#include "quant/input_statistics.h"

namespace salient::pipeline {

// Where finished tensors go.
struct TensorSink {
  std::function<void(const std::string& name, const at::Tensor& tensor)> put;
  // Element `index` of the first dimension of a tensor.
  std::function<void(const std::string& name, int64_t index, const at::Tensor& tensor)> put_part;
};

// The dtype in which a tensor that is not packed is stored, by its name.
using StoredDtype = std::function<at::ScalarType(const std::string& tensor)>;

// What was done to a linear before: W' = W * columns / rows.
struct AppliedScales {
  at::Tensor columns;  // float32 [in_features], or undefined
  at::Tensor rows;     // float32 [out_features], or undefined
  std::string kind = "identity";
  double ratio = 0;
};

// Whether the linear is to be quantized: routers, gates and what options.ignore names are not.
bool is_quantized(const models::LinearSpec& spec, const AwqOptions& options);

quant::AffineOptions affine_options(const quant::QuantizationSpec& spec, int64_t in_features);

// Of the untouched weight.
double round_to_nearest_error(const at::Tensor& weight, const quant::InputStatistics& input, const AwqOptions& options);

// Clips, rounds, packs and stores `linear`, which is replaced by what was stored (float32). `input`: statistics of the untouched input. Without
// `search` the weight is only rounded to nearest.
LinearReport quantize_linear(const models::LinearSpec& spec, models::FloatLinear& linear, const quant::InputStatistics& input,
                             const AppliedScales& applied, bool search, const AwqOptions& options, const TensorSink& sink);

// Stores `linear`; it is replaced by what was stored (float32). Parts of a tensor with all experts are stored by the caller.
void store_float_linear(const models::LinearSpec& spec, models::FloatLinear& linear, const StoredDtype& stored, const TensorSink& sink);

// In `dtype`, checked: a value beyond its range would silently become infinite. Errors: unsupported.
at::Tensor to_stored_dtype(const at::Tensor& tensor, at::ScalarType dtype, const std::string& name);

}  // namespace salient::pipeline
