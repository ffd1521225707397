#include "models/torchscript/slot_names.h"

namespace salient::models {
namespace {

constexpr auto kLinearNames = names_of<LinearSlot, kLinearSlots>({
    {LinearSlot::kQProj, "q_proj"},
    {LinearSlot::kKProj, "k_proj"},
    {LinearSlot::kVProj, "v_proj"},
    {LinearSlot::kQkvProj, "qkv_proj"},
    {LinearSlot::kQAProj, "q_a_proj"},
    {LinearSlot::kQBProj, "q_b_proj"},
    {LinearSlot::kKvAProj, "kv_a_proj"},
    {LinearSlot::kKvBProj, "kv_b_proj"},
    {LinearSlot::kInProjQkvz, "in_proj_qkvz"},
    {LinearSlot::kInProjBa, "in_proj_ba"},
    {LinearSlot::kInProjQkv, "in_proj_qkv"},
    {LinearSlot::kInProjZ, "in_proj_z"},
    {LinearSlot::kInProjB, "in_proj_b"},
    {LinearSlot::kInProjA, "in_proj_a"},
    {LinearSlot::kOutputGate, "gate"},
    {LinearSlot::kOProj, "o_proj"},
    {LinearSlot::kRouter, "router"},
    {LinearSlot::kSharedExpertGate, "shared_expert_gate"},
    {LinearSlot::kGateProj, "gate_proj"},
    {LinearSlot::kUpProj, "up_proj"},
    {LinearSlot::kGateUpProj, "gate_up_proj"},
    {LinearSlot::kDownProj, "down_proj"},
});

constexpr auto kNormNames = names_of<NormSlot, kNormSlots>({
    {NormSlot::kAttentionInput, "attention_input_norm"},
    {NormSlot::kQuery, "q_norm"},
    {NormSlot::kKey, "k_norm"},
    {NormSlot::kQueryLatent, "q_latent_norm"},
    {NormSlot::kKvLatent, "kv_latent_norm"},
    {NormSlot::kLinearAttention, "linear_attention_norm"},
    {NormSlot::kAttentionOutput, "attention_output_norm"},
    {NormSlot::kMlpInput, "mlp_input_norm"},
    {NormSlot::kMlpOutput, "mlp_output_norm"},
});

}  // namespace

std::string_view script_name(LinearSlot slot) { return kLinearNames[static_cast<size_t>(slot)]; }
std::string_view script_name(NormSlot slot) { return kNormNames[static_cast<size_t>(slot)]; }

}  // namespace salient::models
