// What inference engines want of a linear's shape beyond what its format can store: a file that no kernel takes is still a valid
// file, so these are warnings, said before any work.
//
// Sources: the kernels' own checks in AutoAWQ's awq_ext (gemm_cuda.cu, gemv_cuda.cu, gemv_fast, marlin), in vLLM's awq_marlin and
// compressed-tensors (check_marlin_supports_shape: out % 64, in % 128) and in SGLang's, which are vLLM's; llama.cpp's block sizes.
// With tensor parallelism each part of a linear must fit by itself; that is not looked at here.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/decoder/decoder_config.h"
#include "pipeline/awq_options.h"
#include "pipeline/weight_formats.h"

namespace salient::pipeline {

// One thing that an engine wants of linears in a format.
struct EngineRule {
  WeightFormat format;
  std::string_view engine;
  std::string_view wants;  // "output channels in multiples of 64"
  bool (*fits)(const models::LinearSpec& linear, const LinearSetting& setting);
};
std::span<const EngineRule> engine_rules();

// The rules that a linear, which the format can store, does not fit.
std::vector<const EngineRule*> engine_notes(WeightFormat format, const models::LinearSpec& linear, const LinearSetting& setting);

// All that will be quantized, one line for each rule: "awq-gemv: AutoAWQ's kernels take input channels in multiples of 1024: 14 of
// 28 linears do not fit, such as model.layers.0.mlp.down_proj (out 896, in 4864, group 128)". At the end, where wider MLPs would
// fit more of them, what pad_intermediate would make of their widths. Empty when every engine takes every linear, and for formats
// that stay floats. Also which engines compute with what write_runtime_bits tells them (vLLM: issues 33480 of vllm, 1513 of
// llm-compressor).
std::vector<std::string> engine_warnings(const models::DecoderConfig& config, const AwqOptions& options);

}  // namespace salient::pipeline
