#include "models/io/model_files.h"

#include <algorithm>
#include <array>

#include "common/json.h"
#include "models/io/adapter.h"

namespace salient::models {
namespace fs = std::filesystem;
namespace {

constexpr std::array<std::string_view, 12> kTokenizerFiles = {"tokenizer.json",
                                                              "tokenizer_config.json",
                                                              "special_tokens_map.json",
                                                              "added_tokens.json",
                                                              "vocab.json",
                                                              "merges.txt",
                                                              "tokenizer.model",
                                                              "tekken.json",
                                                              "chat_template.jinja",
                                                              "chat_template.json",
                                                              "additional_chat_templates",
                                                              "spiece.model"};
// What they say is of one model, not of others that are made from it.
constexpr std::array<std::string_view, 2> kOwnFiles = {"README.md", "training_metadata.json"};
constexpr std::array<std::string_view, 2> kAdapterFiles = {"adapter_config.json", "adapter_model.safetensors"};
constexpr std::string_view kTemplateFile = "chat_template.jinja";

template <size_t N>
bool is_among(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool has_template(const fs::path& tokenizer_config) {
  if (!fs::exists(tokenizer_config)) return false;
  const Json config = read_json_file(tokenizer_config);
  return config.is_object() && config.contains("chat_template") && !config["chat_template"].is_null();
}

// Whether a file of this name is the adapter's, not its base's; then it may also be that there is none.
bool is_of_adapter(const fs::path& adapter, std::string_view name) {
  if (is_among(kAdapterFiles, name) || is_among(kOwnFiles, name)) return true;
  if (name == "config.json" || name.find(".safetensors") != std::string_view::npos) return false;
  // "additional_chat_templates/rag.jinja" goes with its folder.
  const std::string_view first = name.substr(0, name.find('/'));
  if (is_among(kTokenizerFiles, first)) {
    if (fs::exists(adapter / "tokenizer.json")) return true;
    if (name == kTemplateFile && has_template(adapter / "tokenizer_config.json")) return true;
  }
  return fs::exists(adapter / name);
}

}  // namespace

std::vector<fs::path> model_folders(const fs::path& folder) {
  if (!is_adapter(folder)) return {folder};
  return {folder, adapter_base(folder)};
}

fs::path model_file(const fs::path& folder, std::string_view name) {
  if (!is_adapter(folder) || is_of_adapter(folder, name)) return folder / name;
  return adapter_base(folder) / name;
}

std::map<std::string, fs::path> list_model_files(const fs::path& folder) {
  const std::vector<fs::path> folders = model_folders(folder);
  const bool adapter = folders.size() > 1;
  std::map<std::string, fs::path> files;
  for (const auto& entry : fs::directory_iterator(folders.back())) {
    const std::string name = entry.path().filename().string();
    if (entry.is_regular_file() && !(adapter && is_of_adapter(folder, name))) files[name] = entry.path();
  }
  if (!adapter) return files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const bool known = is_among(kAdapterFiles, name) || is_among(kOwnFiles, name) || is_among(kTokenizerFiles, name) ||
                       name == "generation_config.json" || fs::exists(folders.back() / name);
    if (entry.is_regular_file() && known && is_of_adapter(folder, name)) files[name] = entry.path();
  }
  return files;
}

bool is_plain_file_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos;
}

}  // namespace salient::models
