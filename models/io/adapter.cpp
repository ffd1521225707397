#include "models/io/adapter.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <mutex>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include "common/error.h"
#include "common/text.h"
#include "models/gguf/gguf_summary.h"
#include "models/io/model_folder.h"
#include "models/text/regex.h"

namespace salient::models {
namespace fs = std::filesystem;
namespace {

constexpr const char* kConfigFile = "adapter_config.json";
constexpr const char* kWeightsFile = "adapter_model.safetensors";
constexpr std::string_view kPrefix = "base_model.model.";
constexpr std::string_view kBaseLayer = ".base_layer";
constexpr const char* kMergeHint =
    "merge it in Python and give the merged folder: PeftModel.from_pretrained(base, "
    "adapter).merge_and_unload().save_pretrained(folder)";

// Keys that are read here, or that matter to training alone.
constexpr std::array<std::string_view, 30> kKnownKeys = {"alpha_pattern",
                                                         "auto_mapping",
                                                         "base_model_name_or_path",
                                                         "bias",
                                                         "corda_config",
                                                         "ensure_weight_tying",
                                                         "eva_config",
                                                         "exclude_modules",
                                                         "fan_in_fan_out",
                                                         "inference_mode",
                                                         "init_lora_weights",
                                                         "layers_pattern",
                                                         "layers_to_transform",
                                                         "loftq_config",
                                                         "lora_alpha",
                                                         "lora_bias",
                                                         "lora_dropout",
                                                         "lora_ga_config",
                                                         "megatron_config",
                                                         "megatron_core",
                                                         "modules_to_save",
                                                         "peft_type",
                                                         "peft_version",
                                                         "qalora_group_size",
                                                         "r",
                                                         "rank_pattern",
                                                         "revision",
                                                         "target_modules",
                                                         "task_type",
                                                         "trainable_token_indices"};
constexpr std::array<std::string_view, 2> kKnownFlags = {"use_dora", "use_rslora"};

// Initializations that leave the base's weights as they are. The others take what they begin with out of them.
constexpr std::array<std::string_view, 3> kPlainInitializations = {"gaussian", "eva", "orthogonal"};

bool is_set(const Json& value) {
  if (value.is_null()) return false;
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number()) return value.get<double>() != 0;
  if (value.is_string()) return !value.get<std::string>().empty();
  return !value.empty();
}

[[noreturn]] void fail_unsupported(const std::string& where, const std::string& what) {
  throw Error(ErrorKind::kUnsupported, fmt::format("{}: {}", where, what)).with_hint(kMergeHint);
}

void check_config(const Json& config, const std::string& where) {
  if (!config.is_object()) fail(ErrorKind::kCorruption, "{}: expected a JSON object, found {}", where, config.type_name());
  const auto type = require<std::string>(config, "peft_type", where);
  if (type != "LORA")
    fail_unsupported(where, fmt::format("key 'peft_type': found \"{}\", only LORA is merged here", shorten(one_line(type), 40)));
  for (const auto& [key, value] : config.items()) {
    const auto is_key = [&key = key](std::string_view known) { return known == key; };
    if (std::any_of(kKnownKeys.begin(), kKnownKeys.end(), is_key) || std::any_of(kKnownFlags.begin(), kKnownFlags.end(), is_key))
      continue;
    if (is_set(value)) {
      fail_unsupported(where, fmt::format("key '{}' is {}, which changes the weights in a way that is not known here", key,
                                          shorten(one_line(dump_json(value)), 60)));
    }
  }
  const Json initialization = config.value("init_lora_weights", Json(true));
  if (!initialization.is_string()) return;
  const auto text = initialization.get<std::string>();
  if (std::find(kPlainInitializations.begin(), kPlainInitializations.end(), text) != kPlainInitializations.end()) return;
  throw Error(ErrorKind::kUnsupported,
              fmt::format("{}: key 'init_lora_weights': \"{}\" changed the base's weights before the training, and the "
                          "base as it is published is not what the adapter belongs to",
                          where, shorten(one_line(text), 40)))
      .with_hint(
          "save the adapter with path_initial_model_for_weight_conversion, which makes a plain one of it, or merge it in Python");
}

// The first pattern of `patterns` that fits the end of a module's name, as PEFT's get_pattern_key finds it.
std::optional<double> pattern_value(const OrderedJson& config, const char* key, const std::string& module,
                                    const std::string& where) {
  const auto patterns = config.find(key);
  if (patterns == config.end() || patterns->is_null()) return std::nullopt;
  if (!patterns->is_object())
    fail(ErrorKind::kCorruption, "{}: key '{}': found {}, expected an object", where, key, patterns->type_name());
  for (const auto& [pattern, value] : patterns->items()) {
    const Regex regex(fmt::format("\\A(?:.*\\.)?(?:{})\\z", pattern), fmt::format("{}: key '{}'", where, key));
    if (regex.find_all(module).empty()) continue;
    if (!value.is_number() || value.get<double>() <= 0)
      fail(ErrorKind::kCorruption, "{}: key '{}': '{}': expected a positive number, found {}", where, key, pattern, value.dump());
    return value.get<double>();
  }
  return std::nullopt;
}

struct Suffix {
  std::string_view text;
  std::string AdapterModule::*field;
};
constexpr Suffix kSuffixes[] = {
    {".lora_A.weight", &AdapterModule::a},
    {".lora_B.weight", &AdapterModule::b},
    {".lora_B.bias", &AdapterModule::bias},
    {".lora_embedding_A", &AdapterModule::a},
    {".lora_embedding_B", &AdapterModule::b},
    {".lora_magnitude_vector", &AdapterModule::magnitude},
    {".lora_magnitude_vector.weight", &AdapterModule::magnitude},
};
constexpr std::string_view kTokens = ".token_adapter.trainable_tokens_delta";

class AdapterReader {
 public:
  explicit AdapterReader(const fs::path& folder)
      : where_((folder / kConfigFile).string()),
        config_(read_json_file(folder / kConfigFile)),
        ordered_(read_ordered_json_file(folder / kConfigFile)) {
    check_config(config_, where_);
    adapter_.folder = folder;
    adapter_.base_model = value_or<std::string>(config_, "base_model_name_or_path", "", where_);
    adapter_.revision = value_or<std::string>(config_, "revision", "", where_);
    adapter_.dora = value_or<bool>(config_, "use_dora", false, where_);
    adapter_.ensure_weight_tying = value_or<bool>(config_, "ensure_weight_tying", false, where_);
    adapter_.rank = require<int64_t>(config_, "r", where_);
    adapter_.alpha = require<double>(config_, "lora_alpha", where_);
    fan_in_fan_out_ = value_or<bool>(config_, "fan_in_fan_out", false, where_);
    rslora_ = value_or<bool>(config_, "use_rslora", false, where_);
    if (adapter_.rank <= 0)
      fail(ErrorKind::kCorruption, "{}: key 'r': found {}, expected a positive number", where_, adapter_.rank);
    open_weights();
  }

