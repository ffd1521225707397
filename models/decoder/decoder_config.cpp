#include "models/decoder/decoder_config.h"

#include <algorithm>
#include <array>
#include <limits>

#include "common/error.h"
#include "models/decoder/architecture.h"

namespace salient::models {
namespace {

// What transformers' configuration classes assume where config.json says nothing. 0 = derived from other keys.
struct Defaults {
  std::string_view model_type;
  int64_t num_key_value_heads;  // 0: num_attention_heads
  int64_t head_dim;             // 0: hidden_size / num_attention_heads
  int64_t max_position_embeddings;
  bool always_sliding;  // sliding_window holds for every layer, without use_sliding_window
};
constexpr Defaults kDefaults[] = {
    {"llama", 0, 0, 2048, false},
    {"mistral", 8, 0, 131072, true},
    {"qwen2", 32, 0, 32768, false},
    {"qwen3", 32, 128, 32768, false},
};
constexpr int64_t kDefaultSlidingWindow = 4096;
constexpr int64_t kDefaultMaxWindowLayers = 28;
constexpr int64_t kMaxSize = std::numeric_limits<int32_t>::max();  // of one dimension: products of two stay far from overflow

struct RopeRow {
  std::string_view name;
  RopeKind kind;
  bool supported;
};
constexpr RopeRow kRopeKinds[] = {
    {"default", RopeKind::kDefault, true},  {"linear", RopeKind::kLinear, true}, {"llama3", RopeKind::kLlama3, true},
    {"dynamic", RopeKind::kDynamic, false}, {"yarn", RopeKind::kYarn, false},    {"longrope", RopeKind::kLongRope, false},
};

struct DtypeRow {
  std::string_view name;
  at::ScalarType dtype;
};
constexpr DtypeRow kDtypes[] = {
    {"float32", at::kFloat}, {"bfloat16", at::kBFloat16}, {"float16", at::kHalf}, {"float64", at::kDouble}};

constexpr std::string_view kActivations[] = {"silu", "swish", "gelu", "gelu_new", "gelu_pytorch_tanh"};

// The value of a key; a missing key and null are the same, as in transformers' configuration files.
const Json* find(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

int64_t positive(int64_t value, std::string_view key, const std::string& where) {
  if (value < 1 || value > kMaxSize)
    fail(ErrorKind::kCorruption, "{}: key '{}': found {}, expected 1 to {}", where, key, value, kMaxSize);
  return value;
}

double positive(double value, std::string_view key, const std::string& where) {
  if (!(value > 0.0) || value > std::numeric_limits<float>::max()) {
    fail(ErrorKind::kCorruption, "{}: key '{}': found {}, expected a positive number", where, key, value);
  }
  return value;
}

int64_t require_size(const Json& config, const char* key, const std::string& where) {
  return positive(require<int64_t>(config, key, where), key, where);
}

int64_t size_or(const Json& config, const char* key, int64_t fallback, const std::string& where) {
  return positive(value_or<int64_t>(config, key, fallback, where), key, where);
}

// An id, a list of ids or null; negative ids (older files use -1) mean none.
std::vector<int64_t> read_ids(const Json& config, const char* key, const std::string& where) {
  const Json* value = find(config, key);
  if (value == nullptr) return {};
  const Json list = value->is_array() ? *value : Json::array({*value});
  std::vector<int64_t> ids;
  for (const Json& id : list) {
    if (!id.is_number_integer()) {
      fail(ErrorKind::kCorruption, "{}: key '{}': found {}, expected a token id or a list of them", where, key,
           dump_json(*value).substr(0, 60));
    }
    if (id.get<int64_t>() >= 0) ids.push_back(id.get<int64_t>());
  }
  return ids;
}

std::optional<int64_t> read_id(const Json& config, const char* key, const std::string& where) {
  const std::vector<int64_t> ids = read_ids(config, key, where);
  return ids.empty() ? std::nullopt : std::optional(ids.front());
}

RopeConfig parse_rope(const Json& config, int64_t max_position_embeddings, const std::string& where) {
  RopeConfig rope;
  rope.theta = value_or<double>(config, "rope_theta", rope.theta, where);
  // transformers lets an old-style rope_scaling win over rope_parameters.
  const Json* scaling = find(config, "rope_scaling");
  const char* key = "rope_scaling";
  if (scaling == nullptr || scaling->empty()) {
    scaling = find(config, "rope_parameters");
    key = "rope_parameters";
  }
  const std::string place = fmt::format("{}: {}", where, key);
  const Json parameters = scaling == nullptr ? Json::object() : *scaling;
  if (!parameters.is_object())
    fail(ErrorKind::kCorruption, "{}: found {}, expected an object or null", place, dump_json(parameters).substr(0, 60));
  for (const char* layer_type : {"full_attention", "sliding_attention"}) {
    if (parameters.contains(layer_type))
      fail(ErrorKind::kUnsupported, "{}: rotary embeddings that differ by layer type ('{}') are not supported", place, layer_type);
  }

  const std::string name =
      value_or<std::string>(parameters, "rope_type", value_or<std::string>(parameters, "type", "default", place), place);
  const auto row = std::find_if(std::begin(kRopeKinds), std::end(kRopeKinds), [&](const RopeRow& r) { return r.name == name; });
  if (row == std::end(kRopeKinds) || !row->supported) {
    fail(ErrorKind::kUnsupported, "{}: rope_type '{}' is not supported, only default, linear and llama3", place, name);
  }
  rope.kind = row->kind;
  rope.theta = positive(value_or<double>(parameters, "rope_theta", rope.theta, place), "rope_theta", place);

  const double rotary =
      value_or<double>(parameters, "partial_rotary_factor", value_or<double>(config, "partial_rotary_factor", 1.0, where), place);
  if (rotary != 1.0) fail(ErrorKind::kUnsupported, "{}: partial_rotary_factor {} is not supported, only 1", place, rotary);

  if (rope.kind != RopeKind::kDefault) rope.factor = positive(require<double>(parameters, "factor", place), "factor", place);
  if (rope.kind == RopeKind::kLlama3) {
    rope.low_freq_factor = positive(require<double>(parameters, "low_freq_factor", place), "low_freq_factor", place);
    rope.high_freq_factor = positive(require<double>(parameters, "high_freq_factor", place), "high_freq_factor", place);
    if (rope.high_freq_factor <= rope.low_freq_factor) {
      fail(ErrorKind::kCorruption, "{}: high_freq_factor {} must be larger than low_freq_factor {}", place, rope.high_freq_factor,
           rope.low_freq_factor);
    }
    const int64_t original = size_or(parameters, "original_max_position_embeddings", max_position_embeddings, place);
    rope.original_max_position_embeddings = size_or(config, "original_max_position_embeddings", original, where);
  }
  return rope;
}

// One entry a layer. Mistral: sliding_window for all. Qwen: only with use_sliding_window, for the layers that layer_types names or,
// without it, from max_window_layers on.
std::vector<int64_t> parse_sliding_windows(const Json& config, const DecoderConfig& decoder, const Defaults& defaults,
                                           const std::string& where) {
  std::vector<int64_t> windows(static_cast<size_t>(decoder.num_hidden_layers), 0);
  if (decoder.model_type == "llama") return windows;
  int64_t window = 0;
  const bool given_as_null = config.contains("sliding_window") && config["sliding_window"].is_null();
  if (!given_as_null) window = size_or(config, "sliding_window", kDefaultSlidingWindow, where);
  if (defaults.always_sliding) {
    std::fill(windows.begin(), windows.end(), window);
    return windows;
  }
  if (!value_or<bool>(config, "use_sliding_window", false, where)) window = 0;

  if (const Json* types = find(config, "layer_types")) {
    if (!types->is_array() || types->size() != windows.size()) {
      fail(ErrorKind::kCorruption, "{}: key 'layer_types' has {} entries, expected a list of {}, one a layer", where, types->size(),
           windows.size());
    }
    for (size_t layer = 0; layer < windows.size(); ++layer) {
      const Json& type = (*types)[layer];
      if (type == "full_attention") continue;
      if (type != "sliding_attention") {
        fail(ErrorKind::kUnsupported, "{}: layer_types[{}] is {}, supported are \"full_attention\" and \"sliding_attention\"",
             where, layer, dump_json(type).substr(0, 60));
      }
      if (window == 0) {
        fail(ErrorKind::kCorruption,
             "{}: layer_types[{}] is sliding_attention, but there is no sliding_window (or use_sliding_window is off)", where,
             layer);
      }
      windows[layer] = window;
    }
    return windows;
  }
  const int64_t first = std::max<int64_t>(0, value_or<int64_t>(config, "max_window_layers", kDefaultMaxWindowLayers, where));
  for (int64_t layer = first; layer < decoder.num_hidden_layers; ++layer) windows[static_cast<size_t>(layer)] = window;
  return windows;
}

at::ScalarType parse_dtype(const Json& config, const std::string& where) {
  const char* key = find(config, "dtype") != nullptr ? "dtype" : "torch_dtype";
  std::string name = value_or<std::string>(config, key, "float32", where);
  if (name.starts_with("torch.")) name = name.substr(6);
  for (const DtypeRow& row : kDtypes) {
    if (row.name == name) return row.dtype;
  }
  fail(ErrorKind::kUnsupported, "{}: key '{}': dtype '{}' is not supported, only float32, bfloat16, float16 and float64", where,
       key, name);
}

}  // namespace

std::string_view to_string(RopeKind kind) {
  for (const RopeRow& row : kRopeKinds) {
    if (row.kind == kind) return row.name;
  }
  return "unknown";
}

DecoderConfig parse_decoder_config(const Json& config, const std::string& where) {
  DecoderConfig result;
  result.model_type = require<std::string>(config, "model_type", where);
  with_context(where, [&] { find_architecture(result.model_type); });
  const auto* const defaults = std::find_if(std::begin(kDefaults), std::end(kDefaults),
                                            [&](const Defaults& d) { return d.model_type == result.model_type; });
  if (defaults == std::end(kDefaults))
    fail(ErrorKind::kInternal, "{}: no configuration defaults for model_type '{}'", where, result.model_type);

  result.vocab_size = require_size(config, "vocab_size", where);
  result.hidden_size = require_size(config, "hidden_size", where);
  result.intermediate_size = require_size(config, "intermediate_size", where);
  result.num_hidden_layers = require_size(config, "num_hidden_layers", where);
  if (result.num_hidden_layers > 100'000) {
    fail(ErrorKind::kCorruption, "{}: key 'num_hidden_layers': found {}, expected at most 100000", where, result.num_hidden_layers);
  }
  result.num_attention_heads = require_size(config, "num_attention_heads", where);
  const bool kv_given = config.contains("num_key_value_heads");
  const int64_t kv_default =
      kv_given || defaults->num_key_value_heads == 0 ? result.num_attention_heads : defaults->num_key_value_heads;
  result.num_key_value_heads = size_or(config, "num_key_value_heads", kv_default, where);
  if (result.num_attention_heads % result.num_key_value_heads != 0) {
    fail(ErrorKind::kCorruption, "{}: num_attention_heads {} is not a multiple of num_key_value_heads {}", where,
         result.num_attention_heads, result.num_key_value_heads);
  }
  if (find(config, "head_dim") == nullptr && defaults->head_dim == 0 && result.hidden_size % result.num_attention_heads != 0) {
    fail(ErrorKind::kCorruption, "{}: hidden_size {} is not a multiple of num_attention_heads {}, and there is no head_dim", where,
         result.hidden_size, result.num_attention_heads);
  }
  result.head_dim = size_or(
      config, "head_dim",
      defaults->head_dim != 0 ? defaults->head_dim : std::max<int64_t>(1, result.hidden_size / result.num_attention_heads), where);
  if (result.head_dim % 2 != 0)
    fail(ErrorKind::kCorruption, "{}: head_dim {} is odd, the rotary embedding needs pairs", where, result.head_dim);
  result.max_position_embeddings = size_or(config, "max_position_embeddings", defaults->max_position_embeddings, where);
  result.rms_norm_eps = value_or<double>(config, "rms_norm_eps", result.rms_norm_eps, where);
  if (!(result.rms_norm_eps >= 0.0 && result.rms_norm_eps < 1.0)) {
    fail(ErrorKind::kCorruption, "{}: key 'rms_norm_eps': found {}, expected a small positive number", where, result.rms_norm_eps);
  }
  result.rope = parse_rope(config, result.max_position_embeddings, where);

  result.hidden_act = value_or<std::string>(config, "hidden_act", result.hidden_act, where);
  if (std::find(std::begin(kActivations), std::end(kActivations), result.hidden_act) == std::end(kActivations)) {
    fail(ErrorKind::kUnsupported, "{}: hidden_act '{}' is not supported, only {}", where, result.hidden_act,
         fmt::join(kActivations, ", "));
  }
  result.tie_word_embeddings = value_or<bool>(config, "tie_word_embeddings", false, where);

  const bool attention_bias = value_or<bool>(config, "attention_bias", false, where);
  if (result.model_type == "llama" || result.model_type == "qwen3") {
    result.qkv_bias = attention_bias;
    result.o_bias = attention_bias;
  } else if (result.model_type == "qwen2") {
    result.qkv_bias = true;  // always, whatever config.json says
  }
  if (result.model_type == "llama") result.mlp_bias = value_or<bool>(config, "mlp_bias", false, where);
  result.qk_norm = !find_architecture(result.model_type).norms[static_cast<size_t>(NormSlot::kQuery)].empty();

  result.layer_sliding_window = parse_sliding_windows(config, result, *defaults, where);
  result.dtype = parse_dtype(config, where);
  result.bos_token_id = read_id(config, "bos_token_id", where);
  result.eos_token_ids = read_ids(config, "eos_token_id", where);
  result.pad_token_id = read_id(config, "pad_token_id", where);
  return result;
}

void add_generation_config(DecoderConfig& config, const Json& generation_config, const std::string& where) {
  if (!generation_config.is_object())
    fail(ErrorKind::kCorruption, "{}: expected a JSON object, found {}", where, generation_config.type_name());
  for (const int64_t id : read_ids(generation_config, "eos_token_id", where)) {
    if (std::find(config.eos_token_ids.begin(), config.eos_token_ids.end(), id) == config.eos_token_ids.end())
      config.eos_token_ids.push_back(id);
  }
  if (!config.bos_token_id) config.bos_token_id = read_id(generation_config, "bos_token_id", where);
  if (!config.pad_token_id) config.pad_token_id = read_id(generation_config, "pad_token_id", where);
}

DecoderConfig load_decoder_config(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "config.json";
  DecoderConfig config = parse_decoder_config(read_json_file(path), path.string());
  if (const std::filesystem::path generation = folder / "generation_config.json"; std::filesystem::exists(generation)) {
    add_generation_config(config, read_json_file(generation), generation.string());
  }
  return config;
}

}  // namespace salient::models
