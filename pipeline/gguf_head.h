// The output head of a GGUF file: in the mixture's type, with what it reads known: the final hidden states of the quantized model.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>

#include "pipeline/activation_file.h"
#include "pipeline/awq_linear.h"
#include "pipeline/calibration_pass.h"

namespace salient::pipeline {

// Statistics of what the head reads. `hidden`: the last block's output.
quant::InputStatistics head_statistics(const models::Checkpoint& checkpoint, const models::DecoderConfig& config,
                                       const CalibrationPass& pass, const RowReader& hidden);

// The head's weight is rounded after all blocks: damage in it is found before the first. Errors: corruption (NaN or Inf, with the
// tensor and the row).
void check_head(const models::Checkpoint& checkpoint, const std::string& tensor);

struct HeadBlocks {
  at::Tensor blocks;     // uint8 [vocab_size, bytes of a row]
  double rtn_error = 0;  // as in LinearReport
  double error = 0;
};

// Blocks with importance and compensated codes, as of any linear (quantize_linears), a piece of the vocabulary at a time. `weight`:
// [vocab_size, hidden_size], any float dtype. Of `options` ggml_types, overrides and rows_curve do not matter here.
HeadBlocks quantize_head(const models::DecoderConfig& config, const at::Tensor& weight, quant::GgmlType type,
                         const quant::InputStatistics& input, const AwqOptions& options);

}  // namespace salient::pipeline
