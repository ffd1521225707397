#include "models/decoder/block_layout.h"

#include "common/error.h"

namespace salient::models {
namespace {

// Of the configuration's names, what one block of a given kind has.
class LayoutBuilder {
 public:
  LayoutBuilder(const DecoderConfig& config, int64_t block)
      : config_(config),
        layer_(config.layers[static_cast<size_t>(block)]),
        prefix_(fmt::format("{}{}.", config.names.block_prefix, block)) {}

  void add_linear(std::vector<LinearSpec>& list, LinearSlot slot, int64_t out, int64_t in, bool bias, InputSlot input,
                  bool quantize = true) const {
    const std::string_view name = config_.names[slot];
    if (name.empty()) return;
    list.push_back({{slot, kDenseMlp}, prefix_ + std::string(name), out, in, bias, {input, kDenseMlp}, quantize, std::nullopt});
  }

  void add_attention(BlockLayout& layout) const {
    auto& list = layout.linears;
    const int64_t hidden = config_.hidden_size;
    switch (layer_.attention) {
      case AttentionKind::kStandard: {
        const int64_t queries = config_.num_attention_heads * config_.head_dim;
        const int64_t keys = config_.num_key_value_heads * config_.head_dim;
        const int64_t query_rows = config_.query_gate ? 2 * queries : queries;
        add_linear(list, LinearSlot::kQProj, query_rows, hidden, config_.qkv_bias, InputSlot::kAttentionInput);
        add_linear(list, LinearSlot::kKProj, keys, hidden, config_.qkv_bias, InputSlot::kAttentionInput);
        add_linear(list, LinearSlot::kVProj, keys, hidden, config_.qkv_bias, InputSlot::kAttentionInput);
        add_linear(list, LinearSlot::kQkvProj, queries + 2 * keys, hidden, config_.qkv_bias, InputSlot::kAttentionInput);
        add_linear(list, LinearSlot::kOutputGate, queries, hidden, false, InputSlot::kAttentionInput);
        add_linear(list, LinearSlot::kOProj, hidden, queries, config_.o_bias, InputSlot::kAttentionOutput);
        add_head_norm(layout, NormSlot::kQuery, config_.num_attention_heads);
        add_head_norm(layout, NormSlot::kKey, config_.num_key_value_heads);
        add_parameter(layout, ParameterSlot::kSinks, {config_.num_attention_heads});
        return;
      }
      case AttentionKind::kLatent: {
        const LatentAttentionConfig& latent = config_.latent;
        const int64_t heads = config_.num_attention_heads;
        const int64_t query = heads * (latent.qk_nope_head_dim + latent.qk_rope_head_dim);
        add_linear(list, LinearSlot::kQProj, query, hidden, false, InputSlot::kAttentionInput);
        add_linear(list, LinearSlot::kQAProj, latent.q_lora_rank, hidden, config_.qkv_bias, InputSlot::kAttentionInput);
        add_linear(list, LinearSlot::kQBProj, query, latent.q_lora_rank, false, InputSlot::kQueryLatent);
        add_linear(list, LinearSlot::kKvAProj, latent.kv_lora_rank + latent.qk_rope_head_dim, hidden, config_.qkv_bias,
                   InputSlot::kAttentionInput);
        add_linear(list, LinearSlot::kKvBProj, heads * (latent.qk_nope_head_dim + latent.v_head_dim), latent.kv_lora_rank, false,
                   InputSlot::kKvLatent);
        add_linear(list, LinearSlot::kOProj, hidden, heads * latent.v_head_dim, config_.o_bias, InputSlot::kAttentionOutput);
        add_norm(layout, NormSlot::kQueryLatent, latent.q_lora_rank, NormKind::kRms, config_.latent_norm_eps, false);
        add_norm(layout, NormSlot::kKvLatent, latent.kv_lora_rank, NormKind::kRms, config_.latent_norm_eps, false);
        return;
      }
      case AttentionKind::kLinear: {
        const LinearAttentionConfig& linear = config_.linear_attention;
        const int64_t keys = linear.num_key_heads * linear.key_head_dim;
        const int64_t values = linear.num_value_heads * linear.value_head_dim;
        const int64_t heads = linear.num_value_heads;
        add_linear(list, LinearSlot::kInProjQkvz, 2 * keys + 2 * values, hidden, false, InputSlot::kAttentionInput);
        add_linear(list, LinearSlot::kInProjQkv, 2 * keys + values, hidden, false, InputSlot::kAttentionInput);
        add_linear(list, LinearSlot::kInProjZ, values, hidden, false, InputSlot::kAttentionInput);
        // A handful of rows that steer the memory's decay: they stay in float.
        add_linear(list, LinearSlot::kInProjBa, 2 * heads, hidden, false, InputSlot::kAttentionInput, /*quantize=*/false);
        add_linear(list, LinearSlot::kInProjB, heads, hidden, false, InputSlot::kAttentionInput, /*quantize=*/false);
        add_linear(list, LinearSlot::kInProjA, heads, hidden, false, InputSlot::kAttentionInput, /*quantize=*/false);
        add_linear_output(list, values);
        add_norm(layout, NormSlot::kLinearAttention, linear.value_head_dim, NormKind::kRms, config_.norm_eps, false);
        add_parameter(layout, ParameterSlot::kConvolution, {2 * keys + values, 1, linear.convolution});
        add_parameter(layout, ParameterSlot::kDecayLog, {heads});
        add_parameter(layout, ParameterSlot::kDecayBias, {heads});
        return;
      }
    }
  }

