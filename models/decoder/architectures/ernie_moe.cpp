// ERNIE 4.5's mixtures.
#include "common/error.h"
#include "models/decoder/architectures/families.h"
#include "models/decoder/architectures/mixture.h"

namespace salient::models {
namespace {

constexpr TensorNames make_ernie_moe_names() {
  TensorNames names = mixture_names();
  names[ParameterSlot::kRouterCorrection] = "mlp.moe_statics.e_score_correction_bias";
  names.shared_expert = "mlp.shared_experts.";
  return names;
}

}  // namespace

constexpr TensorNames kErnieMoeNames = make_ernie_moe_names();

void configure_ernie4_5_moe(const ConfigReader& config, DecoderConfig& decoder) {
  const bool bias = config.flag_or("use_bias", false);  // not of routed experts
  decoder.qkv_bias = decoder.o_bias = decoder.mlp_bias = decoder.lm_head_bias = bias;

  MoeConfig& moe = decoder.moe;
  read_experts(config, decoder, {.experts = 64, .experts_per_token = 6, .intermediate_size = 1536});
  read_shared_experts(config, decoder, 2);
  moe.normalize = true;
  moe.normalize_minimum = config.number_or("moe_norm_min", 1e-12);
  moe.correction_row = true;

  const int64_t first = config.integer_or("moe_layer_start_index", 1);
  const int64_t end = config.integer_or("moe_layer_end_index", -1);
  const int64_t last = end == -1 ? decoder.num_hidden_layers - 1 : end;
  const int64_t interval = config.size_or("moe_layer_interval", 1);
  for (int64_t layer = 0; layer < decoder.num_hidden_layers; ++layer) {
    decoder.layers[static_cast<size_t>(layer)].moe = (layer + 1) % interval == 0 && layer >= first && layer <= last;
  }
}

}  // namespace salient::models
