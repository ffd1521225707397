#include "eval/language_model.h"

#include <c10/core/ScalarType.h>

#include <algorithm>
#include <array>

#include "common/error.h"
#include "models/gguf/gguf_summary.h"
#include "models/gguf/gguf_tokenizer_json.h"
#include "models/io/model_files.h"
#include "models/io/model_folder.h"
#include "models/torchscript/script_decoder.h"

namespace salient::eval {
namespace fs = std::filesystem;
namespace {

struct BosPolicyName {
  BosPolicy policy;
  std::string_view name;
};
constexpr std::array<BosPolicyName, 3> kBosPolicies = {
    {{BosPolicy::kAuto, "auto"}, {BosPolicy::kAlways, "always"}, {BosPolicy::kNever, "never"}}};

// A special token of tokenizer_config.json: a string, or {"content": ...}, or null.
std::string special_token(const Json& config, const char* key) {
  const auto found = config.find(key);
  if (found == config.end()) return {};
  if (found->is_string()) return found->get<std::string>();
  if (found->is_object() && found->contains("content") && (*found)["content"].is_string())
    return (*found)["content"].get<std::string>();
  return {};
}

Json read_object_if_there(const fs::path& path) {
  if (!fs::exists(path)) return Json::object();
  Json value = read_json_file(path);
  return value.is_object() ? value : Json::object();
}

int64_t positive_integer(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number_integer() && found->get<int64_t>() > 0 ? found->get<int64_t>() : 0;
}

int64_t find_max_length(const Json& config, const models::DecoderConfig& decoder, const Json& tokenizer_config) {
  constexpr std::array kKeys = {"n_positions", "max_position_embeddings", "n_ctx"};
  if (const auto text = config.find("text_config"); text != config.end() && text->is_object()) {
    for (const char* key : kKeys) {
      if (const int64_t length = positive_integer(*text, key)) return length;
    }
  }
  for (const char* key : kKeys) {
    if (const int64_t length = positive_integer(config, key)) return length;
  }
  // What the configuration class assumes where the file leaves it out. Classes without rotary embeddings have no such key.
  if (decoder.position == models::PositionKind::kRope) return decoder.max_position_embeddings;
  // The marker for "not known", 1e30, does not fit an integer and is left out here.
  if (const int64_t length = positive_integer(tokenizer_config, "model_max_length"); length > 0 && length < (int64_t{1} << 40))
    return length;
  return 2048;
}

void add_unique(std::vector<models::TokenId>& ids, models::TokenId id) {
  if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
}

}  // namespace

std::string_view to_string(BosPolicy policy) {
  for (const auto& row : kBosPolicies) {
    if (row.policy == policy) return row.name;
  }
  fail(ErrorKind::kInternal, "BosPolicy {} has no name", static_cast<int>(policy));
}

BosPolicy parse_bos_policy(std::string_view name) {
  for (const auto& row : kBosPolicies) {
    if (row.name == name) return row.policy;
  }
  fail(ErrorKind::kInvalidArgument, "BOS policy \"{}\": expected auto, always or never", name);
}

namespace {

struct Weights {
  models::Decoder decoder;
  Json config;
  uint64_t disk_bytes = 0;
};

Weights load_weights(const fs::path& path, const models::DecoderOptions& options, bool trust_torchscript) {
  if (!models::find_gguf_model(path) && models::holds_script_model(path)) {
    if (!trust_torchscript) {
      throw Error(ErrorKind::kUnsupported, fmt::format("{}: is TorchScript, a program that may do whatever you may, from the "
                                                       "moment it is loaded; it is loaded only when it is trusted",
                                                       path.string()))
          .with_hint("add --trust-torchscript where you made the file yourself, or trust whoever did");
    }
    models::ScriptDecoder script = models::load_script_decoder(path, options);
    return {std::move(script.decoder), std::move(script.config), script.disk_bytes};
  }
  const models::Checkpoint checkpoint(path);
  return {models::Decoder::load(checkpoint, options), checkpoint.config(), checkpoint.total_bytes()};
}

}  // namespace

LanguageModel load_language_model(const fs::path& path, const LanguageModelOptions& options) {
  Weights weights = load_weights(path, options.decoder, options.trust_torchscript);
  const auto gguf = models::find_gguf_model(path);
  const fs::path folder = gguf ? *gguf : fs::is_directory(path) ? path : fs::absolute(path).parent_path();
  Json tokenizer_config =
      gguf ? models::read_gguf_tokenizer_config(*gguf) : read_object_if_there(models::model_file(folder, "tokenizer_config.json"));
  const Json special_tokens = read_object_if_there(models::model_file(folder, "special_tokens_map.json"));
  LanguageModel model{.name = options.name,
                      .folder = folder,
                      .decoder = std::move(weights.decoder),
                      .tokenizer = models::Tokenizer::from_folder(folder),
                      .chat_template = std::nullopt,
                      .bos = options.bos,
                      .max_length = options.max_length,
                      .bos_text = special_token(tokenizer_config, "bos_token"),
                      .eos_text = special_token(tokenizer_config, "eos_token"),
                      .pad_text = special_token(tokenizer_config, "pad_token"),
                      .bos_id = std::nullopt,
                      .eos_id = std::nullopt,
                      .stop_ids = {},
                      .disk_bytes = weights.disk_bytes,
                      .quantization = weights.config.value("quantization_config", Json())};
  if (model.name.empty()) model.name = models::model_name(fs::is_directory(path) ? path : folder);
  if (models::ChatTemplate::exists_in(folder)) model.chat_template = models::ChatTemplate::from_folder(folder);
  if (model.max_length <= 0) model.max_length = find_max_length(weights.config, model.decoder.config(), tokenizer_config);

  if (model.bos_text.empty() && !tokenizer_config.contains("bos_token"))
    model.bos_text = special_token(special_tokens, "bos_token");
  if (model.eos_text.empty() && !tokenizer_config.contains("eos_token"))
    model.eos_text = special_token(special_tokens, "eos_token");
  if (!model.bos_text.empty()) model.bos_id = model.tokenizer.token_to_id(model.bos_text);
  if (!model.eos_text.empty()) model.eos_id = model.tokenizer.token_to_id(model.eos_text);

  const models::DecoderConfig& config = model.decoder.config();
  if (tokenizer_config.empty() && special_tokens.empty()) {  // a bare tokenizer.json: config.json is all there is
    if (config.bos_token_id) model.bos_id = static_cast<models::TokenId>(*config.bos_token_id);
    if (!config.eos_token_ids.empty()) model.eos_id = static_cast<models::TokenId>(config.eos_token_ids.front());
    if (model.bos_id) model.bos_text = model.tokenizer.id_to_token(*model.bos_id).value_or("");
    if (model.eos_id) model.eos_text = model.tokenizer.id_to_token(*model.eos_id).value_or("");
  }
  for (const int64_t id : config.eos_token_ids) add_unique(model.stop_ids, static_cast<models::TokenId>(id));
  if (model.eos_id) add_unique(model.stop_ids, *model.eos_id);
  if (model.bos == BosPolicy::kAlways && !model.bos_id) {
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("{}: BOS policy \"always\", but the tokenizer has no bos_token", model.name))
        .with_hint("use the policy \"auto\"");
  }
  return model;
}

