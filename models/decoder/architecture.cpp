#include "models/decoder/architecture.h"

#include "common/error.h"
#include "models/decoder/architectures/families.h"
#include "models/decoder/missing_architectures.h"

namespace salient::models {
namespace {

// clang-format off
constexpr Architecture kArchitectures[] = {
    {"llama", "Llama 2 and 3.x, Yi, SmolLM, TinyLlama", &kLlamaNames, {.max_position_embeddings = 2048}, configure_llama},
    {"mistral", "Mistral 7B, Nemo, Small (text)", &kLlamaNames, {.num_key_value_heads = 8, .max_position_embeddings = 131072}, configure_mistral},
    {"qwen2", "Qwen 1.5, 2, 2.5, QwQ", &kLlamaNames, {.num_key_value_heads = 32, .max_position_embeddings = 32768}, configure_qwen2},
    {"qwen3", "Qwen 3", &kQwen3Names, {.num_key_value_heads = 32, .head_dim = 128, .max_position_embeddings = 32768}, configure_qwen3},
    {"phi3", "Phi-3, 3.5 (text), 4", &kPhi3Names, {.max_position_embeddings = 4096, .norm_eps = 1e-5}, configure_phi3},
    {"gemma", "Gemma 1, CodeGemma", &kGemmaNames,
     {.num_key_value_heads = 16, .head_dim = 256, .max_position_embeddings = 8192, .hidden_act = "gelu_pytorch_tanh", .tie_word_embeddings = true}, configure_gemma},
    {"gemma2", "Gemma 2", &kGemma2Names,
     {.num_key_value_heads = 4, .head_dim = 256, .max_position_embeddings = 8192, .hidden_act = "gelu_pytorch_tanh", .tie_word_embeddings = true}, configure_gemma2},
    {"gemma3_text", "Gemma 3 (text)", &kGemma3Names,
     {.num_key_value_heads = 4, .head_dim = 256, .max_position_embeddings = 131072, .hidden_act = "gelu_pytorch_tanh",
      .tie_word_embeddings = true}, configure_gemma3, /*rotary=*/false},
    {"cohere", "Command R, Aya", &kCohereNames,
     {.max_position_embeddings = 8192, .norm_eps = 1e-5, .rope_theta = 500000.0, .rope_pairs = RopePairs::kNeighbours,
      .tie_word_embeddings = true}, configure_cohere},
    {"cohere2", "Command R7B, Command A", &kCohereNames,
     {.max_position_embeddings = 8192, .norm_eps = 1e-5, .rope_pairs = RopePairs::kNeighbours, .tie_word_embeddings = true}, configure_cohere2},
    {"olmo", "OLMo", &kOlmoNames, {}, configure_olmo},
    {"olmo2", "OLMo 2", &kPostNormNames, {.norm_eps = 1e-5}, configure_olmo2},
    {"olmo3", "OLMo 3", &kPostNormNames, {.norm_eps = 1e-5}, configure_olmo3, /*rotary=*/false},
    {"glm", "GLM-4 9B", &kGlmNames,
     {.num_key_value_heads = 2, .head_dim = 128, .max_position_embeddings = 131072, .norm_eps = 1.5625e-7, .partial_rotary_factor = 0.5,
      .rope_pairs = RopePairs::kNeighbours}, configure_glm},
    {"glm4", "GLM-4 0414, GLM-Z1", &kGlm4Names,
     {.num_key_value_heads = 2, .head_dim = 128, .max_position_embeddings = 131072, .norm_eps = 1.5625e-7, .partial_rotary_factor = 0.5,
      .rope_pairs = RopePairs::kNeighbours}, configure_glm},
    {"granite", "Granite 3 (dense)", &kLlamaNames, {}, configure_granite},
    {"starcoder2", "StarCoder2", &kStarcoder2Names,
     {.num_key_value_heads = 2, .max_position_embeddings = 4096, .norm_eps = 1e-5, .hidden_act = "gelu_pytorch_tanh", .tie_word_embeddings = true}, configure_starcoder2},
    {"stablelm", "StableLM 2, StableLM 3B, Stable Code", &kStableLmNames,
     {.num_key_value_heads = 32, .max_position_embeddings = 4096, .norm_eps = 1e-5, .partial_rotary_factor = 0.25}, configure_stablelm},
    {"nemotron", "Nemotron 3 and 4, Minitron", &kNemotronNames,
     {.max_position_embeddings = 4096, .norm_eps = 1e-5, .partial_rotary_factor = 0.5, .hidden_act = "relu2"}, configure_nemotron},
    {"smollm3", "SmolLM3", &kLlamaNames,
     {.num_key_value_heads = 4, .max_position_embeddings = 32768, .rope_theta = 2e6, .tie_word_embeddings = true}, configure_smollm3},
    {"exaone4", "EXAONE 4.0", &kPostNormNames, {.num_key_value_heads = 32, .max_position_embeddings = 2048, .norm_eps = 1e-5}, configure_exaone4},
    {"ernie4_5", "ERNIE 4.5 0.3B", &kLlamaNames,
     {.num_key_value_heads = 2, .head_dim = 128, .max_position_embeddings = 131072, .norm_eps = 1e-5, .rope_theta = 500000.0,
      .rope_pairs = RopePairs::kNeighbours, .tie_word_embeddings = true}, configure_ernie4_5},
    {"seed_oss", "Seed-OSS", &kLlamaNames, {.num_key_value_heads = 8, .head_dim = 128, .max_position_embeddings = 524288}, configure_seed_oss},
    {"ministral", "Ministral 8B 2410", &kLlamaNames, {.num_key_value_heads = 8, .max_position_embeddings = 131072}, configure_ministral},
    {"ministral3", "Ministral 3 (text)", &kLlamaNames,
     {.num_key_value_heads = 8, .head_dim = 128, .max_position_embeddings = 262144, .norm_eps = 1e-5}, configure_ministral3},
    {"helium", "Helium 1", &kLlamaNames,
     {.num_key_value_heads = 20, .head_dim = 128, .max_position_embeddings = 4096, .norm_eps = 1e-8, .rope_theta = 100000.0,
      .rope_pairs = RopePairs::kNeighbours}, configure_helium},
    {"apertus", "Apertus", &kApertusNames, {.max_position_embeddings = 65536, .norm_eps = 1e-5, .rope_theta = 12e6, .hidden_act = "xielu"}, configure_apertus},
    {"arcee", "AFM 4.5B", &kArceeNames, {.max_position_embeddings = 4096, .norm_eps = 1e-5, .hidden_act = "relu2"}, configure_arcee},
    {"cwm", "Code World Model", &kLlamaNames,
     {.num_key_value_heads = 8, .head_dim = 128, .max_position_embeddings = 131072, .norm_eps = 1e-5, .rope_theta = 1e6}, configure_cwm},
    {"hunyuan_v1_dense", "Hunyuan 0.5B to 7B", &kHunyuanNames, {.norm_eps = 1e-5}, configure_hunyuan},
    {"internlm3", "InternLM3", &kLlamaNames,
     {.num_key_value_heads = 2, .head_dim = 128, .max_position_embeddings = 32768, .norm_eps = 1e-5}, configure_internlm3},
    {"phi", "Phi 1, 1.5, 2", &kPhiNames, {.norm_eps = 1e-5, .partial_rotary_factor = 0.5, .hidden_act = "gelu_new"}, configure_phi},
    {"gpt_neox", "GPT-NeoX 20B, Pythia, Dolly 2, RedPajama", &kGptNeoxNames,
     {.norm_eps = 1e-5, .partial_rotary_factor = 0.25, .hidden_act = "gelu"}, configure_gpt_neox},
    {"gptj", "GPT-J 6B", &kGptjNames, {.norm_eps = 1e-5, .hidden_act = "gelu_new"}, configure_gptj, /*rotary=*/false},
    {"opt", "OPT but 350M", &kOptNames, {.norm_eps = 1e-5, .hidden_act = "relu", .tie_word_embeddings = true}, configure_opt, /*rotary=*/false},
    {"bloom", "BLOOM, BLOOMZ", &kBloomNames, {.norm_eps = 1e-5, .tie_word_embeddings = true}, configure_bloom, /*rotary=*/false},
    {"falcon", "Falcon 7B, 40B, 180B, RW, Falcon 2", &kFalconNames, {.norm_eps = 1e-5, .tie_word_embeddings = true}, configure_falcon},
    {"mpt", "MPT 7B, 30B", &kMptNames, {.norm_eps = 1e-5, .tie_word_embeddings = true}, configure_mpt, /*rotary=*/false},
    {"gpt_bigcode", "SantaCoder, StarCoder", &kGptBigcodeNames,
     {.max_position_embeddings = 1024, .norm_eps = 1e-5, .hidden_act = "gelu_pytorch_tanh", .tie_word_embeddings = true},
     configure_gpt_bigcode, /*rotary=*/false},
    {"mixtral", "Mixtral 8x7B, 8x22B", &kMixtralNames,
     {.num_key_value_heads = 8, .max_position_embeddings = 131072, .norm_eps = 1e-5, .rope_theta = 1e6}, configure_mixtral},
    {"phimoe", "Phi-3.5-MoE, Phi-mini-MoE", &kMixtralNames,
     {.num_key_value_heads = 8, .max_position_embeddings = 131072, .norm_eps = 1e-5, .rope_theta = 1e6}, configure_phimoe},
    {"minimax_m2", "MiniMax M2", &kMinimaxM2Names,
     {.num_key_value_heads = 8, .head_dim = 128, .max_position_embeddings = 196608, .rope_theta = 5e6}, configure_minimax_m2},
    {"qwen2_moe", "Qwen 1.5 and 2 mixtures", &kQwen2MoeNames, {.num_key_value_heads = 16, .max_position_embeddings = 32768}, configure_qwen2_moe},
    {"qwen3_moe", "Qwen 3 mixtures", &kQwen3MoeNames, {.num_key_value_heads = 4, .max_position_embeddings = 32768}, configure_qwen3_moe},
    {"olmoe", "OLMoE", &kQwen3MoeNames, {.max_position_embeddings = 4096, .norm_eps = 1e-5}, configure_olmoe},
    {"granitemoe", "Granite 3 mixtures", &kGraniteMoeNames, {}, configure_granitemoe},
    {"ernie4_5_moe", "ERNIE 4.5 mixtures (text)", &kErnieMoeNames,
     {.num_key_value_heads = 4, .max_position_embeddings = 131072, .norm_eps = 1e-5, .rope_theta = 500000.0, .rope_pairs = RopePairs::kNeighbours,
      .tie_word_embeddings = true}, configure_ernie4_5_moe},
    {"glm4_moe", "GLM 4.5, 4.6", &kGlm4MoeNames,
     {.num_key_value_heads = 8, .max_position_embeddings = 131072, .norm_eps = 1e-5, .partial_rotary_factor = 0.5}, configure_glm4_moe},
    {"solar_open", "Solar Open", &kSolarOpenNames,
     {.num_key_value_heads = 8, .head_dim = 128, .max_position_embeddings = 131072, .norm_eps = 1e-5, .rope_theta = 1e6}, configure_solar_open},
    {"dots1", "dots.llm1", &kGlm4MoeNames, {.num_key_value_heads = 32}, configure_dots1},
    {"exaone_moe", "K-EXAONE", &kExaoneMoeNames, {.num_key_value_heads = 32, .norm_eps = 1e-5}, configure_exaone_moe},
    {"gpt_oss", "gpt-oss (in float)", &kGptOssNames,
     {.num_key_value_heads = 8, .head_dim = 64, .max_position_embeddings = 131072, .norm_eps = 1e-5, .rope_theta = 150000.0}, configure_gpt_oss},
    {"hunyuan_v1_moe", "Hunyuan A13B", &kHunyuanMoeNames, {.norm_eps = 1e-5}, configure_hunyuan_v1_moe},
    {"llama4_text", "Llama 4 (text)", &kLlama4Names,
     {.num_key_value_heads = 8, .head_dim = 128, .max_position_embeddings = 131072, .norm_eps = 1e-5, .rope_theta = 500000.0,
      .rope_pairs = RopePairs::kNeighbours}, configure_llama4},
    {"deepseek_v2", "DeepSeek V2, V2.5, V2-Lite, Coder V2", &kDeepseekNames, {.head_dim = 64, .max_position_embeddings = 2048}, configure_deepseek_v2,
     /*rotary=*/false},
    {"deepseek_v3", "DeepSeek V3 and R1, Moonlight", &kDeepseekNames, {.head_dim = 64, .max_position_embeddings = 4096}, configure_deepseek_v3,
     /*rotary=*/false},
    {"glm4_moe_lite", "GLM 4.7 Flash", &kDeepseekNames, {.head_dim = 64, .max_position_embeddings = 202752, .norm_eps = 1e-5}, configure_glm4_moe_lite,
     /*rotary=*/false},
    {"qwen3_next", "Qwen3-Next", &kQwen3NextNames,
     {.num_key_value_heads = 2, .head_dim = 256, .max_position_embeddings = 32768, .partial_rotary_factor = 0.25}, configure_qwen3_next},
    {"qwen3_5_text", "Qwen 3.5 (text)", &kQwen3_5Names,
     {.num_key_value_heads = 4, .head_dim = 256, .max_position_embeddings = 32768, .partial_rotary_factor = 0.25}, configure_qwen3_5},
    {"qwen3_5_moe_text", "Qwen 3.5 mixtures (text)", &kQwen3_5MoeNames,
     {.num_key_value_heads = 2, .head_dim = 256, .max_position_embeddings = 32768, .partial_rotary_factor = 0.25}, configure_qwen3_5_moe},
    {"afmoe", "Trinity", &kAfmoeNames, {.head_dim = 128, .max_position_embeddings = 16384, .norm_eps = 1e-5}, configure_afmoe},
};
// clang-format on

}  // namespace

std::span<const Architecture> architectures() { return kArchitectures; }

const Architecture& find_architecture(std::string_view model_type, std::string_view text_model) {
  for (const Architecture& row : kArchitectures) {
    if (row.model_type == model_type) return row;
  }
  throw Error(ErrorKind::kUnsupported, describe_missing(model_type, text_model))
      .with_hint("salient architectures lists all that are");
}

}  // namespace salient::models
