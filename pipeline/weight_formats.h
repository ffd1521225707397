// The on-disk formats of quantized linears: what each can hold, which tensors a linear becomes, and what config.json says of it.
//
//   name                what a linear P becomes                                                      read by
//   awq-gemm            P.qweight, P.qzeros, P.scales: quant/awq_gemm.h                              AutoAWQ, transformers, vLLM, SGLang, TGI; the kernels
//                                                                                                    that AutoAWQ calls exllama and ipex are run on it, too
//   awq-gemv            the same names: quant/awq_gemv.h                                             AutoAWQ, GPTQModel
//   awq-gemv-fast       the same names: quant/awq_gemv_fast.h                                        AutoAWQ, GPTQModel
//   awq-marlin          P.qweight, P.scales: quant/awq_marlin.h                                      AutoAWQ
//   compressed-tensors  P.weight_packed, P.weight_scale, [P.weight_zero_point], P.weight_shape:     compressed-tensors, transformers; with 4 and 8 bits
//                       quant/pack_quantized.h                                                       also vLLM and SGLang
//   dequantized         P.weight, rounded to the values that the codes stand for                     everything
//   smoothed            P.weight, scaled but not rounded                                             everything
//   gguf-f16, gguf-bf16 the same in one GGUF file: pipeline/gguf_output.h                            llama.cpp, its llama-quantize
//   gguf-q4_k_m, ...    rows of ggml's blocks in one GGUF file: pipeline/gguf_output.h               llama.cpp and what is built on it
//
// Which shapes the kernels of an engine take is in pipeline/engine_notes.h. A new format is a row in weight_formats.cpp and its
// functions, in a file pair of their own or of their family (weight_format_awq.h, weight_format_compressed.h,
// weight_format_float.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/json.h"
#include "models/decoder/block_layout.h"
#include "models/io/compressed_config.h"
#include "models/io/safetensors_header.h"
#include "pipeline/awq_options.h"
#include "quant/affine.h"
#include "quant/spec.h"

namespace salient::pipeline {

// How one linear is quantized.
struct LinearSetting {
  int bits = 4;
  int64_t group_size = 128;  // -1 = one group for each output channel
  bool zero_point = true;
  auto operator<=>(const LinearSetting&) const = default;
};

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// What a format does with linears. Called for what its row says that it holds only.
struct WeightFormatFunctions {
  // Errors: unsupported for a specification that no linear could be stored with. nullptr: there is none.
  void (*check_spec)(const quant::QuantizationSpec& spec);
  // Errors: invalid argument for a shape that does not fit, groups of `group_size` input channels, resolved. nullptr: all that
  // divide do.
  void (*check_shape)(const models::LinearSpec& linear, int64_t group_size);
  // As planned_tensors below, without the bias.
  std::vector<models::PlannedTensor> (*plan)(const models::LinearSpec& linear, const LinearSetting& setting, at::ScalarType dtype);
  // As packed_tensors. nullptr: it has no codes.
  NamedTensors (*pack)(const std::string& module, const quant::QuantizedWeight& weight, const LinearSetting& setting,
                       at::ScalarType dtype);
  // As quantization_config. nullptr: config.json says nothing.
  Json (*config)(const quant::QuantizationSpec& spec, const std::map<std::string, LinearSetting>& quantized,
                 const std::vector<std::string>& float_modules, const models::RuntimeBits& runtime);
};

struct WeightFormatRow {
  WeightFormat format;
  std::string_view name;
  std::string_view awq_version;  // AutoAWQ's name of it, in lower case; "" = none of its layouts. Those store float16 alone.
  std::span<const int> bits;     // that a linear may have
  bool mixed;                    // linears of one model may differ in bits, group size and zero points
  bool int8_head;                // lm_head may be quantized
  bool rounds;                   // false: weights are scaled only
  bool packed;                   // false: weights stay floats
  bool zero_points;              // false: symmetric only
  const WeightFormatFunctions*
      functions;  // nullptr: a linear has no tensors of its own, a whole file is planned (GGUF: pipeline/gguf_output.h)
  std::string_view readers;

  // Codes that other formats can take over.
  bool convertible() const { return packed && functions != nullptr; }
  // Linears are stored as the source has them, experts of one tensor in one tensor.
  bool keeps_layout() const { return !packed && functions != nullptr; }
};
std::span<const WeightFormatRow> weight_formats();
const WeightFormatRow& row_of(WeightFormat format);

// Whether a divisor of an activation (AutoAWQ's act.scales) has a place in the file.
bool holds_activation_scales(WeightFormat format);

// "awq-gemm", "compressed-tensors", ..., as the table has them.
std::string_view to_string(WeightFormat format);
std::optional<WeightFormat> parse_weight_format(std::string_view name);
// AutoAWQ's "gemm", "gemv", "gemv_fast" or "marlin", upper or lower case.
std::optional<WeightFormat> parse_awq_version(std::string_view version);

// Errors: unsupported, naming the field and the formats that can hold it. `smoothed` takes any specification: it only searches as
// if it would round.
void check_format(WeightFormat format, const quant::QuantizationSpec& spec);
// Errors: unsupported when linears of this format cannot keep some of their input channels in float, naming the formats that can.
void check_salient_channels(WeightFormat format);
// The same for linears that differ in bits (target_bits), and for formats in which nothing is rounded.
void check_mixed_bits(WeightFormat format);
// One linear. Errors: invalid argument for a shape that the format does not have or a group size that does not divide, unsupported
// for bits that it does not have, zero points that it does not store, or, where it holds one setting only, for one that is not the
// specification's; all say what fits.
void check_linear(WeightFormat format, const quant::QuantizationSpec& spec, const models::LinearSpec& linear,
                  const LinearSetting& setting);

// The tensors of one quantized linear in the order in which they are stored, its bias last. `dtype`: of scales, bias and weights
// that are not packed (AutoAWQ's: always float16). Errors: as check_linear for the shape.
std::vector<models::PlannedTensor> planned_tensors(WeightFormat format, const models::LinearSpec& linear,
                                                   const LinearSetting& setting, at::ScalarType dtype);

// The same tensors with their values, without the bias. Scales that are not exact in `dtype` are rounded to it: quantize with
// scales that are. Errors: invalid argument for codes beyond the bits and, without zero points, for zeros that are not the middle;
// unsupported for dequantized values that `dtype` cannot hold; internal for `smoothed`, which has no codes.
NamedTensors packed_tensors(WeightFormat format, const std::string& module, const quant::QuantizedWeight& weight,
                            const LinearSetting& setting, at::ScalarType dtype);

// quantization_config of config.json; null where the format has none (dequantized, smoothed).
// `quantized`: every quantized module, lm_head among them when it is, by its name in the checkpoint. `float_modules`: names of
// linears that are not quantized, or of parts (part_pattern for compressed-tensors); lm_head need not be named. compressed-tensors:
// one config_group for each distinct setting, the most frequent first; with one group its target is the class "Linear", else
// targets are module names, experts of a layer with the same setting as one expression. `runtime`: input_activations of every group
// and kv_cache_scheme; other formats have no place for it.
Json quantization_config(WeightFormat format, const quant::QuantizationSpec& spec,
                         const std::map<std::string, LinearSetting>& quantized, const std::vector<std::string>& float_modules,
                         const models::RuntimeBits& runtime = {});

}  // namespace salient::pipeline
