#include "pipeline/artifact_files.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "common/error.h"
#include "common/file.h"
#include "common/hash.h"
#include "models/decoder/wrappers.h"
#include "models/gguf/gguf_summary.h"
#include "models/gguf/gguf_tokenizer_json.h"
#include "models/io/model_files.h"
#include "pipeline/weight_formats.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

constexpr std::array<std::string_view, 16> kSideFiles = {
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
    "tokenizer.model", "tekken.json", "chat_template.jinja", "chat_template.json", "generation_config.json",
    "training_metadata.json", "LICENSE",
    // of images and videos
    "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"};

// Readers before transformers 5 (AutoAWQ among them) know rope_theta and rope_scaling only, and take theta 10000 without a word
// when they find rope_parameters instead; newer ones read either. Nested by layer type there is no old form.
void add_old_style_rope(Json& config) {
  const auto parameters = config.find("rope_parameters");
  if (parameters == config.end() || !parameters->is_object()) return;
  for (const auto& [key, value] : parameters->items()) {
    if (value.is_object()) return;
  }
  if (!config.contains("rope_theta")) config["rope_theta"] = parameters->value("rope_theta", Json(10000.0));
  if (config.contains("rope_scaling")) return;
  const bool plain = parameters->value("rope_type", "default") == "default" && !parameters->contains("mrope_section");
  Json scaling = plain ? Json() : *parameters;
  if (!plain) scaling.erase("rope_theta");
  config["rope_scaling"] = scaling;
}

void rewrite_dtype(Json& config, const std::string& dtype, bool always) {
  if (dtype.empty()) return;
  for (const char* key : {"dtype", "torch_dtype"}) {
    if (config.contains(key)) config[key] = dtype;
  }
  if (always) config["torch_dtype"] = dtype;
}

// A multimodal model's text model; the other parts keep what is said of them.
Json* find_text_config(Json& config) {
  const auto text = config.find(models::kTextKey);
  if (text == config.end() || !text->is_object() || models::find_wrapper(config.value("model_type", "")) == nullptr) return nullptr;
  return &*text;
}

}  // namespace

void copy_side_files(const fs::path& from, const fs::path& to) {
  if (const auto file = models::find_gguf_model(from)) {
    const models::GgufSummary summary = *models::read_gguf_summary(*file);
    if (summary.tokenizer.empty()) return;
    const models::GgufTokenizerFiles files = models::read_gguf_tokenizer(*file);
    write_file(to / "tokenizer.json", dump_json(files.tokenizer, 2) + "\n");
    write_file(to / "tokenizer_config.json", dump_json(files.tokenizer_config, 2) + "\n");
    return;
  }
  for (const std::string_view name : kSideFiles) {
    const fs::path source = models::model_file(from, name);
    if (fs::exists(source)) write_file(to / name, read_text_file(source));
  }
}

bool is_side_file(const std::string& name) { return std::find(kSideFiles.begin(), kSideFiles.end(), name) != kSideFiles.end(); }

Json awq_config(Json config, const quant::QuantizationSpec& spec, const std::vector<std::string>& float_modules) {
  return artifact_config(std::move(config), quantization_config(WeightFormat::kAwqGemm, spec, {}, float_modules), "float16");
}

Json artifact_config(Json config, const Json& quantization_config, const std::string& dtype, bool untied_head) {
  rewrite_dtype(config, dtype, /*always=*/true);
  add_old_style_rope(config);
  Json* text = find_text_config(config);
  if (text != nullptr) {
    rewrite_dtype(*text, dtype, /*always=*/false);
    add_old_style_rope(*text);
  }
  if (untied_head) {
    config["tie_word_embeddings"] = false;
    if (text != nullptr) (*text)["tie_word_embeddings"] = false;
  }
  if (!quantization_config.is_null()) config["quantization_config"] = quantization_config;
  return config;
}

Json hash_files(const fs::path& folder, const std::function<bool(const std::string& name)>& counts,
                const std::function<std::string(const fs::path& file)>& hash) {
  Json hashes = Json::object();
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_regular_file() && counts(name)) hashes[name] = hash ? hash(entry.path()) : sha256_file(entry.path());
  }
  return hashes;
}

}  // namespace salient::pipeline
