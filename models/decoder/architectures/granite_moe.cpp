// Granite 3's mixtures: all experts of a layer in one tensor.
#include "models/decoder/architectures/families.h"
#include "models/decoder/architectures/mixture.h"

namespace salient::models {
namespace {

constexpr TensorNames make_granite_moe_names() {
  TensorNames names = mixture_names();
  names[LinearSlot::kRouter] = "block_sparse_moe.router.layer";
  names.mlp = "block_sparse_moe.";
  names.expert = "block_sparse_moe.experts.{}.";
  names.fused_gate_up = "block_sparse_moe.input_linear.weight";
  names.fused_down = "block_sparse_moe.output_linear.weight";
  return names;
}

}  // namespace

constexpr TensorNames kGraniteMoeNames = make_granite_moe_names();

void configure_granitemoe(const ConfigReader& config, DecoderConfig& decoder) {
  configure_granite(config, decoder);
  read_experts(config, decoder, {.experts = 8, .experts_per_token = 2});
  decoder.moe.score = RouterScore::kSoftmaxOfChosen;
  set_mixture_layers(decoder, 0);
}

}  // namespace salient::models