  void add_mlp(BlockLayout& layout) const {
    const MoeConfig& moe = config_.moe;
    if (!layer_.moe) {
      append(layout.linears,
             mlp_linears(prefix_ + std::string(config_.names.mlp), kDenseMlp, config_.intermediate_size, config_.mlp_bias));
      add_parameter(layout, ParameterSlot::kActivationScales, {config_.intermediate_size}, /*optional=*/true);
      for (const ParameterSlot slot : {ParameterSlot::kXieluAlphaP, ParameterSlot::kXieluAlphaN}) add_parameter(layout, slot, {1});
      for (const ParameterSlot slot : {ParameterSlot::kXieluBeta, ParameterSlot::kXieluEps})
        add_parameter(layout, slot, {}, /*optional=*/true);
      return;
    }
    layout.experts = moe.num_experts;
    const std::string_view router = config_.names[LinearSlot::kRouter];
    layout.linears.push_back({{LinearSlot::kRouter, kDenseMlp},
                              prefix_ + std::string(router),
                              moe.num_experts,
                              config_.hidden_size,
                              moe.router_bias,
                              mlp_input(),
                              false,
                              std::nullopt});
    add_parameter(layout, ParameterSlot::kRouterCorrection,
                  moe.correction_row ? std::vector<int64_t>{1, moe.num_experts} : std::vector<int64_t>{moe.num_experts});
    if (moe.shared_intermediate_size == 0) return;
    append(layout.linears, mlp_linears(prefix_ + std::string(config_.names.shared_expert), kSharedExpert,
                                       moe.shared_intermediate_size, config_.mlp_bias));
    add_linear(layout.linears, LinearSlot::kSharedExpertGate, 1, config_.hidden_size, false, mlp_input().slot, /*quantize=*/false);
  }

  std::vector<LinearSpec> expert(int64_t index) const {
    const std::string expert_prefix = prefix_ + fmt::format(fmt::runtime(config_.names.expert), index);
    std::vector<LinearSpec> linears = mlp_linears(expert_prefix, index, config_.moe.intermediate_size, config_.moe.expert_bias);
    if (config_.names.fused_down.empty()) return linears;
    for (LinearSpec& linear : linears) linear.fused = fused_part(linear, index);
    return linears;
  }

  void add_norms(BlockLayout& layout) const {
    for (const NormSlot slot : {NormSlot::kAttentionInput, NormSlot::kAttentionOutput, NormSlot::kMlpInput, NormSlot::kMlpOutput}) {
      if (const std::string_view name = config_.names[slot]; !name.empty())
        layout.norms.push_back(hidden_norm(config_, prefix_ + std::string(name), slot));
    }
    add_parameter(layout, ParameterSlot::kOutputScale, {1});
  }

 private:
  static void append(std::vector<LinearSpec>& list, std::vector<LinearSpec> more) {
    for (LinearSpec& spec : more) list.push_back(std::move(spec));
  }

  InputId mlp_input() const {
    const bool shared = config_.parallel_residual && config_.names[NormSlot::kMlpInput].empty();
    return {shared ? InputSlot::kAttentionInput : InputSlot::kMlpInput, kDenseMlp};
  }

  std::vector<LinearSpec> mlp_linears(const std::string& mlp_prefix, int64_t mlp, int64_t width, bool bias) const {
    std::vector<LinearSpec> list;
    const auto add = [&](LinearSlot slot, int64_t out, int64_t in, InputId input) {
      const std::string_view name = config_.names[slot];
      if (name.empty()) return;
      list.push_back({{slot, mlp}, mlp_prefix + std::string(name), out, in, bias, input, true, std::nullopt});
    };
    add(LinearSlot::kGateProj, width, config_.hidden_size, mlp_input());
    add(LinearSlot::kUpProj, width, config_.hidden_size, mlp_input());
    add(LinearSlot::kGateUpProj, 2 * width, config_.hidden_size, mlp_input());
    add(LinearSlot::kDownProj, config_.hidden_size, width, {InputSlot::kMlpHidden, mlp});
    return list;
  }

  FusedPart fused_part(const LinearSpec& linear, int64_t index) const {
    const TensorNames& names = config_.names;
    const MoeConfig& moe = config_.moe;
    const bool down = linear.id.slot == LinearSlot::kDownProj;
    const auto full = [&](std::string_view name) { return name.empty() ? std::string() : prefix_ + std::string(name); };
    FusedPart part;
    part.tensor = full(down ? names.fused_down : names.fused_gate_up);
    part.bias = full(down ? names.fused_down_bias : names.fused_gate_up_bias);
    part.expert = index;
    part.experts = moe.num_experts;
    part.transposed = moe.fused_transposed;
    part.rows = down ? linear.out_features : 2 * moe.intermediate_size;
    if (linear.id.slot == LinearSlot::kUpProj) part.row_begin = moe.fused_interleaved ? 1 : moe.intermediate_size;
    if (!down && moe.fused_interleaved) part.row_step = 2;
    return part;
  }

