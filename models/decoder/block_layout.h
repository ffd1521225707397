// The tensors of one block, in order: what loading, the scaling groups, quantization and the planned output all walk.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "models/decoder/decoder_config.h"

namespace salient::models {

// Which MLP of a block a linear belongs to: an expert's index, or one of these. Linears outside of MLPs have kDenseMlp.
inline constexpr int64_t kDenseMlp = -1;
inline constexpr int64_t kSharedExpert = -2;

struct LinearId {
  LinearSlot slot = LinearSlot::kQProj;
  int64_t mlp = kDenseMlp;
  auto operator<=>(const LinearId&) const = default;
};

// The distinct inputs of linears: what calibration keeps statistics of.
enum class InputSlot : uint8_t {
  kAttentionInput,  // also the MLP's where both share one norm
  kQueryLatent,
  kKvLatent,
  kAttentionOutput,  // what o_proj reads
  kMlpInput,         // also the router's and the experts'
  kMlpHidden,        // what a down_proj reads
};

struct InputId {
  InputSlot slot = InputSlot::kAttentionInput;
  int64_t mlp = kDenseMlp;  // of kMlpHidden
  auto operator<=>(const InputId&) const = default;
};

// One expert's part of a tensor with a leading dimension for the experts, as it lies in the source.
struct FusedPart {
  std::string tensor;  // "model.layers.0.mlp.experts.gate_up_proj", [experts, out, in], or [experts, in, out] when transposed
  std::string bias;    // [experts, out]; "" = none
  int64_t expert = 0;
  int64_t experts = 0;    // of the tensor
  int64_t row_begin = 0;  // rows row_begin, row_begin + row_step, ... of the expert's [rows, in] matrix are this linear's
  int64_t row_step = 1;
  int64_t rows = 0;  // of the whole matrix
  bool transposed = false;
};

struct LinearSpec {
  LinearId id;
  std::string name;  // module: "model.layers.3.self_attn.q_proj"
  int64_t out_features = 0;
  int64_t in_features = 0;
  bool bias = false;
  InputId input;
  bool quantize = true;  // false: routers and gates, which stay in float
  std::optional<FusedPart> fused;
};

struct NormSpec {
  NormSlot slot = NormSlot::kAttentionInput;
  std::vector<std::string> names;  // modules: one, or one for each head
  int64_t features = 0;
  int64_t heads = 0;  // > 0: the weight is [heads, features], in one tensor or in one for each head
  NormKind kind = NormKind::kRms;
  double eps = 1e-6;
  bool bias = false;
  bool affine = true;  // false: no parameters at all
};

// The norm after the last block, and one of the embeddings where `module` names it.
NormSpec hidden_norm(const DecoderConfig& config, std::string_view module, NormSlot slot = NormSlot::kMlpInput);

struct ParameterSpec {
  ParameterSlot slot = ParameterSlot::kSinks;
  std::string name;  // tensor
  std::vector<int64_t> shape;
  // May be absent. kActivationScales is from float checkpoints, and always there in packed ones.
  bool optional = false;
};

struct BlockLayout {
  int64_t block = 0;
  std::vector<LinearSpec> linears;  // without those of experts
  std::vector<NormSpec> norms;
  std::vector<ParameterSpec> parameters;
  int64_t experts = 0;
};

BlockLayout block_layout(const DecoderConfig& config, int64_t block);
// The linears of one expert of a block: gate_proj, up_proj, down_proj or what the architecture has in their place.
std::vector<LinearSpec> expert_layout(const DecoderConfig& config, int64_t block, int64_t expert);

// The module that a block's output projection is in, "model.layers.3.self_attn": what compressed-tensors names the scales of keys
// and values after.
std::string attention_module(const DecoderConfig& config, int64_t block);

// Output row of a linear that feeds each channel of attention's output, int64 [heads * value head_dim]: for v_proj, a fused
// qkv_proj or kv_b_proj. Under grouped-query attention several channels share a row.
std::vector<int64_t> value_rows(const DecoderConfig& config, LinearSlot slot);

}  // namespace salient::models
