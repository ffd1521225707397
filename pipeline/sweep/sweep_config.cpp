#include "pipeline/sweep/sweep_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>

#include "common/error.h"
#include "common/hash.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

using Values = std::vector<std::pair<std::string, Json>>;

constexpr const char* kSeed = "calibration.seed";
constexpr size_t kLongestName = 120;  // of a folder; most file systems take 255 bytes

// What a sweep decides itself.
void check_key(const ConfigNode& place, const std::string& key) {
  for (const char* own : {"name", "output.folder", "output.store"}) {
    if (key == own)
      fail(ErrorKind::kInvalidArgument, "{}: '{}' is the sweep's own: each point has its folder, all have one store", place.where(),
           key);
  }
}

// A value as "--set" takes it; JSON is YAML.
std::string assignment(const std::string& key, const Json& value) { return key + "=" + value.dump(); }

Values read_values(const ConfigNode& node) {
  Values values;
  for (const auto& [key, value] : node.map()) {
    check_key(value, key);
    values.emplace_back(key, value.to_json());
  }
  return values;
}

std::vector<Values> read_grid(const ConfigNode& node) {
  if (node.is_null()) return {};
  std::vector<Values> points{{}};
  for (const auto& [key, choices] : node.map()) {
    check_key(choices, key);
    if (choices.kind() != ConfigNode::Kind::kList || choices.list().empty())
      choices.reject("a list of values, such as [32, 64, 128]");
    std::vector<Values> longer;
    for (const Values& point : points) {
      for (const ConfigNode& choice : choices.list()) {
        longer.push_back(point);
        longer.back().emplace_back(key, choice.to_json());
      }
    }
    if (longer.size() > kMostPoints) choices.reject(fmt::format("a grid of at most {} points", kMostPoints));
    points = std::move(longer);
  }
  return points;
}

// A value as it stands in a name: "32", "auto", "true", and for lists and maps a hash.
std::string value_text(const Json& value) {
  std::string text = value.is_string() ? value.get<std::string>() : value.dump();
  if (value.is_structured()) text = sha256_hex(text).substr(0, 8);
  for (char& c : text) {
    const bool plain = std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '_' || c == '-' || c == '+';
    if (!plain) c = '_';
  }
  return text;
}

std::string point_name(const Values& values, const std::vector<std::string>& keys, std::optional<uint64_t> seed) {
  std::string name;
  for (const auto& [key, value] : values)
    name += fmt::format("{}{}={}", name.empty() ? "" : ",", short_key(key, keys), value_text(value));
  if (seed) name += fmt::format("{}seed={}", name.empty() ? "" : ",", *seed);
  if (name.empty()) name = "point";
  if (name.size() > kLongestName) name = name.substr(0, kLongestName - 17) + "-" + sha256_hex(name).substr(0, 16);
  return name;
}

std::vector<std::optional<uint64_t>> read_seeds(const ConfigNode& node) {
  std::vector<std::optional<uint64_t>> seeds;
  for (const ConfigNode& seed : node.list()) seeds.emplace_back(static_cast<uint64_t>(seed.as_int64(0)));
  if (seeds.empty()) seeds.emplace_back();
  return seeds;
}

std::vector<std::string> keys_of(const std::vector<Values>& points) {
  std::vector<std::string> keys;
  for (const Values& point : points) {
    for (const auto& [key, value] : point) {
      if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(key);
    }
  }
  return keys;
}

// Equal points have equal texts: everything but the name and where things go.
std::string identity(const RunConfig& config) {
  Json json = to_json(config);
  json.erase("name");
  json.erase("output");
  return dump_json(json);
}

}  // namespace

std::string short_key(const std::string& key, const std::vector<std::string>& keys) {
  const auto last = [](const std::string& text) { return text.substr(text.rfind('.') + 1); };
  const auto same = [&](const std::string& other) { return last(other) == last(key); };
  return std::count_if(keys.begin(), keys.end(), same) > 1 ? key : last(key);
}

SweepConfig load_sweep_config(const fs::path& path, const std::vector<std::string>& overrides) {
  ConfigNode root = ConfigNode::load(path);
  for (const std::string& override : overrides) root.apply_override(override);
  root.check_keys(
      std::array<std::string, 10>{"name", "run", "set", "grid", "points", "seeds", "share", "loss", "launcher", "output"});
  SweepConfig sweep;
  sweep.name = root.has("name") ? root.get("name").as_string() : path.stem().string();
  if (sweep.name.empty() || sweep.name.find('/') != std::string::npos) root.get("name").reject("a name without '/'");
  if (!root.has("run"))
    fail(ErrorKind::kInvalidArgument, "{}: 'run' is missing: the run configuration that every point starts from", path.string());
  const fs::path run_file = root.get("run").as_string();
  if (root.has("share")) sweep.share = root.get("share").as_bool();
  if (root.has("loss")) sweep.loss = root.get("loss").as_string();

  if (root.has("launcher")) sweep.launcher = read_launcher(root.get("launcher"));

  const Values common = read_values(root.get("set"));
  std::vector<Values> wanted = read_grid(root.get("grid"));
  for (const ConfigNode& point : root.get("points").list()) wanted.push_back(read_values(point));
  const std::vector<std::optional<uint64_t>> seeds = read_seeds(root.get("seeds"));
  if (wanted.empty() && seeds.size() < 2)
    fail(ErrorKind::kInvalidArgument,
         "{}: found no points; expected a grid, points or seeds: grid: {{quantization.group_size: [64, 128]}}", path.string());
  if (wanted.empty()) wanted.emplace_back();
  sweep.keys = keys_of(wanted);
  if (seeds.front() && std::find(sweep.keys.begin(), sweep.keys.end(), kSeed) != sweep.keys.end())
    root.get("seeds").reject(fmt::format("no seeds where {} is a key of the points", kSeed));

  const ConfigNode& output = root.get("output");
  output.check_keys(std::array<std::string, 2>{"folder", "store"});
  std::set<std::string> known;
  std::set<std::string> names;
  for (const Values& values : wanted) {
    for (const std::optional<uint64_t>& seed : seeds) {
      SweepPoint point;
      point.name = point_name(values, sweep.keys, seed);
      point.values = values;
      point.seed = seed;
      std::vector<std::string> assignments;
      for (const auto& [key, value] : common) assignments.push_back(assignment(key, value));
      for (const auto& [key, value] : values) assignments.push_back(assignment(key, value));
      if (seed) assignments.push_back(fmt::format("{}={}", kSeed, *seed));
      point.run = with_context(fmt::format("{}: point {}", path.string(), point.name),
                               [&] { return load_run_config(run_file, assignments); });
      if (sweep.folder.empty()) {
        sweep.folder =
            output.has("folder") ? fs::path(output.get("folder").as_string()) : point.run.output_folder / "sweeps" / sweep.name;
        sweep.store = output.has("store") ? fs::path(output.get("store").as_string()) : point.run.store;
      }
      point.run.name = sweep.name + "/" + point.name;
      point.run.output_folder = sweep.folder / point.name;
      point.run.store = sweep.store;
      if (!known.insert(identity(point.run)).second) {
        sweep.duplicates.push_back(point.name);
        continue;
      }
      if (!names.insert(point.name).second)
        fail(ErrorKind::kInvalidArgument, "{}: two different points are called {}: give one a value that tells them apart",
             path.string(), point.name);
      sweep.points.push_back(std::move(point));
    }
  }
  return sweep;
}

}  // namespace salient::pipeline