  Adapter read() {
    for (const auto& [name, info] : adapter_.weights->tensors()) {
      if (!at::isFloatingType(info.dtype))
        fail_tensor(name, fmt::format("dtype is {}, expected a floating-point type", safetensors_dtype_name(info.dtype)));
      add(name);
    }
    if (modules_.empty() && adapter_.tokens.empty() && adapter_.replaced.empty())
      fail(ErrorKind::kCorruption, "{}: no tensors in it", adapter_.weights->path().string());
    for (auto& [module, parts] : modules_) adapter_.modules.push_back(complete(module, std::move(parts)));
    return std::move(adapter_);
  }

 private:
  void open_weights() {
    const fs::path path = adapter_.folder / kWeightsFile;
    if (!fs::exists(path)) {
      const bool pickled = fs::exists(adapter_.folder / "adapter_model.bin");
      throw Error(pickled ? ErrorKind::kUnsupported : ErrorKind::kNotFound,
                  fmt::format("{}: {} is there, but {} is not{}", adapter_.folder.string(), kConfigFile, kWeightsFile,
                              pickled ? ": the weights are in adapter_model.bin" : ""))
          .with_hint("save the adapter in PEFT with save_pretrained(folder, safe_serialization=True)");
    }
    adapter_.weights = std::make_shared<const SafetensorsFile>(path);
  }

  [[noreturn]] void fail_tensor(const std::string& name, const std::string& what) const {
    fail(ErrorKind::kCorruption, "{}: tensor '{}': {}", adapter_.weights->path().string(), name, what);
  }

