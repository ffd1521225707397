// Phi-3, 3.5 and 4: Llama with fused projections and LongRoPE (arXiv 2402.13753).
#include "models/decoder/architectures/families.h"
#include "models/decoder/architectures/layer_types.h"
#include "models/decoder/architectures/llama_names.h"

namespace salient::models {
namespace {

constexpr TensorNames make_phi3_names() {
  TensorNames names = with_fused_gate_up(llama_names());
  names[LinearSlot::kQProj] = names[LinearSlot::kKProj] = names[LinearSlot::kVProj] = "";
  names[LinearSlot::kQkvProj] = "self_attn.qkv_proj";
  return names;
}

}  // namespace

constexpr TensorNames kPhi3Names = make_phi3_names();

void configure_phi3(const ConfigReader& config, DecoderConfig& decoder) {
  const int64_t window = read_window(config, 0);
  for (LayerConfig& layer : decoder.layers) layer.sliding_window = window;
}

}  // namespace salient::models
