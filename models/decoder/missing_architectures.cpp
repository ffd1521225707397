#include "models/decoder/missing_architectures.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <tuple>
#include <vector>

#include "common/text.h"
#include "models/decoder/wrappers.h"

namespace salient::models {
namespace {

constexpr size_t kMostSuggestions = 3;
constexpr size_t kMostLetters = 60;   // of a model type that somebody made up
constexpr size_t kFamilyLetters = 4;  // a common beginning of this length makes two model types relatives

constexpr std::string_view kStateSpace = "it has state-space layers, which are not built";
constexpr std::string_view kRecurrent = "it has recurrent layers of a kind that is not built";
constexpr std::string_view kEncoderDecoder = "it has an encoder and cross-attention, which are not built";
constexpr std::string_view kEncoder = "it is a bidirectional encoder, which has no next token to predict";
constexpr std::string_view kTransposed = "its linears are stored transposed (Conv1D), which is not built";
constexpr std::string_view kWrapper =
    "it joins image, audio or video encoders to a text model in a way that is not built; save its text model as a checkpoint of "
    "its own "
    "and quantize that";
constexpr std::string_view kNotDescribed = "nothing here describes its tensors and its forward pass";
constexpr std::string_view kRemoteCode = "its tensors are those of remote code, which nothing here describes";
constexpr std::string_view kOldFalcon =
    "it is Falcon with an older config.json; take the one that is published now (model_type 'falcon')";
constexpr std::string_view kSparseIndex = "it has attention to keys that an indexer selects, which is not built";

constexpr MissingArchitecture kMissing[] = {
    {"mamba", kStateSpace},
    {"mamba2", kStateSpace},
    {"falcon_mamba", kStateSpace},
    {"jamba", kStateSpace},
    {"bamba", kStateSpace},
    {"zamba", kStateSpace},
    {"zamba2", kStateSpace},
    {"falcon_h1", kStateSpace, "falcon"},
    {"nemotron_h", kStateSpace, "nemotron"},
    {"granitemoehybrid", kStateSpace, "granitemoe"},
    {"rwkv", kRecurrent},
    {"recurrent_gemma", kRecurrent, "gemma"},
    {"xlstm", kRecurrent},
    {"minimax", "it has lightning attention, which is not built", "minimax_m2"},
    {"kimi_linear", "it has Kimi's delta attention, which is not built", "deepseek_v3"},
    {"t5", kEncoderDecoder},
    {"mt5", kEncoderDecoder},
    {"umt5", kEncoderDecoder},
    {"bart", kEncoderDecoder},
    {"mbart", kEncoderDecoder},
    {"marian", kEncoderDecoder},
    {"pegasus", kEncoderDecoder},
    {"m2m_100", kEncoderDecoder},
    {"whisper", kEncoderDecoder},
    {"bert", kEncoder},
    {"roberta", kEncoder},
    {"xlm-roberta", kEncoder},
    {"distilbert", kEncoder},
    {"electra", kEncoder},
    {"deberta-v2", kEncoder},
    {"modernbert", kEncoder},
    {"gpt2", kTransposed, "gpt_bigcode"},
    {"openai-gpt", kTransposed, "gpt_bigcode"},
    {"gpt_neo", "its attention windows and the softmax without a scale are not built", "gpt_neox"},
    {"codegen", "its fused query, value and key come in another order, which is not built", "gptj"},
    {"persimmon", kNotDescribed, "phi"},
    {"dbrx", "its experts lie stacked in one matrix, which is not built", "mixtral"},
    {"deepseek_v32", kSparseIndex, "deepseek_v3"},
    {"glm_moe_dsa", kSparseIndex, "glm4_moe"},
    {"longcat_flash", "it has two attentions in a block and experts without weights, which are not built", "deepseek_v3"},
    {"gemma3n_text", "its alternating updates of several hidden states are not built", "gemma3_text"},
    {"bitnet", "its weights are ternary already"},
    {"chatglm", "its tensors are those of remote code; take the checkpoint that is converted to model_type 'glm'", "glm"},
    {"qwen", kRemoteCode, "qwen2"},
    {"baichuan", kRemoteCode, "llama"},
    {"internlm2", kRemoteCode, "internlm3"},
    {"RefinedWeb", kOldFalcon, "falcon"},
    {"RefinedWebModel", kOldFalcon, "falcon"},
    {"kimi_k2", "it is DeepSeek V3 under another name; set model_type to 'deepseek_v3'", "deepseek_v3"},
    {"llava_onevision", kWrapper, "qwen2"},
    {"qwen2_5_omni", kWrapper, "qwen2"},
    {"qwen3_omni_moe", kWrapper, "qwen3_moe"},
    {"paligemma", kWrapper, "gemma"},
    {"gemma3n", kWrapper, "gemma3_text"},
    {"gemma4", "its per-layer inputs, shared keys and values and head sizes that differ by layer are not built", "gemma3_text"},
    {"gemma4_text", "its per-layer inputs, shared keys and values and head sizes that differ by layer are not built",
     "gemma3_text"},
    {"mllama", kWrapper, "llama"},
    {"pixtral", kWrapper, "mistral"},
    {"internvl", kWrapper, "qwen2"},
    {"glm4v", kWrapper, "glm4"},
    {"glm4v_moe", kWrapper, "glm4_moe"},
    {"cohere2_vision", kWrapper, "cohere2"},
    {"aya_vision", kWrapper, "cohere2"},
    {"ernie4_5_vl_moe", kWrapper, "ernie4_5_moe"},
    {"phi4_multimodal", kWrapper, "phi3"},
    {"phi3_v", kWrapper, "phi3"},
    {"smolvlm", kWrapper, "llama"},
    {"idefics3", kWrapper, "llama"},
    {"qwen2_audio", kWrapper, "qwen2"},
    {"voxtral", kWrapper, "llama"},
    {"granite_speech", kWrapper, "granite"},
    {"lfm2_vl", kWrapper},
    {"lfm2", "its short convolutions between the layers are not built"},
    {"lfm2_moe", "its short convolutions between the layers are not built"},
};

size_t common_beginning(std::string_view a, std::string_view b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

bool is_supported(std::string_view model_type) {
  const std::span<const Architecture> rows = architectures();
  return std::any_of(rows.begin(), rows.end(), [&](const Architecture& row) { return row.model_type == model_type; });
}

// The best first; at least one.
std::vector<std::string> nearest_types(std::string_view model_type, std::string_view text_model, std::string_view hint,
                                       const std::vector<std::string>& known) {
  for (const std::string_view certain : {text_model, hint}) {
    if (is_supported(certain)) return {std::string(certain)};
  }
  if (const auto typo = nearest_match(model_type, known)) return {*typo};
  std::vector<std::tuple<bool, size_t, std::string>> ranked;  // of another family, edits, name
  for (const std::string& type : known)
    ranked.emplace_back(common_beginning(type, model_type) < kFamilyLetters, edit_distance(type, model_type), type);
  std::sort(ranked.begin(), ranked.end());
  std::vector<std::string> nearest;
  for (const auto& [other_family, edits, type] : ranked) {
    if (!nearest.empty() && (other_family || nearest.size() == kMostSuggestions)) break;
    nearest.push_back(type);
  }
  return nearest;
}

}  // namespace

std::span<const MissingArchitecture> missing_architectures() { return kMissing; }

std::string describe_missing(std::string_view given, std::string_view text_model) {
  const std::string model_type = shorten(one_line(given), kMostLetters);
  std::vector<std::string> known;
  for (const Architecture& row : architectures()) known.emplace_back(row.model_type);
  for (const Wrapper& row : wrappers()) known.emplace_back(row.model_type);
  std::sort(known.begin(), known.end());
  const auto* row = std::find_if(std::begin(kMissing), std::end(kMissing),
                                 [&](const MissingArchitecture& m) { return m.model_type == model_type; });
  const bool listed = row != std::end(kMissing);
  std::string what(listed ? row->what : text_model.empty() ? kNotDescribed : kWrapper);
  if (!text_model.empty()) what += fmt::format(" (model_type '{}')", shorten(one_line(text_model), kMostLetters));
  const std::vector<std::string> nearest = nearest_types(model_type, text_model, listed ? row->nearest : "", known);
  return fmt::format("model_type '{}' is not supported: {}. Nearest of those that are: {}", model_type, what,
                     list_choices(nearest));
}

}  // namespace salient::models
