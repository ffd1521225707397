// The linears that read one input: from float weights, already scaled, to what is stored.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "models/decoder/block_layout.h"
#include "models/decoder/linear.h"
#include "pipeline/awq_options.h"
#include "pipeline/weight_formats.h"
#include "quant/affine.h"
#include "quant/input_statistics.h"

namespace salient::pipeline {

// Where finished tensors go.
struct TensorSink {
  std::function<void(const std::string& name, const at::Tensor& tensor)> put;
  // Element `index` of the first dimension of a tensor.
  std::function<void(const std::string& name, int64_t index, const at::Tensor& tensor)> put_part;
  // What the searches find is added to it; null = nobody wants it.
  SearchResult* found = nullptr;
};

// The dtype in which a tensor that is not packed is stored, by its name.
using StoredDtype = std::function<at::ScalarType(const std::string& tensor)>;

// What was done to a linear before: W' = W * columns / rows.
struct AppliedScales {
  at::Tensor columns;  // float32 [in_features], or undefined
  at::Tensor rows;     // float32 [out_features], or undefined
  std::string kind = "identity";
  double ratio = 0;
  std::string note = {};  // on how they were found, for the report
};

// What is known of the untouched weight.
struct UntouchedWeight {
  double rtn_error = 0;
  double salience_correlation = -2;  // see LinearReport
};

// The settings of one module after overrides.
LinearSetting setting_of(const AwqOptions& options, const std::string& module);
quant::AffineOptions affine_options(const AwqOptions& options, const std::string& module, int64_t in_features);

// Whether the linear's weight is to be rounded, if only in the search: routers, gates, what options.ignore names and overrides to
// 16 bits are not.
bool is_searched(const models::LinearSpec& spec, const AwqOptions& options);
// Whether it is, and rounded weights are what is stored.
bool is_quantized(const models::LinearSpec& spec, const AwqOptions& options);

// The input channels that stay in float in every linear that reads this input: the share AwqOptions::salient_ratio with the largest
// mean |x|. int64, ascending; undefined = none. With salient_auto none: each linear chooses its own, once scales are applied, by
// the error that is left.
at::Tensor salient_inputs(const quant::InputStatistics& input, const AwqOptions& options);
// With these input channels 0, as rounding sees a weight whose other part stays in float: 0 widens no range and has a code of its
// own.
at::Tensor without_channels(const at::Tensor& weight, const at::Tensor& channels);

using UntouchedWeights = std::map<models::LinearId, UntouchedWeight>;

UntouchedWeight measure_untouched(const models::LinearSpec& spec, const at::Tensor& weight, const quant::InputStatistics& input,
                                  const AwqOptions& options);

struct LinearJob {
  const models::LinearSpec* spec;
  models::FloatLinear* linear;  // replaced by what was stored, float32
  AppliedScales applied;        // the same columns for all
  UntouchedWeight untouched;
};

// The input channels of a linear that stay in float: salient_inputs, or with salient_auto those whose own part of the error that
// rounding the scaled weight leaves is worth the bits. int64, ascending; undefined = none. `gram`: of the input divided by the
// columns.
at::Tensor salient_channels(const LinearJob& job, const quant::InputStatistics& input, const at::Tensor& gram,
                            const AwqOptions& options);

// Clips, rounds and stores linears that read the same input, with the same columns applied. `input`: statistics of the untouched
// input, on the device that this runs on; its matrices are let go one by one where the caller moves them here. The linears are on
// the CPU, before and after. Without `search` weights are only rounded to nearest.
// `stored`: dtype of floats and of scales. Salient channels are stored as they are.
std::vector<LinearReport> quantize_linears(const std::vector<LinearJob>& jobs, quant::InputStatistics input, bool search,
                                           const AwqOptions& options, const StoredDtype& stored, const TensorSink& sink);

// Stores `linear`; it is replaced by what was stored (float32). Parts of a tensor with all experts are stored by the caller.
void store_float_linear(const models::LinearSpec& spec, models::FloatLinear& linear, const StoredDtype& stored,
                        const TensorSink& sink);

// In `dtype`, checked: a value beyond its range would silently become infinite. Errors: unsupported.
at::Tensor to_stored_dtype(const at::Tensor& tensor, at::ScalarType dtype, const std::string& name);

}  // namespace salient::pipeline
