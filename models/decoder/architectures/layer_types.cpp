#include "models/decoder/architectures/layer_types.h"

#include "common/error.h"

namespace salient::models {

int64_t read_window(const ConfigReader& config, int64_t fallback) {
  const bool given_as_null = config.object().contains("sliding_window") && !config.has("sliding_window");
  if (given_as_null) return 0;
  return config.has("sliding_window") ? config.size("sliding_window") : fallback;
}

std::function<bool(int64_t)> sliding_except_every(int64_t pattern) {
  return [pattern](int64_t layer) { return (layer + 1) % pattern != 0; };
}

void set_layer_types(const ConfigReader& config, DecoderConfig& decoder, int64_t window,
                     const std::function<bool(int64_t layer)>& sliding) {
  const std::vector<std::string> types = config.texts_or_empty("layer_types");
  if (types.empty()) {
    for (size_t layer = 0; layer < decoder.layers.size(); ++layer) {
      decoder.layers[layer].sliding_window = sliding(static_cast<int64_t>(layer)) ? window : 0;
    }
    return;
  }
  if (types.size() != decoder.layers.size()) {
    fail(ErrorKind::kCorruption, "{}: key 'layer_types' has {} entries, expected a list of {}, one a layer", config.where(),
         types.size(), decoder.layers.size());
  }
  for (size_t layer = 0; layer < types.size(); ++layer) {
    if (types[layer] == "full_attention") {
      decoder.layers[layer].sliding_window = 0;
    } else if (types[layer] == "sliding_attention") {
      if (window == 0) {
        fail(ErrorKind::kCorruption,
             "{}: layer_types[{}] is sliding_attention, but there is no sliding_window (or use_sliding_window is off)",
             config.where(), layer);
      }
      decoder.layers[layer].sliding_window = window;
    } else if (types[layer] == "linear_attention") {
      if (decoder.linear_attention.num_key_heads == 0) {
        fail(ErrorKind::kUnsupported, "{}: layer_types[{}] is linear_attention, which '{}' has none of", config.where(), layer,
             decoder.model_type);
      }
      decoder.layers[layer].attention = AttentionKind::kLinear;
    } else {
      fail(ErrorKind::kUnsupported,
           "{}: layer_types[{}] is \"{}\", supported are \"full_attention\", \"sliding_attention\" and \"linear_attention\"",
           config.where(), layer, types[layer].substr(0, 60));
    }
  }
}

}  // namespace salient::models
