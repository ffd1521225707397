// Tensor names and peculiarities of the architectures, by family; the table in models/decoder/architecture.cpp is made of them.
#pragma once

#include "models/decoder/architecture.h"

namespace salient::models {

// llama.cpp: Llama and its close relatives
extern const TensorNames kLlamaNames;
extern const TensorNames kQwen3Names;
void configure_llama(const ConfigReader& config, DecoderConfig& decoder);
void configure_mistral(const ConfigReader& config, DecoderConfig& decoder);
void configure_qwen2(const ConfigReader& config, DecoderConfig& decoder);
void configure_qwen3(const ConfigReader& config, DecoderConfig& decoder);

// classic.cpp: what the models before Llama share
void set_layer_norms(DecoderConfig& decoder, bool bias);
void set_plain_mlp(DecoderConfig& decoder);                         // after hidden_act is known
void set_position_kind(DecoderConfig& decoder, PositionKind kind);  // instead of rotary embeddings
void set_learned_positions(DecoderConfig& decoder,
                           int64_t offset);  // a table of max_position_embeddings rows after `offset` others

// gpt_neox.cpp, bloom.cpp, opt.cpp, gpt_bigcode.cpp, mpt.cpp, phi.cpp
extern const TensorNames kGptNeoxNames;
extern const TensorNames kGptjNames;
extern const TensorNames kBloomNames;
extern const TensorNames kFalconNames;
extern const TensorNames kOptNames;
extern const TensorNames kGptBigcodeNames;
extern const TensorNames kMptNames;
extern const TensorNames kPhiNames;
void configure_gpt_neox(const ConfigReader& config, DecoderConfig& decoder);
void configure_gptj(const ConfigReader& config, DecoderConfig& decoder);
void configure_bloom(const ConfigReader& config, DecoderConfig& decoder);
void configure_falcon(const ConfigReader& config, DecoderConfig& decoder);
void configure_opt(const ConfigReader& config, DecoderConfig& decoder);
void configure_gpt_bigcode(const ConfigReader& config, DecoderConfig& decoder);
void configure_mpt(const ConfigReader& config, DecoderConfig& decoder);
void configure_phi(const ConfigReader& config, DecoderConfig& decoder);

// phi3.cpp
extern const TensorNames kPhi3Names;
void configure_phi3(const ConfigReader& config, DecoderConfig& decoder);

// gemma.cpp
extern const TensorNames kGemmaNames;
extern const TensorNames kGemma2Names;
extern const TensorNames kGemma3Names;
void configure_gemma(const ConfigReader& config, DecoderConfig& decoder);
void configure_gemma2(const ConfigReader& config, DecoderConfig& decoder);
void configure_gemma3(const ConfigReader& config, DecoderConfig& decoder);

// cohere.cpp
extern const TensorNames kCohereNames;
void configure_cohere(const ConfigReader& config, DecoderConfig& decoder);
void configure_cohere2(const ConfigReader& config, DecoderConfig& decoder);

// olmo.cpp: OLMo, EXAONE 4
extern const TensorNames kOlmoNames;
extern const TensorNames kPostNormNames;  // OLMo 2 and 3, EXAONE 4
void configure_olmo(const ConfigReader& config, DecoderConfig& decoder);
void configure_olmo2(const ConfigReader& config, DecoderConfig& decoder);
void configure_olmo3(const ConfigReader& config, DecoderConfig& decoder);
void configure_exaone4(const ConfigReader& config, DecoderConfig& decoder);

// glm.cpp
extern const TensorNames kGlmNames;
extern const TensorNames kGlm4Names;
void configure_glm(const ConfigReader& config, DecoderConfig& decoder);

// granite.cpp
void configure_granite(const ConfigReader& config, DecoderConfig& decoder);
void set_granite_multipliers(const ConfigReader& config, DecoderConfig& decoder);

// layer_norm_decoders.cpp: StarCoder2, StableLM, Nemotron
extern const TensorNames kStarcoder2Names;
extern const TensorNames kStableLmNames;
extern const TensorNames kNemotronNames;
void configure_starcoder2(const ConfigReader& config, DecoderConfig& decoder);
void configure_stablelm(const ConfigReader& config, DecoderConfig& decoder);
void configure_nemotron(const ConfigReader& config, DecoderConfig& decoder);

// llama_relatives.cpp
extern const TensorNames kApertusNames;
extern const TensorNames kArceeNames;
extern const TensorNames kHunyuanNames;
void configure_smollm3(const ConfigReader& config, DecoderConfig& decoder);
void configure_ernie4_5(const ConfigReader& config, DecoderConfig& decoder);
void configure_seed_oss(const ConfigReader& config, DecoderConfig& decoder);
void configure_ministral(const ConfigReader& config, DecoderConfig& decoder);
void configure_ministral3(const ConfigReader& config, DecoderConfig& decoder);
void configure_helium(const ConfigReader& config, DecoderConfig& decoder);
void configure_apertus(const ConfigReader& config, DecoderConfig& decoder);
void configure_arcee(const ConfigReader& config, DecoderConfig& decoder);
void configure_cwm(const ConfigReader& config, DecoderConfig& decoder);
void configure_hunyuan(const ConfigReader& config, DecoderConfig& decoder);
void configure_internlm3(const ConfigReader& config, DecoderConfig& decoder);

// Mixtures of experts: mixtral.cpp, qwen_moe.cpp, granite_moe.cpp, ernie_moe.cpp, glm4_moe.cpp, gpt_oss.cpp, hunyuan_moe.cpp,
// afmoe.cpp, llama4.cpp
extern const TensorNames kMixtralNames;
extern const TensorNames kMinimaxM2Names;
extern const TensorNames kQwen2MoeNames;
extern const TensorNames kQwen3MoeNames;
extern const TensorNames kGraniteMoeNames;
extern const TensorNames kErnieMoeNames;
extern const TensorNames kGlm4MoeNames;
extern const TensorNames kSolarOpenNames;
extern const TensorNames kExaoneMoeNames;
extern const TensorNames kGptOssNames;
extern const TensorNames kHunyuanMoeNames;
extern const TensorNames kAfmoeNames;
extern const TensorNames kLlama4Names;
void configure_mixtral(const ConfigReader& config, DecoderConfig& decoder);
void configure_phimoe(const ConfigReader& config, DecoderConfig& decoder);
void configure_minimax_m2(const ConfigReader& config, DecoderConfig& decoder);
void configure_qwen2_moe(const ConfigReader& config, DecoderConfig& decoder);
void configure_qwen3_moe(const ConfigReader& config, DecoderConfig& decoder);
void configure_olmoe(const ConfigReader& config, DecoderConfig& decoder);
void configure_granitemoe(const ConfigReader& config, DecoderConfig& decoder);
void configure_ernie4_5_moe(const ConfigReader& config, DecoderConfig& decoder);
void configure_glm4_moe(const ConfigReader& config, DecoderConfig& decoder);
void configure_solar_open(const ConfigReader& config, DecoderConfig& decoder);
void configure_dots1(const ConfigReader& config, DecoderConfig& decoder);
void configure_exaone_moe(const ConfigReader& config, DecoderConfig& decoder);
void configure_gpt_oss(const ConfigReader& config, DecoderConfig& decoder);
void configure_hunyuan_v1_moe(const ConfigReader& config, DecoderConfig& decoder);
void configure_afmoe(const ConfigReader& config, DecoderConfig& decoder);
void configure_llama4(const ConfigReader& config, DecoderConfig& decoder);

// deepseek.cpp: multi-head latent attention
extern const TensorNames kDeepseekNames;
void configure_deepseek_v2(const ConfigReader& config, DecoderConfig& decoder);
void configure_deepseek_v3(const ConfigReader& config, DecoderConfig& decoder);
void configure_glm4_moe_lite(const ConfigReader& config, DecoderConfig& decoder);

// qwen3_next.cpp: gated delta rule in three of four layers
extern const TensorNames kQwen3NextNames;
extern const TensorNames kQwen3_5Names;
extern const TensorNames kQwen3_5MoeNames;
void configure_qwen3_next(const ConfigReader& config, DecoderConfig& decoder);
void configure_qwen3_5(const ConfigReader& config, DecoderConfig& decoder);
void configure_qwen3_5_moe(const ConfigReader& config, DecoderConfig& decoder);

}  // namespace salient::models
