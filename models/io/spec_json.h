// The specification as it stands in quantization_metadata.json and in the results database.
#pragma once

#include <string_view>

#include "common/json.h"
#include "quant/spec.h"

namespace salient::models {

// {"activation_bits":8,"group_size":128,"kv_cache_bits":8,"lm_head":"fp16","weight_bits":4,"zero_point":true}
Json spec_to_json(const quant::QuantizationSpec& spec);
// Needs "weight_bits" and "group_size"; the others may be missing and then have their defaults; unknown keys are left alone, so
// that a newer version's file can still be read. `where` opens the error text. Errors: corruption for a missing key, a wrong type
// or a value that validate() refuses.
quant::QuantizationSpec spec_from_json(const Json& json, std::string_view where);

}  // namespace salient::models
