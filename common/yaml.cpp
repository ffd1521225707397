#include "common/yaml.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <optional>
#include <sstream>
#include <unordered_map>

#include "common/error.h"
#include "common/file.h"
#include "common/text.h"

namespace salient {
namespace {

constexpr int kDeepest = 64;
constexpr size_t kMostNodes = 100'000;   // aliases can unfold to far more than the file holds
constexpr size_t kMostPathBytes = 4000;  // each value has its path from the top, for messages

template <typename T>
std::optional<T> parse_number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if constexpr (std::is_floating_point_v<T>) {
    if (!std::isfinite(value)) return std::nullopt;
  }
  return value;
}

bool is_one_of(std::string_view text, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), text) != words.end();
}

std::string child_path(std::string_view parent, std::string_view key) {
  return parent.empty() ? std::string(key) : fmt::format("{}.{}", parent, key);
}

// Takes nothing of what a parser says.
class Ignored final : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t, const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}
};

// 0, 1, or 2 for more: in some texts that are not YAML, such as ",", yaml-cpp 0.7 finds empty documents without end, all of which
// YAML::LoadAll would keep.
int count_documents(const std::string& yaml) {
  std::istringstream stream(yaml);
  YAML::Parser parser(stream);
  Ignored ignored;
  int count = 0;
  while (count < 2 && parser.HandleNextDocument(ignored)) ++count;
  return count;
}

}  // namespace

class ConfigBuilder {
 public:
  // `has_lines`: marks are places in a file; else everything is reported as `where` alone.
  ConfigBuilder(std::string_view where, bool has_lines) : source_(std::make_shared<std::string>(where)), has_lines_(has_lines) {}

  ConfigNode build(std::string_view text, std::string_view path) {
    try {
      const std::string yaml(text);
      const int documents = count_documents(yaml);
      if (documents == 0) return with_place(ConfigNode(), YAML::Mark(), path);
      if (documents > 1) fail(ErrorKind::kCorruption, "{}: holds more than one YAML document, expected one", *source_);
      return convert(YAML::Load(yaml), std::string(path), 0);
    } catch (const YAML::Exception& error) {
      fail(ErrorKind::kCorruption, "{}: not valid YAML: {}", ConfigNode::place_to_string(place(error.mark)), error.msg);
    }
  }

  static void assign(ConfigNode& root, std::span<const std::string> steps, const std::string& assignment, std::string_view value) {
    ConfigBuilder builder(fmt::format("--set {}", assignment), false);
    ConfigNode* node = &root;
    std::string path;
    for (const std::string& step : steps) {
      if (node->kind_ == ConfigNode::Kind::kScalar) {
        fail(ErrorKind::kInvalidArgument, "{}: '{}' is {}, there is no '{}' below it", *builder.source_, path, node->found_text(),
             step);
      }
      path = child_path(path, step);
      if (node->kind_ == ConfigNode::Kind::kList) {
        const auto index = parse_number<uint32_t>(step);
        if (!index || *index >= node->list_.size()) {
          fail(ErrorKind::kInvalidArgument, "{}: '{}': found '{}', expected a number from 0 to {}: the list has {} entries",
               *builder.source_, path, step, static_cast<int64_t>(node->list_.size()) - 1, node->list_.size());
        }
        node = &node->list_[*index];
        continue;
      }
      if (node->is_null()) {
        node->kind_ = ConfigNode::Kind::kMap;
        node->value_place_ = builder.place(YAML::Mark());
      }
      auto& map = node->map_;
      auto entry = std::find_if(map.begin(), map.end(), [&](const auto& pair) { return pair.first == step; });
      if (entry == map.end()) {
        map.emplace_back(step, ConfigNode());
        entry = std::prev(map.end());
        entry->second.path_ = path;
        entry->second.key_place_ = entry->second.value_place_ = builder.place(YAML::Mark());
      }
      node = &entry->second;
    }
    const auto key_place = node->key_place_;
    *node = builder.build(value, path);
    node->key_place_ = key_place;
  }

 private:
  ConfigNode::Place place(const YAML::Mark& mark) const {
    if (!has_lines_ || mark.is_null()) return {source_, 0, 0};
    return {source_, mark.line + 1, mark.column + 1};
  }

  ConfigNode with_place(ConfigNode node, const YAML::Mark& mark, std::string_view path) const {
    node.path_ = path;
    node.key_place_ = node.value_place_ = place(mark);
    return node;
  }

