#include "pipeline/recipe.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "common/error.h"
#include "common/text.h"

namespace salient::pipeline {
namespace {

using Node = ConfigNode;
using Keys = std::vector<std::string>;

constexpr int kFloatBits = 16;

enum class ModifierKind : uint8_t { kAwq, kQuantization, kGptq };

struct ModifierRow {
  std::string_view name;
  ModifierKind kind;
};

constexpr ModifierRow kModifiers[] = {
    {"AWQModifier", ModifierKind::kAwq},
    {"QuantizationModifier", ModifierKind::kQuantization},
    {"GPTQModifier", ModifierKind::kGptq},
};

struct Modifier {
  std::string name;
  ModifierKind kind;
  Node arguments;
};

// How one group of targets is quantized.
struct Group {
  std::vector<std::string> targets;
  int bits = 8;
  int64_t group_size = -1;
  bool symmetric = true;
  Node actorder;
  std::string where;
};

// What all modifiers together say.
struct Collected {
  const Modifier* awq = nullptr;
  const Modifier* gptq = nullptr;
  const Modifier* quantization = nullptr;
  std::vector<Group> groups;
  Json ignore = Json::array();
  std::string ignore_where;
};

[[noreturn]] void unsupported(const Node& node, const std::string& what, std::string_view hint) {
  throw Error(ErrorKind::kUnsupported, fmt::format("{}: {}", node.where(), what)).with_hint(hint);
}

// The key's value also where it is null; nullptr where it is missing.
const Node* find_key(const Node& map, std::string_view key) {
  for (const auto& [name, child] : map.map()) {
    if (name == key) return &child;
  }
  return nullptr;
}

// llm-compressor writes enumerations as a Python object with the word in a list.
std::string word_of(const Node& node) {
  const Node& scalar = node.kind() == Node::Kind::kList && node.list().size() == 1 ? node.list().front() : node;
  std::string word = scalar.as_string();
  std::transform(word.begin(), word.end(), word.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return word;
}

std::vector<std::string> texts_of(const Node& node) {
  if (node.kind() == Node::Kind::kScalar) return {node.as_string()};
  std::vector<std::string> texts;
  for (const Node& item : node.list()) texts.push_back(item.as_string());
  return texts;
}

// A class of PyTorch ("Linear", "LlamaRMSNorm") rather than a module's name: no dots, CamelCase.
bool is_class(const std::string& target) {
  return !target.empty() && std::isupper(static_cast<unsigned char>(target.front())) != 0 &&
         target.find_first_of(".:_") == std::string::npos;
}

class RecipeReader {
 public:
  explicit RecipeReader(const Node& root) : where_(root.where()) { collect(root, true); }
  Recipe read();

 private:
  void collect(const Node& node, bool is_root);
  void note(const Node& node, const std::string& text) { recipe_.notes.push_back(fmt::format("{}: {}", node.where(), text)); }
  void set(std::string_view key, const Node& value) { add_setting(recipe_.settings, key, value); }
  void set_word(std::string_view key, const Json& value, const std::string& where) {
    set(key, Node::parse(dump_json(value), where));
  }

  void read_awq(const Modifier& modifier);
  void read_gptq(const Modifier& modifier);
  void read_quantization(const Modifier& modifier);
  void read_scheme(const Node& scheme, const std::vector<std::string>& targets);
  void add_preset(const Node& place, const std::string& name, const std::vector<std::string>& targets);
  void add_scheme(const Node& scheme, const std::vector<std::string>& targets);
  void read_weights(const Node& weights, Group& group);
  void set_groups();
  void set_method();

  std::string where_;
  std::vector<Modifier> modifiers_;
  Collected all_;
  Recipe recipe_;
};

bool is_stage(std::string_view key) {
  while (!key.empty() && (std::isdigit(static_cast<unsigned char>(key.back())) != 0)) key.remove_suffix(1);
  if (key.ends_with("_stage_")) key.remove_suffix(1);
  return key.ends_with("_stage") || key == "stages";
}

void RecipeReader::collect(const Node& node, bool is_root) {
  if (node.kind() != Node::Kind::kMap)
    node.reject("stages or modifiers by their names, such as {quant_stage: {quant_modifiers: {AWQModifier: {}}}}");
  Keys known;
  for (const ModifierRow& row : kModifiers) known.emplace_back(row.name);
  for (const auto& [key, child] : node.map()) {
    if (const auto* row =
            std::find_if(std::begin(kModifiers), std::end(kModifiers), [&](const ModifierRow& r) { return r.name == key; });
        row != std::end(kModifiers)) {
      if (child.kind() != Node::Kind::kMap && !child.is_null()) child.reject("the modifier's arguments by their names");
      modifiers_.push_back({key, row->kind, child});
    } else if (key.ends_with("Modifier")) {
      unsupported(child, fmt::format("modifier {} cannot be applied", key),
                  fmt::format("supported are {}", fmt::join(known, ", ")));
    } else if ((is_root && is_stage(key)) || key.ends_with("_modifiers") || key == "modifiers") {
      collect(child, key == "stages");
    } else if (key != "run_type" && key != "args" && key != "version" && key != "metadata") {
      fail(ErrorKind::kInvalidArgument,
           "{}: '{}': found '{}', expected a stage (..._stage), modifiers (..._modifiers) or a modifier: {}{}", child.where(),
           child.path(), key, fmt::join(known, ", "), did_you_mean(key, known));
    }
  }
}

void RecipeReader::read_weights(const Node& weights, Group& group) {
  weights.check_keys(Keys{"num_bits", "type", "symmetric", "group_size", "strategy", "block_structure", "dynamic", "actorder",
                          "scale_dtype", "zp_dtype", "observer", "observer_kwargs"});
  group.where = weights.where();
  if (weights.has("type") && word_of(weights.get("type")) != "int") {
    unsupported(weights.get("type"), fmt::format("codes of type '{}' cannot be made, only int", word_of(weights.get("type"))),
                "use type: int");
  }
  if (weights.has("num_bits")) {
    const Node& bits = weights.get("num_bits");
    group.bits = static_cast<int>(bits.as_int64(1, 16));
    if (group.bits == 7 || group.bits < 2 || group.bits > 8)
      unsupported(bits, fmt::format("{} bits cannot be made", group.bits), "possible are 2, 3, 4, 5, 6 and 8");
  }
  if (weights.has("symmetric")) group.symmetric = weights.get("symmetric").as_bool();
  if (weights.has("dynamic") && weights.get("dynamic").to_json() != false) {
    unsupported(weights.get("dynamic"), "weights are quantized once, not dynamically", "use dynamic: false");
  }
  const int64_t size = weights.has("group_size") ? weights.get("group_size").as_int64(-1, int64_t{1} << 40) : 0;
  const std::string strategy = weights.has("strategy") ? word_of(weights.get("strategy"))
                               : size > 0              ? "group"
                               : size < 0              ? "channel"
                                                       : "tensor";
  if (strategy == "group") {
    if (size < 1) weights.reject("a group_size beside strategy: group");
    group.group_size = size;
  } else if (strategy == "channel") {
    group.group_size = -1;
  } else {
    unsupported(weights.has("strategy") ? weights.get("strategy") : weights, fmt::format("strategy '{}' cannot be made", strategy),
                "use strategy: group with a group_size, or strategy: channel");
  }
  if (weights.has("observer") && !word_of(weights.get("observer")).ends_with("minmax")) {
    note(weights.get("observer"),
         fmt::format("observer {}: ranges are searched by clipping instead", word_of(weights.get("observer"))));
  }
  if (const Node* order = find_key(weights, "actorder"); order != nullptr) group.actorder = *order;
}

void RecipeReader::add_scheme(const Node& scheme, const std::vector<std::string>& targets) {
  scheme.check_keys(Keys{"targets", "weights", "input_activations", "output_activations", "format"});
  for (const char* key : {"input_activations", "output_activations"}) {
    if (scheme.has(key))
      unsupported(scheme.get(key), fmt::format("{}: activations stay in float, only weights are quantized", key),
                  "remove it, or use a scheme such as W4A16");
  }
  Group group;
  group.targets = scheme.has("targets") ? texts_of(scheme.get("targets")) : targets;
  group.where = scheme.where();
  if (scheme.has("weights")) {
    read_weights(scheme.get("weights"), group);
  } else {
    group.bits = kFloatBits;
  }
  all_.groups.push_back(std::move(group));
}

// "W4A16", "W4A16_ASYM": integers in groups of 128, symmetric but for _ASYM.
void RecipeReader::add_preset(const Node& place, const std::string& name, const std::vector<std::string>& targets) {
  constexpr std::string_view kHint = "schemes for weights alone are W2A16, W3A16, W4A16, W4A16_ASYM, W5A16, W6A16 and W8A16";
  const std::string upper = to_upper(name);
  Group group;
  group.targets = targets;
  group.where = place.where();
  group.group_size = 128;
  group.symmetric = upper != "W4A16_ASYM";
  if (upper == "UNQUANTIZED") {
    group.bits = kFloatBits;
  } else if (upper.size() >= 5 && upper[0] == 'W' && std::string_view("234568").find(upper[1]) != std::string_view::npos &&
             (upper.substr(2) == "A16" || !group.symmetric)) {
    group.bits = upper[1] - '0';
  } else {
    unsupported(place, fmt::format("scheme {} cannot be made", name), kHint);
  }
  all_.groups.push_back(std::move(group));
}

void RecipeReader::read_scheme(const Node& scheme, const std::vector<std::string>& targets) {
  if (scheme.kind() == Node::Kind::kScalar) return add_preset(scheme, scheme.as_string(), targets);
  if (scheme.has("weights")) return add_scheme(scheme, targets);
  for (const auto& [name, own_targets] : scheme.map()) add_preset(own_targets, name, texts_of(own_targets));
}

// The part that all quantizing modifiers share; the older AWQModifier is one of them.
void RecipeReader::read_quantization(const Modifier& modifier) {
  const Node& node = modifier.arguments;
  const std::vector<std::string> targets = node.has("targets") ? texts_of(node.get("targets")) : std::vector<std::string>{"Linear"};
  if (node.has("scheme") && node.has("config_groups")) node.get("config_groups").reject("no config_groups beside scheme");
  if (node.has("scheme")) {
    read_scheme(node.get("scheme"), targets);
  } else if (node.has("config_groups")) {
    for (const auto& [name, scheme] : node.get("config_groups").map()) add_scheme(scheme, {"Linear"});
  } else if (node.has("weights")) {
    Group group;
    group.targets = targets;
    read_weights(node.get("weights"), group);
    all_.groups.push_back(std::move(group));
  } else if (modifier.kind != ModifierKind::kAwq) {
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("{}: {} says neither scheme nor config_groups", node.where(), modifier.name))
        .with_hint("for example scheme: W4A16");
  }
  if (node.has("ignore")) {
    all_.ignore_where = node.get("ignore").where();
    for (const std::string& name : texts_of(node.get("ignore"))) {
      if (is_class(name)) {
        note(node.get("ignore"),
             fmt::format("ignore: {} is a class, not a module's name; only linears are quantized in any case", name));
      } else if (std::find(all_.ignore.begin(), all_.ignore.end(), name) == all_.ignore.end()) {
        all_.ignore.push_back(name);
      }
    }
  }
  if (node.has("kv_cache_scheme"))
    note(node.get("kv_cache_scheme"),
         "kv_cache_scheme: not taken over; 8-bit integers for it are written by --format compressed-tensors --write-runtime-bits, "
         "others are chosen in the engine");
  for (const char* key : {"weight_observer", "observer"}) {
    if (!node.has(key)) continue;
    const Node& observer = node.get(key).kind() == Node::Kind::kMap ? node.get(key).get("weights") : node.get(key);
    if (!observer.is_null() && !word_of(observer).ends_with("minmax"))
      note(observer, fmt::format("{} {}: ranges are searched by clipping instead", key, word_of(observer)));
  }
}

const Keys kCommonKeys = {
    "start", "end", "update", "index", "group", "requires_calibration_data", "sequential_targets", "sequential_update"};
const Keys kQuantizationKeys = {"config_groups",
                                "targets",
                                "ignore",
                                "scheme",
                                "weights",
                                "kv_cache_scheme",
                                "weight_observer",
                                "input_observer",
                                "output_observer",
                                "observer",
                                "bypass_divisibility_checks"};

void check_arguments(const Node& node, const Keys& own) {
  Keys known = own;
  known.insert(known.end(), kCommonKeys.begin(), kCommonKeys.end());
  known.insert(known.end(), kQuantizationKeys.begin(), kQuantizationKeys.end());
  node.check_keys(known);
}

void RecipeReader::read_awq(const Modifier& modifier) {
  const Node& node = modifier.arguments;
  // The second line: of llm-compressor before 0.5, of AutoAWQ's names.
  check_arguments(node, {"mappings", "duo_scaling", "n_grid", "offload_device", "smooth_only", "smoothing_only", "bits", "num_bits",
                         "group_size", "symmetric", "apply_clip", "max_chunk_memory"});
  for (const char* key : {"mappings", "duo_scaling", "n_grid", "smooth_only", "smoothing_only", "apply_clip", "max_chunk_memory"}) {
    if (node.has(key)) set(key, node.get(key));
  }
  if (node.has("mappings")) {
    for (const Node& mapping : node.get("mappings").list()) {
      if (mapping.kind() == Node::Kind::kMap && mapping.has("activation_hook_target")) {
        note(mapping, "activation_hook_target: not needed, the statistics are taken at the input of the balance layers");
      }
    }
  }
  if (const Node& device = node.get("offload_device"); device.kind() == Node::Kind::kScalar) {
    note(device, "offload_device: not needed, hidden states lie in files");
  }
  read_quantization(modifier);
  if (!all_.groups.empty()) return;
  if (!node.has("bits") && !node.has("num_bits") && !node.has("group_size") && !node.has("symmetric")) return;
  Group group;
  group.targets = {"Linear"};
  group.where = node.where();
  group.bits = static_cast<int>(node.has("num_bits") ? node.get("num_bits").as_int64(2, 8)
                                : node.has("bits")   ? node.get("bits").as_int64(2, 8)
                                                     : 4);
  group.group_size = node.has("group_size") ? node.get("group_size").as_int64(-1) : 128;
  group.symmetric = node.has("symmetric") && node.get("symmetric").as_bool();
  all_.groups.push_back(std::move(group));
}

void RecipeReader::read_gptq(const Modifier& modifier) {
  const Node& node = modifier.arguments;
  check_arguments(node, {"block_size", "dampening_frac", "actorder", "batched_quantization", "offload_hessians", "quantize"});
  if (node.has("dampening_frac")) set("damping", node.get("dampening_frac"));
  if (node.has("block_size") && node.get("block_size").to_json() != 128)
    note(node.get("block_size"), "block_size: changes the speed of GPTQ only, not used here");
  const size_t before = all_.groups.size();
  read_quantization(modifier);
  // The modifier's own order, else that of its first group, else "static", as llm-compressor has it.
  const Node* order = find_key(node, "actorder");
  if (order == nullptr && all_.groups.size() > before && !all_.groups[before].actorder.is_null())
    order = &all_.groups[before].actorder;
  const bool natural = order != nullptr && (order->is_null() || order->to_json() == false);
  if (!natural && order != nullptr) {
    const std::string word = order->kind() == Node::Kind::kScalar && order->to_json() == true ? "group" : word_of(*order);
    if (word == "group" || word == "dynamic") {
      note(*order, "actorder group: columns are rounded in the order of their inputs, but stored in their own, as with 'weight'");
    } else if (word != "weight" && word != "static") {
      order->reject("weight, static, group, dynamic or null");
    }
  }
  set_word("column_order", natural ? "natural" : "activation", order != nullptr ? order->where() : node.where());
}

void RecipeReader::set_groups() {
  const Group* base = nullptr;
  bool names_head = std::find(all_.ignore.begin(), all_.ignore.end(), "lm_head") != all_.ignore.end();
  std::vector<std::pair<std::string, const Group*>> others;
  for (const Group& group : all_.groups) {
    for (const std::string& target : group.targets) {
      const bool is_head = target == "lm_head" || (target.starts_with("re:") && target.ends_with("lm_head"));
      if (target == "Linear") {
        if (base != nullptr)
          fail(ErrorKind::kInvalidArgument, "{}: a second group for Linear, the first is at {}", group.where, base->where);
        base = &group;
      } else if (is_head) {
        if (std::exchange(names_head, true) || group.bits == kFloatBits) continue;
        if (group.bits != 8)
          fail(ErrorKind::kUnsupported, "{}: lm_head in {} bits cannot be made, only 8", group.where, group.bits);
        set_word("lm_head", "int8", group.where);
      } else if (is_class(target)) {
        throw Error(ErrorKind::kUnsupported,
                    fmt::format("{}: target {} cannot be quantized, only Linear and linears by their names", group.where, target));
      } else {
        others.emplace_back(target, &group);
      }
    }
  }
  if (base == nullptr && others.empty()) return;
  // compressed-tensors takes names before expressions, each in alphabetical order, and the first that matches; of our overrides the
  // last one wins.
  std::sort(others.begin(), others.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first.starts_with("re:"), a.first) > std::pair(b.first.starts_with("re:"), b.first);
  });
  Json overrides = Json::array();
  if (base != nullptr && !names_head) {
    recipe_.notes.push_back(fmt::format(
        "{}: lm_head stays in float, though Linear means it too and nothing ignores it; --lm-head int8 quantizes it", base->where));
  }
  // Without the class, what no target names stays in float.
  if (base == nullptr || base->bits == kFloatBits) {
    overrides.push_back({{"pattern", "re:.*"}, {"bits", kFloatBits}});
    const auto quantized =
        std::find_if(others.begin(), others.end(), [](const auto& other) { return other.second->bits != kFloatBits; });
    if (quantized == others.end())
      fail(ErrorKind::kInvalidArgument, "{}: nothing is quantized by this recipe", all_.groups.front().where);
    base = quantized->second;
  }
  set_word("bits", base->bits, base->where);
  set_word("group_size", base->group_size, base->where);
  set_word("zero_point", !base->symmetric, base->where);
  for (const auto& [target, group] : others) {
    Json item = {{"pattern", target}, {"bits", group->bits}};
    if (group->bits != kFloatBits) {
      item["group_size"] = group->group_size;
      item["zero_point"] = !group->symmetric;
    }
    overrides.push_back(std::move(item));
  }
  if (overrides.empty()) return;
  set_word("overrides", overrides, all_.groups.front().where);
  recipe_.settings.back().may_miss = true;
}

