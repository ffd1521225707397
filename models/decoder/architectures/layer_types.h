// Which layers have which attention: the key "layer_types", or what older configuration files say instead.
#pragma once

#include <functional>

#include "models/decoder/config_reader.h"
#include "models/decoder/decoder_config.h"

namespace salient::models {

// Sets sliding_window and attention of every layer. With "layer_types": full_attention, sliding_attention (of `window` tokens),
// linear_attention. Without: sliding where `sliding(layer)` says so. Errors: corruption (another number of entries;
// sliding_attention without a window), unsupported (another type).
void set_layer_types(const ConfigReader& config, DecoderConfig& decoder, int64_t window,
                     const std::function<bool(int64_t layer)>& sliding);

// "sliding_window": null gives 0, a missing key `fallback`.
int64_t read_window(const ConfigReader& config, int64_t fallback);

// Every `pattern`-th layer has full attention, the others slide ("sliding_window_pattern" of Gemma and Cohere).
std::function<bool(int64_t)> sliding_except_every(int64_t pattern);

}  // namespace salient::models
