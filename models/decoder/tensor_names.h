// What the tensors of a decoder are called. A name that is empty says that the architecture (or this configuration of it) has no
// such tensor: loading, the forward pass, scaling groups and export all go by that.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <utility>

namespace salient::models {

// The linears of a block, in the order in which they are stored and reported.
enum class LinearSlot : uint8_t {
  kQProj,
  kKProj,
  kVProj,
  kQkvProj,     // query, key and value in one
  kQAProj,      // latent attention (DeepSeek): down to the query's latent
  kQBProj,      //   and up from it
  kKvAProj,     //   down to the keys' and values' latent, and the rotary key
  kKvBProj,     //   and up from it
  kInProjQkvz,  // linear attention (Qwen3-Next): query, key, value and output gate
  kInProjBa,    //   beta and decay
  kInProjQkv,   // the same, as separate linears (Qwen3.5)
  kInProjZ,
  kInProjB,
  kInProjA,
  kOutputGate,  // a gate on the attention output that is a linear of its own
  kOProj,       // of any attention
  kRouter,
  kSharedExpertGate,
  kGateProj,
  kUpProj,
  kGateUpProj,  // both in one
  kDownProj,
};
inline constexpr size_t kLinearSlots = 22;

enum class NormSlot : uint8_t {
  kAttentionInput,
  kQuery,
  kKey,
  kQueryLatent,
  kKvLatent,
  kLinearAttention,  // gated norm of linear attention's output
  kAttentionOutput,  // before the residual is added (Gemma 2, OLMo 2)
  kMlpInput,
  kMlpOutput,
};
inline constexpr size_t kNormSlots = 9;

// Tensors of a block that are neither linears nor norms. They are stored as the source has them.
enum class ParameterSlot : uint8_t {
  kSinks,             // an extra attention logit of each head
  kConvolution,       // linear attention: causal convolution of query, key and value
  kDecayLog,          // A_log
  kDecayBias,         // dt_bias
  kRouterCorrection,  // added to the router's scores for the choice of experts only
  kActivationScales,  // the activation's output is divided by these: AutoAWQ's ScaledActivation. Absent from float checkpoints
  kOutputScale,       // the block's output is multiplied by it
  kXieluAlphaP,       // of the activation xIELU
  kXieluAlphaN,
  kXieluBeta,
  kXieluEps,
};
inline constexpr size_t kParameterSlots = 11;

template <typename Slot, size_t N>
constexpr std::array<std::string_view, N> names_of(std::initializer_list<std::pair<Slot, std::string_view>> list) {
  std::array<std::string_view, N> names{};
  for (const auto& [slot, name] : list) names[static_cast<size_t>(slot)] = name;
  return names;
}

struct TensorNames {
  std::string_view block_prefix = "model.layers.";  // followed by the index and a dot
  std::string_view embedding = "model.embed_tokens.weight";
  std::string_view position_embedding = "";    // learned positions
  std::string_view embedding_norm = "";        // module
  std::string_view final_norm = "model.norm";  // module
  std::string_view lm_head = "lm_head";        // module; absent in a tied checkpoint
  // Module names inside the block. Those of MLP slots (kGateProj to kDownProj) are inside the MLP.
  std::array<std::string_view, kLinearSlots> linears{};
  std::array<std::string_view, kNormSlots> norms{};  // module names; "{}" stands for the head where each has a module of its own
  std::array<std::string_view, kParameterSlots> parameters{};  // whole tensor names
  std::string_view linear_attention_output = "";               // kOProj of blocks with linear attention: "linear_attn.out_proj"
  std::string_view mlp = "mlp.";
  std::string_view shared_expert = "";  // "mlp.shared_expert."
  std::string_view expert = "";         // "mlp.experts.{}."
  // Experts as tensors with a leading dimension for them; then `expert` only names the packed linears that are made of them.
  std::string_view fused_gate_up = "";  // tensor: "mlp.experts.gate_up_proj"
  std::string_view fused_down = "";     // tensor: "mlp.experts.down_proj"
  std::string_view fused_gate_up_bias = "";
  std::string_view fused_down_bias = "";

  constexpr std::string_view& operator[](LinearSlot slot) { return linears[static_cast<size_t>(slot)]; }
  constexpr std::string_view operator[](LinearSlot slot) const { return linears[static_cast<size_t>(slot)]; }
  constexpr std::string_view& operator[](NormSlot slot) { return norms[static_cast<size_t>(slot)]; }
  constexpr std::string_view operator[](NormSlot slot) const { return norms[static_cast<size_t>(slot)]; }
  constexpr std::string_view& operator[](ParameterSlot slot) { return parameters[static_cast<size_t>(slot)]; }
  constexpr std::string_view operator[](ParameterSlot slot) const { return parameters[static_cast<size_t>(slot)]; }
};

}  // namespace salient::models