void RecipeReader::set_method() {
  const Modifier* last = all_.gptq != nullptr ? all_.gptq : all_.quantization;
  const std::string where = (all_.awq != nullptr ? all_.awq : last)->arguments.where();
  set_word("method", all_.awq != nullptr ? "awq" : all_.gptq != nullptr ? "gptq" : "rtn", where);
  set_word("format", "compressed-tensors", where);
  if (all_.awq != nullptr && all_.gptq == nullptr) {
    note(all_.awq->arguments,
         "AWQModifier: ranges are clipped and codes chosen with compensation, beyond what the recipe says; --no-clip --rounding "
         "nearest leaves that out");
  }
  if (all_.gptq != nullptr && all_.quantization != nullptr) {
    note(all_.quantization->arguments, "QuantizationModifier: its modules are rounded as those of the GPTQModifier");
  }
}

Recipe RecipeReader::read() {
  size_t groups_before_awq = 0;
  for (const Modifier& modifier : modifiers_) {
    const Modifier*& slot = modifier.kind == ModifierKind::kAwq    ? all_.awq
                            : modifier.kind == ModifierKind::kGptq ? all_.gptq
                                                                   : all_.quantization;
    if (slot != nullptr && modifier.kind != ModifierKind::kQuantization) {
      fail(ErrorKind::kUnsupported, "{}: a second {}, the first is at {}", modifier.arguments.where(), modifier.name,
           slot->arguments.where());
    }
    slot = &modifier;
    switch (modifier.kind) {
      case ModifierKind::kAwq:
        groups_before_awq = all_.groups.size();
        read_awq(modifier);
        break;
      case ModifierKind::kGptq: read_gptq(modifier); break;
      case ModifierKind::kQuantization:
        check_arguments(modifier.arguments, {});
        read_quantization(modifier);
        break;
    }
  }
  if (modifiers_.empty())
    fail(ErrorKind::kInvalidArgument, "{}: the recipe has no modifier, expected AWQModifier, QuantizationModifier or GPTQModifier",
         where_);
  const auto smooth = std::find_if(recipe_.settings.begin(), recipe_.settings.end(), [](const GivenSetting& given) {
    return given.setting->key == "smooth_only" && given.value.as_bool();
  });
  if (smooth != recipe_.settings.end()) {
    if (!all_.groups.empty()) {
      recipe_.notes.push_back(fmt::format(
          "{}: smooth_only: nothing is quantized, the scheme is not used: the search assumes 4 bits, zero points and groups of 128",
          smooth->value.where()));
    }
  } else if (all_.awq != nullptr && all_.groups.size() == groups_before_awq) {
    throw Error(
        ErrorKind::kInvalidArgument,
        fmt::format("{}: AWQModifier says where scales go, but no quantization modifier follows it", all_.awq->arguments.where()))
        .with_hint(
            "add QuantizationModifier: {scheme: W4A16_ASYM, targets: [Linear], ignore: [lm_head]} after it, or smooth_only: true "
            "to it");
  } else {
    set_groups();
    set_method();
  }
  if (!all_.ignore.empty()) {
    set_word("ignore", all_.ignore, all_.ignore_where);
    recipe_.settings.back().may_miss = true;
  }
  return std::move(recipe_);
}

}  // namespace

Recipe parse_recipe(const ConfigNode& root) { return RecipeReader(root).read(); }

Recipe read_recipe(const std::filesystem::path& path) { return parse_recipe(ConfigNode::load(path)); }

}  // namespace salient::pipeline
