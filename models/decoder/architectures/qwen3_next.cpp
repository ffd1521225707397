// Qwen3-Next and Qwen3.5 (its language model): three layers of linear attention to one of gated full attention, norms that store w
// - 1.
#include "common/error.h"
#include "models/decoder/architectures/families.h"
#include "models/decoder/architectures/layer_types.h"
#include "models/decoder/architectures/mixture.h"

namespace salient::models {
namespace {

constexpr TensorNames make_common_names() {
  TensorNames names = mixture_names();
  names[NormSlot::kQuery] = "self_attn.q_norm";
  names[NormSlot::kKey] = "self_attn.k_norm";
  names[LinearSlot::kSharedExpertGate] = "mlp.shared_expert_gate";
  names[NormSlot::kLinearAttention] = "linear_attn.norm";
  names[ParameterSlot::kConvolution] = "linear_attn.conv1d.weight";
  names[ParameterSlot::kDecayLog] = "linear_attn.A_log";
  names[ParameterSlot::kDecayBias] = "linear_attn.dt_bias";
  names.linear_attention_output = "linear_attn.out_proj";
  names.shared_expert = "mlp.shared_expert.";
  return names;
}

constexpr TensorNames without_experts(TensorNames names) {
  names[LinearSlot::kRouter] = names[LinearSlot::kSharedExpertGate] = "";
  names.expert = names.shared_expert = "";
  return names;
}

constexpr TensorNames make_qwen3_next_names() {
  TensorNames names = make_common_names();
  names[LinearSlot::kInProjQkvz] = "linear_attn.in_proj_qkvz";
  names[LinearSlot::kInProjBa] = "linear_attn.in_proj_ba";
  return names;
}

constexpr TensorNames make_qwen3_5_names() {
  TensorNames names = make_common_names();
  names[LinearSlot::kInProjQkv] = "linear_attn.in_proj_qkv";
  names[LinearSlot::kInProjZ] = "linear_attn.in_proj_z";
  names[LinearSlot::kInProjB] = "linear_attn.in_proj_b";
  names[LinearSlot::kInProjA] = "linear_attn.in_proj_a";
  return names;
}

constexpr TensorNames make_qwen3_5_moe_names() {
  TensorNames names = make_qwen3_5_names();
  // As published; save_pretrained writes an expert's linears one by one.
  names.fused_gate_up = "mlp.experts.gate_up_proj";
  names.fused_down = "mlp.experts.down_proj";
  return names;
}

void set_attention(const ConfigReader& config, DecoderConfig& decoder) {
  decoder.norm_kind = decoder.head_norm_kind = NormKind::kRmsOnePlus;
  decoder.query_gate = true;
  decoder.qkv_bias = decoder.o_bias = config.flag_or("attention_bias", false);

  LinearAttentionConfig& linear = decoder.linear_attention;
  linear.num_key_heads = config.size_or("linear_num_key_heads", 16);
  linear.num_value_heads = config.size_or("linear_num_value_heads", 32);
  linear.key_head_dim = config.size_or("linear_key_head_dim", 128);
  linear.value_head_dim = config.size_or("linear_value_head_dim", 128);
  linear.convolution = config.size_or("linear_conv_kernel_dim", 4);
  if (linear.num_value_heads % linear.num_key_heads != 0) {
    fail(ErrorKind::kCorruption, "{}: linear_num_value_heads {} is not a multiple of linear_num_key_heads {}", config.where(),
         linear.num_value_heads, linear.num_key_heads);
  }

  set_layer_types(config, decoder, /*window=*/0, [](int64_t) { return false; });
  if (config.has("layer_types")) return;
  const int64_t interval = config.size_or("full_attention_interval", 4);
  for (size_t layer = 0; layer < decoder.layers.size(); ++layer) {
    if ((static_cast<int64_t>(layer) + 1) % interval != 0) decoder.layers[layer].attention = AttentionKind::kLinear;
  }
}

void set_mixture(const ConfigReader& config, DecoderConfig& decoder, int64_t experts, int64_t experts_per_token, bool normalize) {
  read_experts(config, decoder, {.experts = experts, .experts_per_token = experts_per_token, .intermediate_size = 512});
  decoder.moe.shared_intermediate_size = config.size_or("shared_expert_intermediate_size", 512);
  decoder.moe.normalize = normalize;
}

}  // namespace

constexpr TensorNames kQwen3NextNames = make_qwen3_next_names();
constexpr TensorNames kQwen3_5Names = without_experts(make_qwen3_5_names());
constexpr TensorNames kQwen3_5MoeNames = make_qwen3_5_moe_names();

void configure_qwen3_next(const ConfigReader& config, DecoderConfig& decoder) {
  set_attention(config, decoder);
  if (config.integer_or("num_experts", 512) == 0) return;
  set_mixture(config, decoder, 512, 10, config.flag_or("norm_topk_prob", true));
  set_sparse_step_layers(config, decoder);
}

void configure_qwen3_5(const ConfigReader& config, DecoderConfig& decoder) { set_attention(config, decoder); }

void configure_qwen3_5_moe(const ConfigReader& config, DecoderConfig& decoder) {
  set_attention(config, decoder);
  set_mixture(config, decoder, 256, 8, /*normalize=*/true);
  set_mixture_layers(decoder, 0);
}

}  // namespace salient::models
