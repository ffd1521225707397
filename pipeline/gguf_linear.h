// How the linears of a GGUF file are quantized: the type of each, and the work of pipeline/awq_linear.h and pipeline/awq_block.h
// with blocks in the place of affine groups. No clipping: the types search their ranges themselves.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <optional>
#include <string>

#include "models/decoder/decoder_config.h"
#include "models/gguf/gguf_mixture.h"
#include "pipeline/awq_options.h"
#include "pipeline/weight_formats.h"
#include "quant/ggml_rounding.h"

namespace salient::pipeline {

// Null for formats that are no GGUF files. `F16` and `BF16` among them, which round nothing.
const models::GgufFormat* gguf_format_of(WeightFormat format);

// What a GGUF format says itself: bits, group size and zero points of most linears, and that nothing is clipped. Those in float say
// that nothing is clipped: bits and groups are what the search assumes that will follow. Other formats: nothing changes.
void apply_gguf_format(AwqOptions& options);
// Errors: unsupported, for settings that a GGUF file has no place for: overrides other than 16 bits.
void check_gguf_settings(const AwqOptions& options);

// The type of every linear, by module; empty for other formats, and for those that round nothing. Errors: unsupported
// (models::plan_gguf_tensors).
std::map<std::string, quant::GgmlType> ggml_types(const models::DecoderConfig& config, const AwqOptions& options);

// Bytes of all tensors of such a file. Errors: as above.
uint64_t gguf_data_bytes(const models::DecoderConfig& config, const models::GgufFormat& format);

// What the mixture gives this module; nothing for other formats and for modules that it does not name.
std::optional<quant::GgmlType> ggml_type_of(const AwqOptions& options, const std::string& module);

// The bits and groups of a type. Types without codes: 16 bits, in float.
LinearSetting ggml_setting(quant::GgmlType type);

// Scales for one linear alone, as quant::search_scales, on the device of `input`; in a GGUF file the best few are compared by its
// blocks.
quant::ScaleSearchResult search_linear_scales(const std::string& module, const at::Tensor& weight,
                                              const quant::InputStatistics& input, const AwqOptions& options,
                                              const at::Tensor& tie);

// Candidates of a search that are compared by blocks, beside identity.
inline constexpr size_t kBlockCandidates = 4;

}  // namespace salient::pipeline
