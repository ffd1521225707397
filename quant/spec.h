// What a quantized model is: bits of weights, activations and KV cache, group size, zero points, the head's dtype. One value that
// naming, metadata, detection and evaluation all use.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace salient::quant {

enum class HeadDtype { kFp16, kInt8 };

struct QuantizationSpec {
  int weight_bits = 4;
  int activation_bits = 8;   // what the runtime may quantize activations to; the artifact itself stores weights only
  int kv_cache_bits = 8;     // the same for the KV cache
  int64_t group_size = 128;  // input channels that share one scale; -1 = one group for each output channel
  bool zero_point = true;    // asymmetric
  HeadDtype lm_head = HeadDtype::kFp16;

  bool operator==(const QuantizationSpec&) const = default;
};

// "w4 a8 kv8 g128 asym head-fp16"
std::string to_string(const QuantizationSpec& spec);
// "fp16" or "int8".
std::string_view to_string(HeadDtype dtype);
std::optional<HeadDtype> parse_head_dtype(std::string_view text);

// The tag of artifact names: "AWQ_w4_g128_headfp16". A group size of -1 is written "gpc" (per channel), a symmetric specification
// adds "sym": "AWQ_w4_g128_sym_headfp16". Bits of activations and KV cache are not part of the tag.
std::string to_tag(const QuantizationSpec& spec, std::string_view method = "AWQ");
// The inverse: parse_tag(to_tag(s)) equals s in every field that the tag carries, the others have their defaults. The method is
// what stands before "_w". Nothing when `tag` is not exactly such a tag or its specification is not valid.
std::optional<QuantizationSpec> parse_tag(std::string_view tag);

// Errors: invalid argument, naming the field, the value and what is allowed: weights 2, 3, 4, 5, 6 or 8 bits; activations 4, 8 or
// 16; KV cache 2, 4, 8 or 16 (16 = as computed, not quantized); group size -1 or at least 8.
void validate(const QuantizationSpec& spec);

}  // namespace salient::quant
