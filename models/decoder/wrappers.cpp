#include "models/decoder/wrappers.h"

#include <algorithm>
#include <array>
#include <vector>

#include "common/error.h"
#include "common/text.h"
#include "models/decoder/config_reader.h"

namespace salient::models {
namespace {

constexpr TextSpelling kPlain = {"model.", "model.layers.", "model.embed_tokens.weight", "model.norm", "lm_head"};
constexpr TextSpelling kOuter = {"language_model.", "language_model.model.layers.", "language_model.model.embed_tokens.weight",
                                 "language_model.model.norm", "language_model.lm_head"};
constexpr TextSpelling kInner = {"model.language_model.", "model.language_model.layers.",
                                 "model.language_model.embed_tokens.weight", "model.language_model.norm", "lm_head"};
constexpr const TextSpelling* kSpellings[] = {&kOuter, &kInner, &kPlain};

// Qwen3-VL's mixtures: experts in one tensor, published as [experts, in, out], saved by transformers 5 as [experts, out, in].
void configure_qwen3_vl_moe(DecoderConfig& decoder) {
  decoder.names.fused_gate_up = "mlp.experts.gate_up_proj";
  decoder.names.fused_down = "mlp.experts.down_proj";
  decoder.moe.fused_transposed = true;
  decoder.moe.fused_either_way = true;
  decoder.moe.normalize = true;  // whatever norm_topk_prob says
}

constexpr TextModel kLlama = {
    "llama", "llama",
    R"({"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32})"};
constexpr TextModel kMistral = {
    "mistral", "mistral",
    R"({"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32})"};
constexpr TextModel kMinistral3 = {
    "ministral3", "ministral3",
    R"({"vocab_size": 131072, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 34, "num_attention_heads": 32})"};
constexpr TextModel kQwen2 = {
    "qwen2", "qwen2",
    R"({"vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32, "num_attention_heads": 32})"};
constexpr TextModel kGemma3 = {
    "gemma3_text", "gemma3_text",
    R"({"vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8})"};
// Rotary positions of these have three components, which are equal for text: what is left is the plain rotation.
constexpr std::string_view kQwen2VlDefaults =
    R"({"vocab_size": 152064, "hidden_size": 8192, "intermediate_size": 29568, "num_hidden_layers": 80, "num_attention_heads": 64,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 1e6, "max_window_layers": 80})";
constexpr TextModel kQwen2Vl = {"qwen2_vl_text", "qwen2", kQwen2VlDefaults};
constexpr TextModel kQwen2_5Vl = {"qwen2_5_vl_text", "qwen2", kQwen2VlDefaults};
constexpr TextModel kQwen3Vl = {
    "qwen3_vl_text", "qwen3",
    R"({"vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 32, "max_position_embeddings": 128000, "rope_theta": 5e5})"};
constexpr TextModel kQwen3VlMoe = {
    "qwen3_vl_moe_text", "qwen3_moe",
    R"({"vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24, "num_attention_heads": 16,
        "num_key_value_heads": 16, "max_position_embeddings": 128000, "rope_theta": 5e5, "moe_intermediate_size": 1408, "num_experts_per_tok": 4})",
    configure_qwen3_vl_moe};
constexpr TextModel kQwen3_5 = {
    "qwen3_5_text", "qwen3_5_text",
    R"({"vocab_size": 248320, "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 32, "num_attention_heads": 16})"};
constexpr TextModel kQwen3_5Moe = {
    "qwen3_5_moe_text", "qwen3_5_moe_text",
    R"({"vocab_size": 248320, "hidden_size": 2048, "num_hidden_layers": 40, "num_attention_heads": 16})"};
constexpr TextModel kLlama4 = {
    "llama4_text", "llama4_text",
    R"({"vocab_size": 202048, "hidden_size": 5120, "intermediate_size": 8192, "num_hidden_layers": 48, "num_attention_heads": 40})"};

constexpr const TextModel* kInGemma3[] = {&kGemma3};
constexpr const TextModel* kInMistral3[] = {&kMistral, &kMinistral3};
constexpr const TextModel* kInLlava[] = {&kLlama, &kMistral, &kQwen2};
constexpr const TextModel* kInQwen2Vl[] = {&kQwen2Vl};
constexpr const TextModel* kInQwen2_5Vl[] = {&kQwen2_5Vl};
constexpr const TextModel* kInQwen3Vl[] = {&kQwen3Vl};
constexpr const TextModel* kInQwen3VlMoe[] = {&kQwen3VlMoe};
constexpr const TextModel* kInQwen3_5[] = {&kQwen3_5};
constexpr const TextModel* kInQwen3_5Moe[] = {&kQwen3_5Moe};
constexpr const TextModel* kInLlama4[] = {&kLlama4};

constexpr Wrapper kWrappers[] = {
    {"gemma3", "Gemma 3 4B, 12B, 27B", kInGemma3, &kOuter, /*tied=*/true},
    {"mistral3", "Mistral Small 3.1 and 3.2, Ministral 3", kInMistral3, &kOuter, /*tied=*/true},
    {"llava", "LLaVA 1.5", kInLlava, &kOuter, /*tied=*/false, /*tied_by_text=*/true},
    {"llava_next", "LLaVA 1.6", kInLlava, &kOuter},
    {"qwen2_vl", "Qwen2-VL", kInQwen2Vl, &kPlain, /*tied=*/false, /*tied_by_text=*/true, /*flat=*/true},
    {"qwen2_5_vl", "Qwen2.5-VL", kInQwen2_5Vl, &kPlain, /*tied=*/false, /*tied_by_text=*/true, /*flat=*/true},
    {"qwen3_vl", "Qwen3-VL", kInQwen3Vl, &kInner},
    {"qwen3_vl_moe", "Qwen3-VL mixtures", kInQwen3VlMoe, &kInner},
    {"qwen3_5", "Qwen 3.5", kInQwen3_5, &kInner},
    {"qwen3_5_moe", "Qwen 3.5 mixtures", kInQwen3_5Moe, &kInner},
    {"llama4", "Llama 4 Scout, Maverick", kInLlama4, &kOuter},
};