std::optional<models::TokenId> prefix_token(const LanguageModel& model) { return model.bos_id ? model.bos_id : model.eos_id; }

std::vector<models::TokenId> encode_text(const LanguageModel& model, std::string_view text) {
  const std::string& prefix = model.bos_id ? model.bos_text : model.eos_text;
  const bool has_prefix = !prefix.empty() && text.starts_with(prefix);
  auto ids = model.tokenizer.encode(text, model.bos != BosPolicy::kNever && !has_prefix);
  if (model.bos == BosPolicy::kAlways && model.bos_id && (ids.empty() || ids.front() != *model.bos_id))
    ids.insert(ids.begin(), *model.bos_id);
  return ids;
}

bool adds_bos(const LanguageModel& model) {
  if (!model.bos_id) return false;
  const auto ids = encode_text(model, "a");
  return !ids.empty() && ids.front() == *model.bos_id;
}

Json describe(const LanguageModel& model) {
  const models::DecoderOptions& options = model.decoder.options();
  const bool gguf = model.quantization.is_object() && model.quantization.value("quant_method", "") == "gguf";
  Json result = {{"name", model.name},
                 {"model_type", model.decoder.config().model_type},
                 {"dtype", options.dtype == at::kFloat      ? "float32"
                           : options.dtype == at::kBFloat16 ? "bfloat16"
                                                            : c10::toString(options.dtype)},
                 {"device", options.device.str()},
                 {"quantized", gguf || model.decoder.is_quantized()},
                 {"bos_policy", std::string(to_string(model.bos))},
                 {"adds_bos", adds_bos(model)},
                 {"max_length", model.max_length}};
  if (options.activation_bits.value_or(16) != 16) result["activation_bits"] = *options.activation_bits;
  if (options.kv_bits.value_or(16) != 16) result["kv_bits"] = *options.kv_bits;
  if (gguf) {
    result["gguf"] = model.quantization;
    result["gguf"].erase("quant_method");
  }
  return result;
}

std::string runtime_text(const Json& description) {
  std::string text;
  if (description.contains("activation_bits")) text = fmt::format("a{}", description["activation_bits"].get<int>());
  if (description.contains("kv_bits")) text += fmt::format("{}kv{}", text.empty() ? "" : " ", description["kv_bits"].get<int>());
  return text;
}

}  // namespace salient::eval
