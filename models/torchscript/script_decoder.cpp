#include "models/torchscript/script_decoder.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "common/error.h"
#include "models/torchscript/script_model.h"

namespace salient::models {
namespace fs = std::filesystem;
namespace {

Json read_config(const fs::path& folder, const ScriptModel& model) {
  if (fs::exists(folder / "config.json")) return read_json_file(folder / "config.json");
  const auto inside = model.extra_files().find("config.json");
  return inside == model.extra_files().end() ? Json::object() : parse_json(inside->second, model.path().string() + ": config.json");
}

bool is_quantized(const ScriptModel& model) {
  const auto inside = model.extra_files().find("salient.json");
  if (inside == model.extra_files().end()) return false;
  return parse_json(inside->second, model.path().string() + ": salient.json").value("quantized_linears", 0) > 0;
}

}  // namespace

bool holds_script_model(const fs::path& path) {
  if (!fs::is_directory(path)) return fs::exists(path);
  bool scripts = false;
  for (const auto& entry : fs::directory_iterator(path)) {
    const std::string extension = entry.path().extension().string();
    if (extension == ".safetensors" || extension == ".gguf") return false;
    scripts = scripts || extension == ".pt" || extension == ".pth" || extension == ".ts";
  }
  return scripts;
}

ScriptDecoder load_script_decoder(const fs::path& path, const DecoderOptions& options) {
  const auto model = std::make_shared<const ScriptModel>(ScriptModel::load(path, options.device));
  const fs::path folder = fs::absolute(model->path()).parent_path();
  Json json = read_config(folder, *model);
  const Json& text = json.contains("text_config") && json["text_config"].is_object() ? json["text_config"] : json;
  DecoderConfig config;
  const std::string type = json.value("model_type", std::string());
  config.model_type = type.empty() ? "torchscript" : fmt::format("torchscript ({})", type);
  config.vocab_size = model->vocab_size();
  config.max_position_embeddings = text.value("max_position_embeddings", text.value("n_positions", int64_t{2048}));
  config.dtype = model->dtype();
  add_generation_config(config, json, (folder / "config.json").string());
  if (const fs::path file = folder / "generation_config.json"; fs::exists(file))
    add_generation_config(config, read_json_file(file), file.string());
  DecoderOptions shown = options;
  shown.dtype = model->dtype();
  ExternalModel external{[model](const at::Tensor& ids, const at::Tensor& mask) { return model->logits(ids, mask); },
                         model->weight_bytes(), is_quantized(*model)};
  return {Decoder::of(std::move(external), std::move(config), shown), std::move(json), fs::file_size(model->path())};
}

}  // namespace salient::models