// Outer keys that go before the nested ones.
constexpr std::string_view kOuterKeys[] = {"dtype", "torch_dtype", "bos_token_id", "eos_token_id", "pad_token_id"};

constexpr size_t kMostLetters = 60;  // of a model type that somebody made up

const TextModel& find_text_model(const Wrapper& wrapper, const std::string& model_type, const std::string& where) {
  if (model_type.empty()) return *wrapper.text_models.front();
  std::vector<std::string> known;
  for (const TextModel* text : wrapper.text_models) {
    if (text->model_type == model_type) return *text;
    known.emplace_back(text->model_type);
  }
  fail(ErrorKind::kUnsupported, "{}: model_type '{}' inside of a '{}' is not supported, only {}", where,
       shorten(one_line(model_type), kMostLetters), wrapper.model_type, list_choices(known));
}

bool is_tied(const Wrapper& wrapper, const ConfigReader& outer, const ConfigReader& text) {
  return outer.flag_or("tie_word_embeddings", wrapper.tied) || (wrapper.tied_by_text && text.flag_or("tie_word_embeddings", false));
}

}  // namespace

std::span<const Wrapper> wrappers() { return kWrappers; }

const Wrapper* find_wrapper(std::string_view model_type) {
  const auto* row = std::find_if(std::begin(kWrappers), std::end(kWrappers),
                                 [&](const Wrapper& wrapper) { return wrapper.model_type == model_type; });
  return row == std::end(kWrappers) ? nullptr : row;
}

TextConfig find_text_config(const Json& config, const std::string& where) {
  const ConfigReader outer(config, where);
  TextConfig found{config, where};
  found.wrapper = find_wrapper(outer.text_or("model_type", ""));
  if (found.wrapper == nullptr) return found;
  const Wrapper& wrapper = *found.wrapper;
  if (const Json* nested = outer.find(kTextKey); nested != nullptr) {
    found.config = *nested;
    found.where = fmt::format("{}: {}", where, kTextKey);
  } else if (wrapper.flat) {
    found.config.erase("model_type");
  } else {
    fail(ErrorKind::kCorruption, "{}: key '{}': found nothing, expected an object with the keys of the text model", where,
         kTextKey);
  }
  const ConfigReader nested(found.config, found.where);
  found.text = &find_text_model(wrapper, nested.text_or("model_type", ""), found.where);
  const bool tied = is_tied(wrapper, outer, nested);

  Json& text = found.config;
  text["model_type"] = found.text->architecture;
  text["tie_word_embeddings"] = tied;
  for (const std::string_view key : kOuterKeys) {
    if (const Json* value = outer.find(key); value != nullptr) text[std::string(key)] = *value;
  }
  // The outer spelling of the one must not lose to the nested spelling of the other.
  if (!outer.has("dtype") && outer.has("torch_dtype")) text.erase("dtype");
  const Json defaults = parse_json(found.text->defaults, found.text->model_type);
  for (const auto& [key, value] : defaults.items()) {
    if (!text.contains(key)) text[key] = value;
  }
  return found;
}

const TextSpelling* find_spelling(const std::function<bool(const std::string& tensor)>& contains) {
  const auto* row = std::find_if(std::begin(kSpellings), std::end(kSpellings),
                                 [&](const TextSpelling* s) { return contains(std::string(s->embedding)); });
  return row == std::end(kSpellings) ? nullptr : *row;
}

void set_spelling(DecoderConfig& config, const TextSpelling& spelling) {
  TextSpelling plain = kPlain;
  if (config.text_spelling != nullptr) plain = *config.text_spelling;
  TensorNames& names = config.names;
  const bool known = names.block_prefix == plain.block_prefix && names.embedding == plain.embedding &&
                     names.final_norm == plain.final_norm && names.lm_head == plain.lm_head && names.embedding_norm.empty() &&
                     names.position_embedding.empty();
  if (!known) {
    fail(ErrorKind::kInternal, "architecture '{}' cannot be inside of a multimodal model: its tensors are called {}",
         config.model_type, names.embedding);
  }
  names.block_prefix = spelling.block_prefix;
  names.embedding = spelling.embedding;
  names.final_norm = spelling.final_norm;
  names.lm_head = spelling.lm_head;
  config.text_spelling = &spelling;
}

bool is_other_part(const TextSpelling& spelling, std::string_view tensor) {
  const bool head = tensor.starts_with(spelling.lm_head) && tensor.substr(spelling.lm_head.size()).starts_with('.');
  return !tensor.starts_with(spelling.root) && !head && !tensor.starts_with("mtp.");  // the last predict further tokens
}

std::string_view part_of(std::string_view tensor) {
  if (tensor.starts_with("model.")) tensor.remove_prefix(std::string_view("model.").size());
  const size_t dot = tensor.find('.');
  return dot == std::string_view::npos ? std::string_view() : tensor.substr(0, dot);
}

std::string_view without_spelling(const TextSpelling& spelling, std::string_view module) {
  if (module == spelling.lm_head) return "lm_head";
  const std::string_view layers = "layers.";
  if (module.starts_with(spelling.block_prefix)) module.remove_prefix(spelling.block_prefix.size() - layers.size());
  return module;
}

}  // namespace salient::models
