#include "pipeline/batch/base_claims.h"

#include <fmt/format.h>

#include "common/error.h"
#include "common/file.h"
#include "models/gguf/gguf_summary.h"
#include "models/io/gguf_header.h"
#include "pipeline/card_header.h"
#include "pipeline/model_card.h"
#include "pipeline/work_folder.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

fs::path folder_of(const ListedModel& model) {
  return fs::is_directory(model.path) ? model.path : fs::absolute(model.path).parent_path();
}

void add(std::vector<BaseClaim>& claims, const std::string& source, const Json& value) {
  if (value.is_string() && !value.get<std::string>().empty()) claims.push_back({source, value.get<std::string>()});
  if (value.is_array() && value.size() == 1) add(claims, source, value.front());  // several: a merge, of which none is the base
}

void add_config(const fs::path& file, std::vector<BaseClaim>& claims) {
  if (!fs::exists(file)) return;
  const Json config = read_json_file(file);
  if (!config.is_object()) return;
  for (const char* key : {"base_model_name_or_path", "_name_or_path"})
    add(claims, fmt::format("config.json {}", key), config.value(key, Json()));
}

void add_card(const fs::path& card, std::vector<BaseClaim>& claims) {
  const Json header = read_card_header(card);
  // A fine-tuned model's card names what the training began with.
  if (header.is_object() && header.value("base_model_relation", Json("quantized")) == "quantized")
    add(claims, "base_model of the model card", header.value("base_model", Json()));
}

void add_gguf(const ListedModel& model, std::vector<BaseClaim>& claims) {
  const auto file = models::find_gguf_model(model.path);
  if (!file) return;
  const MappedFile mapped(*file);
  const models::GgufHeader header = models::parse_gguf_header(mapped.bytes(), file->string());
  for (const char* key : {"general.base_model.0.repo_url", "general.source.repo_url", "general.source.huggingface.repository",
                          "general.base_model.0.name", "general.name"}) {
    const std::string* text = models::find_gguf_value<std::string>(header, key);
    if (text == nullptr || text->empty()) continue;
    std::string name = *text;
    constexpr std::string_view kHub = "https://huggingface.co/";
    if (name.starts_with(kHub)) name.erase(0, kHub.size());
    claims.push_back({fmt::format("{} of the GGUF file", key), name});
  }
}

template <typename Read>
void unless_broken(Read read) {
  try {
    read();
  } catch (const Error&) {  // somebody else's file: nothing but a pairing depends on it
  }
}

}  // namespace

Json own_metadata(const ListedModel& model) {
  if (!fs::is_directory(model.path)) return {};
  const fs::path file = model.path / kMetadataFile;
  Json metadata;
  if (fs::exists(file)) unless_broken([&] { metadata = read_json_file(file); });
  return metadata.is_object() ? metadata : Json();
}

std::vector<BaseClaim> base_claims(const ListedModel& model) {
  std::vector<BaseClaim> claims;
  const fs::path folder = folder_of(model);
  if (fs::is_directory(model.path)) {  // beside several files these would be said of each
    unless_broken([&] { add_config(folder / "config.json", claims); });
    unless_broken([&] { add_card(folder / kModelCard, claims); });
  }
  if (model.kind == ModelKind::kGguf) unless_broken([&] { add_gguf(model, claims); });
  return claims;
}

}  // namespace salient::pipeline
