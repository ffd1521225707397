// What the models before Llama share: layer norms with biases, plain MLPs, positions that are not rotary.
#include "models/decoder/architectures/families.h"
#include "models/decoder/mlp.h"

namespace salient::models {

void set_layer_norms(DecoderConfig& decoder, bool bias) {
  decoder.norm_kind = NormKind::kLayer;
  decoder.norm_bias = bias;
}

void set_plain_mlp(DecoderConfig& decoder) {
  decoder.gated_mlp = false;
  // No need to divide what a scaled linear before the activation can make smaller.
  if (activation_homogeneity(decoder.hidden_act) != 0) decoder.names[ParameterSlot::kActivationScales] = "";
}

void set_position_kind(DecoderConfig& decoder, PositionKind kind) {
  decoder.position = kind;
  decoder.ropes.clear();
  for (LayerConfig& layer : decoder.layers) layer.rope = -1;
}

void set_learned_positions(DecoderConfig& decoder, int64_t offset) {
  set_position_kind(decoder, PositionKind::kLearned);
  decoder.position_offset = offset;
  decoder.learned_positions = decoder.max_position_embeddings + offset;
}

}  // namespace salient::models
