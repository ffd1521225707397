// Rotary embeddings that differ by layer type, and those that a configuration class assumes where config.json has none.
#pragma once

#include <string_view>

#include "models/decoder/config_reader.h"
#include "models/decoder/decoder_config.h"

namespace salient::models {

// Sets ropes to {layers with full attention, layers with a sliding window} and every layer's choice; call after set_layer_types.
// "rope_parameters" holds one object for each of "full_attention" and "sliding_attention" (transformers 5). Before: rope_theta and
// rope_scaling are the full layers'; the sliding ones are not scaled and have the theta of key `sliding_theta_key`.
// Errors: those of parse_rope_object; corruption (rope_parameters that name no layer type).
void set_ropes_by_layer_type(const ConfigReader& config, DecoderConfig& decoder, const RopeDefaults& full,
                             const RopeDefaults& sliding, std::string_view sliding_theta_key);

// Replaces ropes[0] by `parameters` (as "rope_parameters" has them) where config.json has neither rope_parameters nor rope_scaling.
void set_rope_if_missing(const ConfigReader& config, DecoderConfig& decoder, const RopeDefaults& defaults, const Json& parameters);

// The object that describes the rotary embedding of all layers: rope_scaling, or rope_parameters; nullptr = neither.
const Json* find_rope_object(const ConfigReader& config);

}  // namespace salient::models
