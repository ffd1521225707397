// Llama's tensor names, which most architectures start from.
#pragma once

#include "models/decoder/tensor_names.h"

namespace salient::models {

constexpr TensorNames llama_names() {
  TensorNames names;
  names.linears = names_of<LinearSlot, kLinearSlots>({{LinearSlot::kQProj, "self_attn.q_proj"},
                                                      {LinearSlot::kKProj, "self_attn.k_proj"},
                                                      {LinearSlot::kVProj, "self_attn.v_proj"},
                                                      {LinearSlot::kOProj, "self_attn.o_proj"},
                                                      {LinearSlot::kGateProj, "gate_proj"},
                                                      {LinearSlot::kUpProj, "up_proj"},
                                                      {LinearSlot::kDownProj, "down_proj"}});
  names[NormSlot::kAttentionInput] = "input_layernorm";
  names[NormSlot::kMlpInput] = "post_attention_layernorm";
  return names;
}

constexpr TensorNames with_head_norms(TensorNames names, std::string_view query = "self_attn.q_norm",
                                      std::string_view key = "self_attn.k_norm") {
  names[NormSlot::kQuery] = query;
  names[NormSlot::kKey] = key;
  return names;
}

// An MLP of two linears, act(up) and down.
constexpr TensorNames without_gate(TensorNames names) {
  names[LinearSlot::kGateProj] = "";
  return names;
}

constexpr TensorNames with_fused_gate_up(TensorNames names) {
  names[LinearSlot::kGateProj] = names[LinearSlot::kUpProj] = "";
  names[LinearSlot::kGateUpProj] = "gate_up_proj";
  return names;
}

}  // namespace salient::models
