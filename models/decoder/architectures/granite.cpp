// Granite 3 and 4 (dense): Llama with multipliers of the embeddings, the residual branches, the attention and the logits.
#include "models/decoder/architectures/families.h"

namespace salient::models {

void set_granite_multipliers(const ConfigReader& config, DecoderConfig& decoder) {
  decoder.embedding_multiplier = config.positive_or("embedding_multiplier", 1.0);
  decoder.residual_multiplier = config.positive_or("residual_multiplier", 1.0);
  decoder.attention_scale = config.positive_or("attention_multiplier", 1.0);
  decoder.logit_multiplier = 1.0 / config.positive_or("logits_scaling", 1.0);
}

void configure_granite(const ConfigReader& config, DecoderConfig& decoder) {
  configure_llama(config, decoder);
  set_granite_multipliers(config, decoder);
}

}  // namespace salient::models
