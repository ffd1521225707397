// What a quantized model is: bits of weights, activations and KV cache, group size, zero points, the head's dtype. One value that naming,
// metadata, detection and evaluation all use.
#pragma once

#include <cstdint>
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
// The tag of artifact names: "AWQ_w4_g128_headfp16". A group size of -1 is written "gpc" (per channel).
std::string to_tag(const QuantizationSpec& spec, std::string_view method = "AWQ");
// Throws invalid argument when a field is outside of what the formats can hold.
void validate(const QuantizationSpec& spec);

}  // namespace salient::quant