  void add_linear_output(std::vector<LinearSpec>& list, int64_t values) const {
    list.push_back({{LinearSlot::kOProj, kDenseMlp},
                    prefix_ + std::string(config_.names.linear_attention_output),
                    config_.hidden_size,
                    values,
                    false,
                    {InputSlot::kAttentionOutput, kDenseMlp},
                    true,
                    std::nullopt});
  }

  void add_norm(BlockLayout& layout, NormSlot slot, int64_t features, NormKind kind, double eps, bool bias) const {
    const std::string_view name = config_.names[slot];
    if (name.empty()) return;
    layout.norms.push_back({slot, {prefix_ + std::string(name)}, features, 0, kind, eps, bias});
  }

  void add_head_norm(BlockLayout& layout, NormSlot slot, int64_t heads) const {
    const std::string_view name = config_.names[slot];
    if (name.empty() || (config_.head_norm_rotated_layers_only && layer_.rope < 0)) return;
    NormSpec spec{
        slot, {}, config_.head_dim, 0, config_.head_norm_kind, config_.norm_eps, config_.head_norm_bias, config_.head_norm_affine};
    if (config_.head_norm == HeadNorm::kWholeWidth) spec.features = heads * config_.head_dim;
    if (config_.head_norm == HeadNorm::kOwnWeights) spec.heads = heads;
    if (name.find("{}") == std::string_view::npos) {
      spec.names.push_back(prefix_ + std::string(name));
    } else {
      if (heads == 1) spec.heads = 0;  // a module of one head has a plain vector
      for (int64_t head = 0; head < heads; ++head) spec.names.push_back(prefix_ + fmt::format(fmt::runtime(name), head));
    }
    layout.norms.push_back(std::move(spec));
  }

  void add_parameter(BlockLayout& layout, ParameterSlot slot, std::vector<int64_t> shape, bool optional = false) const {
    const std::string_view name = config_.names[slot];
    if (!name.empty()) layout.parameters.push_back({slot, prefix_ + std::string(name), std::move(shape), optional});
  }

  const DecoderConfig& config_;
  const LayerConfig& layer_;
  std::string prefix_;
};

}  // namespace

NormSpec hidden_norm(const DecoderConfig& config, std::string_view module, NormSlot slot) {
  return {
      slot, {std::string(module)}, config.hidden_size, 0, config.norm_kind, config.norm_eps, config.norm_bias, config.norm_affine};
}

BlockLayout block_layout(const DecoderConfig& config, int64_t block) {
  const LayoutBuilder builder(config, block);
  BlockLayout layout;
  layout.block = block;
  builder.add_attention(layout);
  builder.add_mlp(layout);
  builder.add_norms(layout);
  return layout;
}

std::vector<LinearSpec> expert_layout(const DecoderConfig& config, int64_t block, int64_t expert) {
  return LayoutBuilder(config, block).expert(expert);
}

std::string attention_module(const DecoderConfig& config, int64_t block) {
  for (const LinearSpec& linear : block_layout(config, block).linears) {
    if (linear.id.slot == LinearSlot::kOProj) return linear.name.substr(0, linear.name.rfind('.'));
  }
  fail(ErrorKind::kInternal, "block {} has no output projection", block);
}

std::vector<int64_t> value_rows(const DecoderConfig& config, LinearSlot slot) {
  std::vector<int64_t> rows;
  if (slot == LinearSlot::kKvBProj) {
    const LatentAttentionConfig& latent = config.latent;
    const int64_t per_head = latent.qk_nope_head_dim + latent.v_head_dim;
    for (int64_t head = 0; head < config.num_attention_heads; ++head) {
      for (int64_t d = 0; d < latent.v_head_dim; ++d) rows.push_back(head * per_head + latent.qk_nope_head_dim + d);
    }
    return rows;
  }
  const int64_t repeat = config.num_attention_heads / config.num_key_value_heads;
  const int64_t queries = config.num_attention_heads / config.qkv_groups;  // of a group of a fused linear
  const int64_t keys = config.num_key_value_heads / config.qkv_groups;
  for (int64_t head = 0; head < config.num_attention_heads; ++head) {
    const int64_t kv_head = head / repeat;
    int64_t first = kv_head * config.head_dim;
    if (slot == LinearSlot::kQkvProj) {
      first = (kv_head / keys * (queries + 2 * keys) + queries + keys + kv_head % keys) * config.head_dim;
    } else if (slot != LinearSlot::kVProj) {
      fail(ErrorKind::kInternal, "linear slot {} has no value rows", static_cast<int>(slot));
    }
    for (int64_t d = 0; d < config.head_dim; ++d) rows.push_back(first + d);
  }
  return rows;
}

}  // namespace salient::models