  ConfigNode convert(const YAML::Node& source, const std::string& path, int depth) {
    ConfigNode node = with_place(ConfigNode(), source.Mark(), path);
    if (depth > kDeepest || ++nodes_ > kMostNodes) {
      fail(ErrorKind::kCorruption, "{}: the configuration is deeper than {} levels or has more than {} values", node.where(),
           kDeepest, kMostNodes);
    }
    if (path.size() > kMostPathBytes) {
      fail(ErrorKind::kCorruption, "{}: the keys from the top to this value have {} bytes together, expected at most {}",
           node.where(), path.size(), kMostPathBytes);
    }
    switch (source.Type()) {
      case YAML::NodeType::Undefined:
      case YAML::NodeType::Null: break;
      case YAML::NodeType::Scalar:
        node.scalar_ = source.Tag() == "!function" ? "!function " + source.Scalar() : source.Scalar();
        node.quoted_ = source.Tag() == "!" || source.Tag() == "tag:yaml.org,2002:str";
        node.kind_ = !node.quoted_ && is_one_of(node.scalar_, {"", "~", "null", "Null", "NULL"}) ? ConfigNode::Kind::kNull
                                                                                                 : ConfigNode::Kind::kScalar;
        break;
      case YAML::NodeType::Sequence:
        node.kind_ = ConfigNode::Kind::kList;
        for (const auto& item : source)
          node.list_.push_back(convert(item, child_path(path, std::to_string(node.list_.size())), depth + 1));
        break;
      case YAML::NodeType::Map: {
        node.kind_ = ConfigNode::Kind::kMap;
        std::unordered_map<std::string, ConfigNode::Place> seen;
        for (const auto& pair : source) add_entry(node, pair.first, pair.second, depth, seen);
        break;
      }
    }
    return node;
  }

  // `seen`: the keys of this map so far, and where they are.
  void add_entry(ConfigNode& node, const YAML::Node& key, const YAML::Node& value, int depth,
                 std::unordered_map<std::string, ConfigNode::Place>& seen) {
    const ConfigNode::Place key_place = place(key.Mark());
    if (!key.IsScalar())
      fail(ErrorKind::kCorruption, "{}: a key is a list, a map or empty; expected a word", ConfigNode::place_to_string(key_place));
    const std::string& name = key.Scalar();
    if (const auto [first, is_new] = seen.emplace(name, key_place); !is_new) {
      fail(ErrorKind::kCorruption, "{}: key '{}' is there twice, first at {}", ConfigNode::place_to_string(key_place),
           child_path(node.path_, name), ConfigNode::place_to_string(first->second));
    }
    ConfigNode child = convert(value, child_path(node.path_, name), depth + 1);
    if (child.value_place_.line == 0) child.value_place_ = key_place;
    child.key_place_ = key_place;
    node.map_.emplace_back(name, std::move(child));
  }

  std::shared_ptr<const std::string> source_;
  bool has_lines_;
  size_t nodes_ = 0;
};

ConfigNode ConfigNode::parse(std::string_view text, std::string_view where) { return ConfigBuilder(where, true).build(text, ""); }

ConfigNode ConfigNode::load(const std::filesystem::path& path) { return parse(read_text_file(path), path.string()); }

ConfigNode ConfigNode::from_json(const Json& value, std::string_view where) {
  return ConfigBuilder(where, false).build(dump_json(value), "");  // JSON is YAML
}

void ConfigNode::apply_override(std::string_view assignment) {
  const size_t equals = assignment.find('=');
  const std::vector<std::string> steps = split(assignment.substr(0, equals), '.');
  if (equals == std::string_view::npos || std::any_of(steps.begin(), steps.end(), [](const auto& step) { return step.empty(); })) {
    throw Error(ErrorKind::kInvalidArgument, fmt::format("--set {}: expected key.key=value", assignment))
        .with_hint("for example --set quantization.group_size=64");
  }
  ConfigNode changed = *this;  // an override that fails leaves nothing half-set
  ConfigBuilder::assign(changed, steps, std::string(assignment), assignment.substr(equals + 1));
  *this = std::move(changed);
}

std::string ConfigNode::place_to_string(const Place& place) {
  if (!place.source) return "configuration";
  if (place.line == 0) return *place.source;
  return fmt::format("{}:{}:{}", *place.source, place.line, place.column);
}

