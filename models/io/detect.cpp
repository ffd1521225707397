#include "models/io/detect.h"

#include <c10/core/ScalarType.h>

#include <algorithm>
#include <functional>
#include <initializer_list>
#include <set>
#include <string_view>
#include <tuple>
#include <utility>

#include "common/error.h"
#include "common/file.h"
#include "common/json.h"
#include "common/text.h"
#include "models/decoder/wrappers.h"
#include "models/gguf/gguf_summary.h"
#include "models/io/adapter.h"
#include "models/io/detect_claims.h"
#include "models/io/gguf.h"
#include "models/io/model_file_probe.h"
#include "models/io/packed_layout.h"
#include "models/io/safetensors.h"
#include "models/io/weight_files.h"

namespace salient::models {
namespace fs = std::filesystem;
namespace {

constexpr const char* kCode = "SALIENT_DETECTION_FAILED";
constexpr int kNotQuantized = 16;

std::string display_name(const fs::path& folder) {
  fs::path path = fs::absolute(folder).lexically_normal();
  if (path.filename().empty()) path = path.parent_path();
  if (path.parent_path().filename() == "snapshots")
    path = path.parent_path().parent_path();  // a commit id in the Hugging Face cache
  return path.filename().string();
}

bool ends_with_any(std::string_view name, std::initializer_list<std::string_view> endings) {
  return std::any_of(endings.begin(), endings.end(), [name](std::string_view ending) { return name.ends_with(ending); });
}

bool is_companion(std::string_view name) {
  return ends_with_any(name, {".qzeros", ".scales", ".g_idx", ".scaled_zeros", ".weight_scale", ".weight_zero_point",
                              ".weight_shape", ".weight_g_idx"});
}

bool is_embedding(std::string_view name) {
  return name.find("embed") != std::string_view::npos || ends_with_any(name, {"wte.weight", "wpe.weight"});
}

// How a multimodal model's checkpoint spells the names of its text model; nullptr for other models.
const TextSpelling* text_spelling(const std::map<std::string, TensorInfo>& tensors, const Json& model_config) {
  if (!model_config.is_object() || !model_config.contains("model_type") || !model_config.at("model_type").is_string())
    return nullptr;
  if (find_wrapper(model_config.at("model_type").get<std::string>()) == nullptr) return nullptr;
  return find_spelling([&](const std::string& name) { return tensors.contains(name); });
}

// Input channels of a linear in compressed-tensors as its weight_shape has them, 0 where it has none that fit.
using StoredWidth = std::function<int64_t(const PackedLayout& linear)>;

StoredWidth stored_widths(const std::vector<SafetensorsFile>& files) {
  return [&files](const PackedLayout& linear) -> int64_t {
    const std::string name = linear.name + ".weight_shape";
    for (const SafetensorsFile& file : files) {
      const auto found = file.tensors().find(name);
      if (found == file.tensors().end() || found->second.shape != std::vector<int64_t>{2} ||
          !c10::isIntegralType(found->second.dtype, false))
        continue;
      const at::Tensor shape = file.view(name).to(at::kLong);
      const auto* size = shape.const_data_ptr<int64_t>();
      return size[0] == linear.out_features ? size[1] : 0;
    }
    return 0;
  };
}

// The bits of layers whose tensors' shapes leave them open: from their weight_shape; else from the layers that read the hidden
// state, whose width the config gives; else from what the config says about bits.
void resolve_open_bits(std::vector<PackedLayout>& linears, const Json& model_config, const StoredWidth& stored_width,
                       const std::set<int>& claimed_bits) {
  for (PackedLayout& linear : linears) {
    if (linear.bits == 0 && linear.words_per_row > 0) resolve_shape(linear, stored_width(linear), claimed_bits);
  }
  int64_t hidden = 0;
  for (const Json* config :
       {&model_config,
        model_config.is_object() && model_config.contains("text_config") ? &model_config.at("text_config") : nullptr}) {
    if (config != nullptr && config->is_object() && config->contains("hidden_size") &&
        config->at("hidden_size").is_number_integer()) {
      hidden = config->at("hidden_size").get<int64_t>();
    }
  }
  int bits = claimed_bits.size() == 1 ? *claimed_bits.begin() : 0;
  for (PackedLayout& linear : linears) {
    const bool reads_hidden =
        ends_with_any(linear.name, {".q_proj", ".k_proj", ".v_proj", ".qkv_proj", ".gate_proj", ".up_proj", ".gate_up_proj"});
    if (!reads_hidden || linear.bits != 0 || linear.words_per_row == 0) continue;
    resolve_shape(linear, hidden, claimed_bits);
    if (linear.bits != 0) bits = linear.bits;
  }
  for (PackedLayout& linear : linears) resolve_bits(linear, bits);
}

// Fills the counts of `model`; the claim of tensors, whose format is "float", "unknown" or a packed one.
Claim read_tensors(const std::map<std::string, TensorInfo>& tensors, const Json& model_config, const StoredWidth& stored_width,
                   const std::set<int>& claimed_bits, DetectedModel& model) {
  std::vector<PackedLayout> linears;
  int64_t unknown_weights = 0;
  int64_t other_linears = 0;  // of the vision part
  const TextSpelling* spelling = text_spelling(tensors, model_config);
  std::string unknown_example;
  bool int8_head = false;
  for (const auto& [name, info] : tensors) {
    model.dtype_bytes[safetensors_dtype_name(info.dtype)] += info.bytes();
    if (auto linear = read_packed_layout(name, tensors)) {
      linears.push_back(std::move(*linear));
      continue;
    }
    if (is_companion(name)) continue;
    model.parameters += info.bytes() / c10::elementSize(info.dtype);
    if (info.shape.size() != 2 || !name.ends_with(".weight")) continue;
    if (c10::isFloatingType(info.dtype)) {
      const bool other = spelling != nullptr && is_other_part(*spelling, name);
      (other ? other_linears : model.unquantized_linears) += is_embedding(name) ? 0 : 1;
      continue;
    }
    const auto scale = tensors.find(name + "_scale");
    if (info.dtype == at::kChar && scale != tensors.end()) {
      PackedLayout linear;
      linear.name = name.substr(0, name.size() - std::string_view(".weight").size());
      linear.format = "compressed-tensors";
      linear.bits = 8;
      linear.out_features = info.shape[0];
      linear.in_features = info.shape[1];
      linear.groups = scale->second.shape.size() == 2 ? scale->second.shape[1] : 0;
      if (linear.groups > 0 && linear.in_features % linear.groups == 0) linear.group_size = linear.in_features / linear.groups;
      linear.zero_point = tensors.contains(name + "_zero_point");
      linear.shapes = fmt::format("weight I8 [{}]", fmt::join(info.shape, ", "));
      linears.push_back(linear);
      model.parameters -= static_cast<uint64_t>(linear.in_features * linear.out_features);  // counted with the packed ones
    } else {
      ++unknown_weights;
      unknown_example = fmt::format("{} {} [{}]", name, safetensors_dtype_name(info.dtype), fmt::join(info.shape, ", "));
    }
  }
  resolve_open_bits(linears, model_config, stored_width, claimed_bits);
  model.quantized_linears = static_cast<int64_t>(linears.size());

  const std::string others = other_linears == 0 ? "" : fmt::format(" and {} in the vision part", other_linears);
  Claim claim;
  claim.source = "tensor names and shapes";
  if (linears.empty()) {
    claim.format = unknown_weights > 0 ? "unknown" : "float";
    claim.detail = unknown_weights > 0 ? fmt::format("{} weights of a kind not known here, as {}", unknown_weights, unknown_example)
                                       : fmt::format("{} tensors, {} linear weights{}, none packed", tensors.size(),
                                                     model.unquantized_linears, others);
    return claim;
  }

  using Kind = std::tuple<std::string, int, int64_t>;
  std::map<Kind, int64_t> kinds;
  std::set<int64_t> widths;
  bool one_group = true;
  const auto is_head = [](const PackedLayout& linear) {
    return linear.bits == 8 && (linear.name == "lm_head" || linear.name.ends_with(".lm_head"));
  };
  for (const PackedLayout& linear : linears) {
    int8_head |= is_head(linear);
    model.parameters += static_cast<uint64_t>(std::max<int64_t>(linear.in_features, 0) * linear.out_features);
  }
  if (int8_head && linears.size() > 1) std::erase_if(linears, is_head);  // said apart
  for (const PackedLayout& linear : linears) {
    one_group = one_group && linear.groups == 1;
    widths.insert(linear.in_features);
  }
  const bool per_channel = one_group && (widths.size() > 1 || widths.contains(0));
  for (const PackedLayout& linear : linears) ++kinds[{linear.format, linear.bits, per_channel ? -1 : linear.group_size}];
  const auto most = std::max_element(kinds.begin(), kinds.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  const auto& [format, bits, group_size] = most->first;
  const auto example = std::find_if(linears.begin(), linears.end(), [&](const PackedLayout& linear) {
    return linear.format == format && linear.bits == bits && (per_channel || linear.group_size == group_size);
  });
  claim.format = format;
  if (bits != 0) claim.bits = bits;
  if (group_size != 0) claim.group_size = group_size;
  claim.one_group_a_row = one_group;
  // In the other formats zero points are always stored, all of them the middle code when the quantization is symmetric.
  if (format == "compressed-tensors" || format == "awq-marlin") claim.zero_point = example->zero_point;
  claim.head = int8_head ? quant::HeadDtype::kInt8 : quant::HeadDtype::kFp16;
  claim.detail = fmt::format("{} packed linears{}, {} float ones{}; {}: {}", linears.size(), int8_head ? " and lm_head" : "",
                             model.unquantized_linears, others, example->name, example->shapes);
  if (kinds.size() > 1) {
    std::vector<std::string> texts;
    for (const auto& [kind, count] : kinds) {
      const auto& [kind_format, kind_bits, kind_group] = kind;
      texts.push_back(fmt::format("{} of {} {} bits group {}", count, kind_format, kind_bits, kind_group));
      claim.all_bits.insert(kind_bits);
    }
    claim.detail += fmt::format("; mixed: {}", fmt::join(texts, ", "));
  }
  return claim;
}

// What the heads of GGUF files say, added to `model`; the claim of their tensors.
Claim read_gguf(const std::vector<fs::path>& files, DetectedModel& model) {
  Claim claim;
  claim.source = "GGUF header of " + files.front().filename().string();
  claim.format = "gguf";
  bool floats = true;
  for (const fs::path& path : files) {
    const auto summary = read_gguf_summary(path);
    if (!summary) fail(ErrorKind::kCorruption, "{}: does not begin with \"GGUF\"", path.string());
    model.disk_bytes += fs::file_size(path);
    model.parameters += summary->parameters;
    model.quantized_linears += summary->quantized_linears;
    model.unquantized_linears += summary->float_linears;
    for (const auto& [type, total] : summary->types) model.dtype_bytes[type] += total.bytes;
    floats = floats && summary->is_float();
    claim.version = fmt::format("GGUF {}", summary->version);
    const std::string name = path.filename().string();
    const auto note = [&](std::string_view key, const std::string& finding) {
      model.evidence.push_back({fmt::format("{} {}", name, key), finding});
    };
    if (summary->kind != "model")
      note("general.type",
           fmt::format("{}: {}", summary->kind, summary->kind == "imatrix" ? "an importance matrix, no model" : "no model"));
    note("architecture", summary->architecture.empty() ? "not said" : summary->architecture);
    note("weights", describe_weights(*summary));
    if (summary->split_count > 1) note("split", fmt::format("one of {} files", summary->split_count));
    note("tokenizer", summary->tokenizer.empty() ? "none" : summary->tokenizer);
    note("importance matrix", summary->importance.empty() ? "none is named" : summary->importance);
    try {
      const GgufFile whole(path);
    } catch (const Error& error) {  // data that are cut off, types that are not known: what the file is can be said all the same
      model.contradictions.push_back(error.message());
    }
  }
  if (floats) claim.method = "none";  // else the blocks do not say how they were chosen
  return claim;
}

// --- Judgement

std::string value_text(const std::string& value) { return value; }
std::string value_text(const std::optional<int>& value) { return fmt::format("{}", *value); }
std::string value_text(const std::optional<int64_t>& value) { return fmt::format("{}", *value); }
std::string value_text(const std::optional<bool>& value) { return *value ? "true" : "false"; }
std::string value_text(const std::optional<quant::HeadDtype>& value) { return std::string(to_string(*value)); }

bool says_nothing(const std::string& value) { return value.empty(); }
template <typename T>
bool says_nothing(const std::optional<T>& value) {
  return !value.has_value();
}

// The field as the strongest claim has it; weaker claims that differ are reported.
template <typename T>
T decide(const std::vector<Claim>& strongest_first, T Claim::*field, std::string_view name,
         std::vector<std::string>& contradictions) {
  const Claim* decided = nullptr;
  for (const Claim& claim : strongest_first) {
    if (says_nothing(claim.*field)) continue;
    if (decided == nullptr) {
      decided = &claim;
    } else if (claim.*field != decided->*field) {
      contradictions.push_back(fmt::format("{}: {} say{} {}{}, {} says {}", name, decided->source,
                                           decided->source.ends_with('s') ? "" : "s", value_text(decided->*field),
                                           decided->detail.empty() ? "" : " (" + decided->detail + ")", claim.source,
                                           value_text(claim.*field)));
    }
  }
  return decided == nullptr ? T{} : decided->*field;
}

// Strongest first. Our metadata is more exact than quant_method, which has to name a reader: rtn codes in AutoAWQ's layout say
// "awq" there.
std::vector<Claim> method_claims(const std::vector<Claim>& claims, const Claim& weights, const Claim& name) {
  std::vector<Claim> result = claims;
  std::stable_partition(result.begin(), result.end(),
                        [](const Claim& claim) { return claim.source == "quantization_metadata.json"; });
  if (!result.empty() && result.front().source == "quantization_metadata.json" && !result.front().method.empty() &&
      result.front().method != "awq" && result.front().method != "gptq") {
    result.resize(1);
  }
  // Floats do not tell what smoothed them: "none" only where nothing says more.
  const bool told = std::any_of(result.begin(), result.end(), [](const Claim& claim) { return !claim.method.empty(); });
  if (!told || weights.method != "none") result.push_back(weights);
  result.push_back(name);
  return result;
}

// Tensors of several kinds: a name or metadata of one setting says what was asked for on the whole, and no contradiction is in
// that. What config.json says of one setting must be one of those that are there.
void drop_single_settings(std::vector<Claim>& strongest_first) {
  const Claim& weights = strongest_first.front();
  for (Claim& claim : strongest_first) {
    if (&claim == &weights || !claim.bits) continue;
    if (claim.source.starts_with("config.json") && !weights.all_bits.contains(*claim.bits)) continue;
    claim.bits.reset();
    claim.group_size.reset();
    claim.zero_point.reset();
  }
}

[[noreturn]] void fail_detection(const fs::path& folder, const std::string& what, std::string_view hint) {
  throw Error(ErrorKind::kUnsupported, fmt::format("{}: {}", folder.string(), what)).with_code(kCode).with_hint(hint);
}

// What its base is, as it is read, and by which evidence it is an adapter.
DetectedModel detect_adapter(const fs::path& folder) {
  const Adapter adapter = read_adapter(folder);
  const fs::path base = adapter_base(adapter);
  DetectedModel model = with_context(folder.string(), [&] { return detect_model(base); });
  model.disk_bytes += fs::file_size(adapter.weights->path());
  const std::string finding =
      fmt::format("{} adapter of rank {} and alpha {} for {} modules, merged into {} when it is read",
                  adapter.dora ? "DoRA" : "LoRA", adapter.rank, adapter.alpha, adapter.modules.size(), base.string());
  model.evidence.insert(model.evidence.begin(), {"adapter_config.json", finding});
  return model;
}

}  // namespace

DetectedModel detect_model(const fs::path& folder) {
  if (!fs::exists(folder)) fail(ErrorKind::kNotFound, "{}: no such folder", folder.string());
  if (is_adapter(folder)) return detect_adapter(folder);
  DetectedModel model;
  std::vector<Claim> claims;  // of files, strongest first
  Json config;
  if (const fs::path path = folder / "config.json"; fs::exists(path)) {
    config = read_json_file(path);
    if (!config.is_object())
      fail(ErrorKind::kCorruption, "{}: expected an object, found a JSON {}", path.string(), config.type_name());
    for (const char* key : {"quantization_config", "compression_config"}) {
      const Json* owner = &config;
      if (!config.contains(key) && config.contains("text_config") && config.at("text_config").is_object())
        owner = &config.at("text_config");
      if (!owner->contains(key) || owner->at(key).is_null()) continue;
      claims.push_back(
          read_quantization_config(owner->at(key), fmt::format("config.json {}", key), fmt::format("{}: {}", path.string(), key)));
    }
    if (claims.empty()) model.evidence.push_back({"config.json", "no quantization_config"});
  }
  if (const fs::path path = folder / "quant_config.json"; fs::exists(path)) {
    claims.push_back(read_quantization_config(read_json_file(path), "quant_config.json", path.string()));
  }
  bool has_metadata = false;
  if (const fs::path path = folder / "quantization_metadata.json"; fs::exists(path)) {
    claims.push_back(read_quantization_metadata(path));
    has_metadata = true;
  }
  for (const Claim& claim : claims) model.evidence.push_back({claim.source, describe(claim)});
  std::set<int> claimed_bits;
  if (!claims.empty()) claimed_bits = claims.front().all_bits;
  if (!claims.empty() && claims.front().bits) claimed_bits.insert(*claims.front().bits);

  const WeightFiles files = find_weight_files(folder);
  Claim weights;
  if (!files.safetensors.empty()) {
    std::map<std::string, TensorInfo> tensors;
    std::vector<SafetensorsFile> opened;
    for (const fs::path& path : files.safetensors) {
      model.disk_bytes += fs::file_size(path);
      try {
        const SafetensorsFile& file = opened.emplace_back(path);
        for (const auto& [name, info] : file.tensors()) {
          if (!tensors.emplace(name, info).second)
            model.contradictions.push_back(fmt::format("tensor '{}' is in more than one file", name));
        }
      } catch (Error& error) {
        if (error.kind() == ErrorKind::kUnsupported) error.with_code(kCode);
        throw;
      }
    }
    weights =
        with_context(folder.string(), [&] { return read_tensors(tensors, config, stored_widths(opened), claimed_bits, model); });
  } else if (!files.gguf.empty()) {
    weights = read_gguf(files.gguf, model);
  } else {
    for (const fs::path& path : files.pickled) {
      model.disk_bytes += fs::file_size(path);
      if (!is_torchscript(path)) continue;
      weights.source = path.filename().string();
      weights.format = "torchscript";
      weights.method = "unknown";
      weights.detail = "zip archive with constants.pkl";
    }
  }
  if (!weights.format.empty()) model.evidence.push_back({weights.source, describe(weights)});

  if (const fs::path path = folder / "recipe.yaml"; fs::exists(path)) {  // of llm-compressor
    const std::string text = read_text_file(path);
    for (const auto& [modifier, method] : {std::pair{"AWQModifier", "awq"}, {"GPTQModifier", "gptq"}}) {
      if (text.find(modifier) == std::string::npos) continue;
      Claim claim;
      claim.source = "recipe.yaml";
      claim.method = method;
      claims.push_back(claim);
      model.evidence.push_back({"recipe.yaml", modifier});
      break;
    }
  }
  const Claim name = read_folder_name(display_name(folder));
  if (const std::string text = describe(name); !text.empty()) model.evidence.push_back({name.source, text});

  // A symmetric quantization in AutoAWQ's layout stores zero points and must say so in config.json; our metadata knows better.
  if (has_metadata && claims.front().source.starts_with("config.json")) {
    for (const Claim& claim : claims) {
      if (claim.source == "quantization_metadata.json" && claim.zero_point == false && claims.front().format.starts_with("awq-")) {
        claims.front().zero_point.reset();
      }
    }
  }
  std::vector<Claim> ranked;
  if (!weights.format.empty()) ranked.push_back(weights);
  ranked.insert(ranked.end(), claims.begin(), claims.end());
  const bool per_channel = std::any_of(claims.begin(), claims.end(), [](const Claim& claim) { return claim.group_size == -1; });
  if (weights.one_group_a_row && per_channel) ranked.front().group_size = -1;
  ranked.push_back(name);
  if (weights.all_bits.size() > 1) drop_single_settings(ranked);

  model.format = decide(ranked, &Claim::format, "format", model.contradictions);
  const bool claims_quantized = !claims.empty();
  if (model.format.empty() || (model.format == "unknown" && claims_quantized)) {
    if (claims_quantized) {
      fail_detection(
          folder,
          fmt::format("it claims to be quantized ({}: {}), but {}", claims.front().source, describe(claims.front()),
                      weights.format.empty() ? "no weights in a known format are there" : weights.detail),
          "known are AutoAWQ (gemm, gemv, gemv_fast, marlin), GPTQ, compressed-tensors, GGUF and unquantized safetensors");
    }
    const bool pickled = !files.pickled.empty();
    fail_detection(
        folder,
        pickled ? fmt::format("only pickled weights are there ({})", files.pickled.front().filename().string())
                : "neither weights nor a config that says what they are",
        pickled ? "convert the model to safetensors first" : "give a folder with config.json and *.safetensors, or a GGUF file");
  }
  if (model.format == "float" || model.format == "unknown") {
    model.method = model.format == "float" ? "none" : "unknown";
    for (const Claim& claim : ranked) {
      if (model.format == "unknown" || claim.method.empty() || !claim.format.empty()) continue;
      model.contradictions.push_back(fmt::format("method: {} say the weights are not quantized ({}), {} says {}", weights.source,
                                                 weights.detail, claim.source, claim.method));
    }
    return model;
  }
  model.version = claims.empty() || claims.front().version.empty() ? weights.version : claims.front().version;

  model.method = decide(method_claims(claims, weights, name), &Claim::method, "method", model.contradictions);
  if (model.method.empty()) model.method = model.format.starts_with("awq-") ? "awq" : model.format == "gptq" ? "gptq" : "unknown";
  if (model.format == "gguf" || model.format == "torchscript") return model;

  const auto bits = decide(ranked, &Claim::bits, "weight_bits", model.contradictions);
  const auto group_size = decide(ranked, &Claim::group_size, "group_size", model.contradictions);
  const auto zero_point = decide(ranked, &Claim::zero_point, "zero_point", model.contradictions);
  const auto head = decide(ranked, &Claim::head, "lm_head", model.contradictions);
  const auto activation_bits = decide(ranked, &Claim::activation_bits, "activation_bits", model.contradictions);
  const auto kv_cache_bits = decide(ranked, &Claim::kv_cache_bits, "kv_cache_bits", model.contradictions);
  if (!bits || !group_size) return model;
  const quant::QuantizationSpec spec{.weight_bits = *bits,
                                     .activation_bits = activation_bits.value_or(kNotQuantized),
                                     .kv_cache_bits = kv_cache_bits.value_or(kNotQuantized),
                                     .group_size = *group_size,
                                     .zero_point = zero_point.value_or(true),
                                     .lm_head = head.value_or(quant::HeadDtype::kFp16)};
  try {
    validate(spec);
    model.spec = spec;
  } catch (const Error& error) {
    model.contradictions.push_back(error.message());
  }
  return model;
}

}  // namespace salient::models