  void add(const std::string& name) {
    std::string_view rest = name;
    if (!rest.starts_with(kPrefix))
      fail_tensor(name, fmt::format("expected a name that begins with \"{}\", as PEFT saves them", kPrefix));
    rest.remove_prefix(kPrefix.size());
    for (const Suffix& suffix : kSuffixes) {
      if (!rest.ends_with(suffix.text)) continue;
      const std::string module(rest.substr(0, rest.size() - suffix.text.size()));
      AdapterModule& parts = modules_[module];
      if (!(parts.*suffix.field).empty()) fail_tensor(name, fmt::format("'{}' says the same of the module", parts.*suffix.field));
      parts.*suffix.field = name;
      parts.transposed = parts.transposed || suffix.text.starts_with(".lora_embedding");
      return;
    }
    if (rest.ends_with(kTokens)) return add_tokens(name, std::string(rest.substr(0, rest.size() - kTokens.size())));
    if (rest.find("lora_") != std::string_view::npos || rest.find("token_adapter") != std::string_view::npos)
      fail_unsupported(adapter_.weights->path().string(), fmt::format("tensor '{}' is of a kind that is not known here", name));
    std::string replaced(rest);
    const size_t base_layer = replaced.find(kBaseLayer);
    if (base_layer == std::string::npos) {
      adapter_.replaced[replaced] = name;
    } else {
      adapter_.replaced_base[replaced.erase(base_layer, kBaseLayer.size())] = name;
    }
  }

  void add_tokens(const std::string& name, const std::string& module) {
    const Json indices = config_.value("trainable_token_indices", Json());
    AdapterTokens tokens{module, name, {}};
    const Json* list = indices.is_array() ? &indices : nullptr;
    if (indices.is_object()) {
      for (const auto& [key, value] : indices.items()) {
        if (module == key || module.ends_with("." + key)) list = &value;
      }
    }
    if (list == nullptr || !list->is_array())
      fail(ErrorKind::kCorruption, "{}: key 'trainable_token_indices' does not say which rows '{}' holds", where_, name);
    for (const Json& row : *list) {
      if (!row.is_number_integer() || row.get<int64_t>() < 0)
        fail(ErrorKind::kCorruption, "{}: key 'trainable_token_indices': found {}, expected token ids", where_, row.dump());
      tokens.rows.push_back(row.get<int64_t>());
    }
    const std::vector<int64_t>& shape = adapter_.weights->info(name).shape;
    if (shape.size() != 2 || shape[0] != static_cast<int64_t>(tokens.rows.size()))
      fail_tensor(name, fmt::format("shape is [{}], expected {} rows, as many as trainable_token_indices", fmt::join(shape, ", "),
                                    tokens.rows.size()));
    adapter_.tokens.push_back(std::move(tokens));
  }

  AdapterModule complete(const std::string& module, AdapterModule parts) const {
    const std::string file = adapter_.weights->path().string();
    if (parts.a.empty() || parts.b.empty())
      fail(ErrorKind::kCorruption, "{}: module '{}' has no {}, one of two matrices", file, module,
           parts.a.empty() ? "lora_A" : "lora_B");
    if (adapter_.dora == parts.magnitude.empty()) {
      fail(ErrorKind::kCorruption, "{}: module '{}' has {} lora_magnitude_vector, but use_dora of {} is {}", file, module,
           parts.magnitude.empty() ? "no" : "a", kConfigFile, adapter_.dora);
    }
    parts.module = module;
    parts.transposed = parts.transposed || fan_in_fan_out_;
    const std::vector<int64_t>& a = adapter_.weights->info(parts.a).shape;
    const std::vector<int64_t>& b = adapter_.weights->info(parts.b).shape;
    const double rank = pattern_value(ordered_, "rank_pattern", module, where_).value_or(static_cast<double>(adapter_.rank));
    const double alpha = pattern_value(ordered_, "alpha_pattern", module, where_).value_or(adapter_.alpha);
    if (a.size() != 2 || b.size() != 2 || a[0] != b[1]) {
      fail(ErrorKind::kCorruption, "{}: module '{}': lora_A is [{}] and lora_B [{}], expected [r, in] and [out, r]", file, module,
           fmt::join(a, ", "), fmt::join(b, ", "));
    }
    if (static_cast<double>(a[0]) != rank)
      fail(ErrorKind::kCorruption, "{}: module '{}' has rank {}, but {} says {}", file, module, a[0], kConfigFile, rank);
    parts.scale = alpha / (rslora_ ? std::sqrt(rank) : rank);
    return parts;
  }