void ConfigNode::check_keys(std::span<const std::string> known) const {
  for (const auto& [key, child] : map()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    const std::string nearest = did_you_mean(key, known);
    std::vector<std::string> sorted(known.begin(), known.end());
    std::sort(sorted.begin(), sorted.end());
    fail(ErrorKind::kInvalidArgument, "{}: unknown key '{}'{}", place_to_string(child.key_place_), child.path_,
         nearest.empty() ? fmt::format("; known here: {}", fmt::join(sorted, ", ")) : nearest);
  }
}

const ConfigNode& ConfigNode::get(std::string_view key) const {
  static const ConfigNode kMissing;
  for (const auto& [name, child] : map()) {
    if (name == key) return child;
  }
  return kMissing;
}

const std::vector<ConfigNode>& ConfigNode::list() const {
  if (kind_ != Kind::kList && kind_ != Kind::kNull) reject("a list");
  return list_;
}

const std::vector<std::pair<std::string, ConfigNode>>& ConfigNode::map() const {
  if (kind_ != Kind::kMap && kind_ != Kind::kNull) reject("keys with values below");
  return map_;
}

std::string ConfigNode::as_string() const {
  if (kind_ != Kind::kScalar) reject("a string");
  return scalar_;
}

int64_t ConfigNode::as_int64(int64_t least, int64_t most) const {
  const auto value = kind_ == Kind::kScalar && !quoted_ ? parse_number<int64_t>(scalar_) : std::nullopt;
  if (value && *value >= least && *value <= most) return *value;
  if (least == std::numeric_limits<int64_t>::min()) reject("an integer");
  if (most == std::numeric_limits<int64_t>::max()) reject(fmt::format("an integer, {} or more", least));
  reject(fmt::format("an integer from {} to {}", least, most));
}

double ConfigNode::as_double(double least, double most) const {
  const auto value = kind_ == Kind::kScalar && !quoted_ ? parse_number<double>(scalar_) : std::nullopt;
  if (value && *value >= least && *value <= most) return *value;
  if (least == std::numeric_limits<double>::lowest()) reject("a number");
  if (most == std::numeric_limits<double>::max()) reject(fmt::format("a number, {} or more", least));
  reject(fmt::format("a number from {} to {}", least, most));
}

bool ConfigNode::as_bool() const {
  if (kind_ == Kind::kScalar && !quoted_) {
    if (is_one_of(scalar_, {"true", "True", "TRUE"})) return true;
    if (is_one_of(scalar_, {"false", "False", "FALSE"})) return false;
  }
  reject("true or false");
}

std::string ConfigNode::as_choice(std::span<const std::string> choices) const {
  if (kind_ == Kind::kScalar && std::find(choices.begin(), choices.end(), scalar_) != choices.end()) return scalar_;
  reject(list_choices(choices) + (kind_ == Kind::kScalar ? did_you_mean(scalar_, choices) : ""));
}

std::string ConfigNode::found_text() const {
  switch (kind_) {
    case Kind::kNull: return "nothing";
    case Kind::kScalar: return fmt::format("{}'{}'", quoted_ ? "the string " : "", shorten(one_line(scalar_), 60));
    case Kind::kList: return "a list";
    case Kind::kMap: return "a map";
  }
  return "nothing";
}

void ConfigNode::reject(std::string_view expected) const {
  if (path_.empty()) fail(ErrorKind::kInvalidArgument, "{}: found {}, expected {}", where(), found_text(), expected);
  fail(ErrorKind::kInvalidArgument, "{}: '{}': found {}, expected {}", where(), path_, found_text(), expected);
}

Json ConfigNode::scalar_to_json() const {
  if (quoted_) return scalar_;
  if (is_one_of(scalar_, {"true", "True", "TRUE"})) return true;
  if (is_one_of(scalar_, {"false", "False", "FALSE"})) return false;
  if (const auto integer = parse_number<int64_t>(scalar_)) return *integer;
  if (const auto number = parse_number<double>(scalar_)) return *number;
  return scalar_;
}

Json ConfigNode::to_json() const {
  switch (kind_) {
    case Kind::kNull: return nullptr;
    case Kind::kScalar: return scalar_to_json();
    case Kind::kList: {
      Json items = Json::array();
      for (const ConfigNode& item : list_) items.push_back(item.to_json());
      return items;
    }
    case Kind::kMap: {
      Json object = Json::object();
      for (const auto& [key, child] : map_) object[key] = child.to_json();
      return object;
    }
  }
  return nullptr;
}

}  // namespace salient