  std::string where_;
  Json config_;
  OrderedJson ordered_;  // patterns: the first that fits counts
  Adapter adapter_;
  std::map<std::string, AdapterModule> modules_;
  bool fan_in_fan_out_ = false;
  bool rslora_ = false;
};

struct Bases {
  std::mutex mutex;
  std::map<std::string, std::string> of_folder;  // "": of all others
};

Bases& given_bases() {
  static Bases bases;
  return bases;
}

std::string key_of(const fs::path& folder) { return folder.empty() ? "" : fs::weakly_canonical(folder).string(); }

std::string given_base(const fs::path& folder) {
  Bases& bases = given_bases();
  const std::lock_guard lock(bases.mutex);
  const auto own = bases.of_folder.find(key_of(folder));
  const auto found = own != bases.of_folder.end() ? own : bases.of_folder.find("");
  return found == bases.of_folder.end() ? "" : found->second;
}

fs::path checked_base(const fs::path& adapter, const fs::path& base) {
  const auto refuse = [&](const std::string& what) {
    throw Error(ErrorKind::kUnsupported, fmt::format("{}: its base {} is {}", adapter.string(), base.string(), what))
        .with_hint("--adapter-base DIR (model.base of a config) names the float checkpoint that it was trained on");
  };
  if (is_adapter(base)) refuse("an adapter itself");
  if (find_gguf_model(base)) refuse("a GGUF file");
  return base;
}

fs::path resolve_base(const fs::path& folder, const std::string& base_model, const std::string& revision) {
  constexpr const char* kHint = "--adapter-base DIR (model.base of a config) names the model that the adapter was trained on";
  if (const std::string given = given_base(folder); !given.empty()) return checked_base(folder, resolve_model_folder(given));
  if (base_model.empty()) {
    throw Error(ErrorKind::kNotFound,
                fmt::format("{}: key 'base_model_name_or_path' names no base model", (folder / kConfigFile).string()))
        .with_hint(kHint);
  }
  std::error_code ignored;
  for (const fs::path& candidate : {fs::path(base_model), (folder / base_model).lexically_normal()}) {
    if (fs::is_directory(candidate, ignored)) return checked_base(folder, candidate);
  }
  try {
    return checked_base(folder, resolve_model_folder(revision.empty() ? base_model : base_model + "@" + revision));
  } catch (Error& error) {
    if (error.kind() != ErrorKind::kNotFound) throw;
    const std::string downloads = error.hint().starts_with("download") ? "; or " + error.hint() : "";
    throw Error(ErrorKind::kNotFound,
                fmt::format("{}: its base model is not there, neither from here nor from the adapter's folder: {}", folder.string(),
                            error.message()))
        .with_hint(kHint + downloads);
  }
}

Json read_config(const fs::path& folder) {
  Json config = read_json_file(folder / kConfigFile);
  if (!config.is_object())
    fail(ErrorKind::kCorruption, "{}: expected a JSON object, found {}", (folder / kConfigFile).string(), config.type_name());
  return config;
}

}  // namespace

bool is_adapter(const fs::path& folder) {
  std::error_code ignored;
  if (!fs::exists(folder / kConfigFile, ignored)) return false;
  return !fs::exists(folder / "model.safetensors", ignored) && !fs::exists(folder / "model.safetensors.index.json", ignored);
}

Adapter read_adapter(const fs::path& folder) { return AdapterReader(folder).read(); }

fs::path adapter_base(const Adapter& adapter) { return resolve_base(adapter.folder, adapter.base_model, adapter.revision); }

fs::path adapter_base(const fs::path& folder) {
  const Json config = read_config(folder);
  const std::string where = (folder / kConfigFile).string();
  return resolve_base(folder, value_or<std::string>(config, "base_model_name_or_path", "", where),
                      value_or<std::string>(config, "revision", "", where));
}

void set_adapter_base(const fs::path& folder, const std::string& base) {
  Bases& bases = given_bases();
  const std::lock_guard lock(bases.mutex);
  bases.of_folder[key_of(folder)] = base;
}

Json describe_adapter(const Adapter& adapter) {
  return {{"peft", adapter.dora ? "DoRA" : "LoRA"},
          {"rank", adapter.rank},
          {"alpha", adapter.alpha},
          {"modules", adapter.modules.size()},
          {"base_model", adapter.base_model}};
}

std::string adapter_method(const fs::path& folder) {
  return value_or<bool>(read_config(folder), "use_dora", false, (folder / kConfigFile).string()) ? "DoRA" : "LoRA";
}

std::string adapter_base_name(const fs::path& folder) {
  return value_or<std::string>(read_config(folder), "base_model_name_or_path", "", (folder / kConfigFile).string());
}

}  // namespace salient::models
