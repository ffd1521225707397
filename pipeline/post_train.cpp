#include "pipeline/post_train.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "common/error.h"
#include "common/text.h"
#include "common/yaml.h"
#include "models/io/model_folder.h"
#include "pipeline/training_metadata.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

constexpr const char* kPlanHint =
    "plan it with \"quantization\": {\"method\": \"awq\", \"bits\": 4, \"group_size\": 128}, or with --set quantization.bits=4";

// A platform's key -> the setting that it is.
struct Spelling {
  std::string_view theirs;
  std::string_view key;
};
constexpr std::array kSpellings = {Spelling{"weights_bits", "bits"}, Spelling{"activations_bits", "activation_bits"},
                                   Spelling{"lm_head_dtype", "lm_head"}};

// A platform's backend -> the format that it reads; "" where several are.
struct Backend {
  std::string_view name;
  std::string_view format;
};
constexpr std::array kBackends = {Backend{"awq", "awq-gemm"}, Backend{"autoawq", "awq-gemm"},
                                  Backend{"compressed-tensors", "compressed-tensors"},
                                  Backend{"llm-compressor", "compressed-tensors"}, Backend{"llama.cpp", ""}};

fs::path without_slash(const fs::path& checkpoint) {
  const fs::path path = fs::absolute(checkpoint).lexically_normal();
  return path.has_filename() ? path : path.parent_path();
}

bool is_off(const Json& value) { return value.is_null() || value == false; }

class Planner {
 public:
  explicit Planner(const fs::path& checkpoint)
      : checkpoint_(without_slash(checkpoint)), where_((checkpoint_ / kTrainingMetadataFile).string()) {
    std::error_code ignored;
    if (!fs::is_directory(checkpoint_, ignored)) {
      throw Error(ErrorKind::kNotFound,
                  fmt::format("{}: no such folder, expected the checkpoint of a training", checkpoint_.string()))
          .with_hint("salient hook post-train CHECKPOINT");
    }
    if (!fs::exists(checkpoint_ / kTrainingMetadataFile)) {
      throw Error(ErrorKind::kNotFound,
                  fmt::format("{}: not there, expected what the training wrote beside its checkpoint", where_))
          .with_hint(std::string("docs/hook.md lists its keys; ") + kPlanHint);
    }
    metadata_ = read_json_file(checkpoint_ / kTrainingMetadataFile);
    if (!metadata_.is_object()) fail(ErrorKind::kCorruption, "{}: expected a JSON object, found {}", where_, metadata_.type_name());
  }

  std::optional<Json> plan(bool planned_by_override) const {
    if (!metadata_.contains("quantization") && !planned_by_override)
      throw Error(ErrorKind::kInvalidArgument, fmt::format("{}: key 'quantization' is missing", where_)).with_hint(kPlanHint);
    Json quantization = metadata_.value("quantization", Json::object());
    if (is_off(quantization)) {
      if (!planned_by_override) return std::nullopt;
      quantization = Json::object();
    }
    if (!quantization.is_object()) fail_key("quantization", "an object, or false where nothing is planned", quantization);
    const Json extras = quantization.value("extras", Json::object());
    if (!extras.is_object()) fail_key("quantization.extras", "an object", extras);
    if (extras.value("ptq_planned", Json(true)) == false && !planned_by_override) return std::nullopt;
    const fs::path parent = checkpoint_.parent_path();
    return Json{{"name", fmt::format("post-train {}", checkpoint_.filename().string())},
                {"model", {{"path", checkpoint_.string()}}},
                {"quantization", quantization_section(std::move(quantization))},
                {"calibration", files_in(section("calibration"))},
                {"evaluation", evaluation_section()},
                {"output", {{"folder", parent.string()}, {"store", (parent / "runs" / "salient.db").string()}}}};
  }

  const fs::path& checkpoint() const { return checkpoint_; }
  const std::string& where() const { return where_; }

 private:
  [[noreturn]] void fail_key(const std::string& key, const std::string& expected, const Json& found) const {
    fail(ErrorKind::kInvalidArgument, "{}: key '{}': found {}, expected {}", where_, key, shorten(one_line(dump_json(found)), 60),
         expected);
  }

  Json section(const char* key) const {
    const auto found = metadata_.find(key);
    if (found == metadata_.end() || found->is_null()) return Json::object();
    if (!found->is_object()) fail_key(key, "an object", *found);
    return *found;
  }

  void put(Json& section, std::string_view key, const Json& value, std::string_view theirs) const {
    if (section.contains(key)) {
      throw Error(ErrorKind::kInvalidArgument,
                  fmt::format("{}: keys 'quantization.{}' and 'quantization.{}' say the same", where_, theirs, key))
          .with_hint("leave one of them out");
    }
    section[std::string(key)] = value;
  }

  Json quantization_section(Json given) const {
    given.erase("extras");
    Json section = given;
    for (const Spelling& spelling : kSpellings) section.erase(std::string(spelling.theirs));
    section.erase("backend");
    for (const Spelling& spelling : kSpellings) {
      if (const auto found = given.find(std::string(spelling.theirs)); found != given.end())
        put(section, spelling.key, *found, spelling.theirs);
    }
    if (const auto backend = given.find("backend"); backend != given.end() && !backend->is_null()) add_backend(section, *backend);
    return section;
  }

  void add_backend(Json& section, const Json& backend) const {
    std::vector<std::string> names;
    for (const Backend& row : kBackends) {
      names.emplace_back(row.name);
      if (!backend.is_string() || backend.get<std::string>() != row.name) continue;
      if (section.contains("format")) return;
      if (row.format.empty()) {
        throw Error(ErrorKind::kInvalidArgument,
                    fmt::format("{}: key 'quantization.format' is missing: backend {} reads several", where_, row.name))
            .with_hint("for example \"format\": \"gguf-q4_k_m\"");
      }
      section["format"] = row.format;
      return;
    }
    fail_key("quantization.backend", list_choices(names) + ", or none and a 'format'", backend);
  }

  // The path that `given` means, from here: the working directory when it is in none of the checkpoint's folders.
  Json found_file(const Json& given) const {
    if (!given.is_string()) return given;
    const auto file = find_named_file(checkpoint_, given.get<std::string>());
    if (file) return file->string();
    const fs::path folder = checkpoint_ / given.get<std::string>();
    std::error_code ignored;
    return fs::is_directory(folder, ignored) ? Json(folder.string()) : given;
  }

  Json files_in(Json section) const {
    if (section.contains("file")) section["file"] = found_file(section["file"]);
    if (section.contains("sources") && section["sources"].is_array()) {
      for (Json& source : section["sources"]) source = source.is_object() ? files_in(source) : found_file(source);
    }
    return section;
  }

  Json evaluation_section() const {
    Json evaluation = section("evaluation");
    if (evaluation.contains("include_path")) evaluation["include_path"] = found_file(evaluation["include_path"]);
    if (!evaluation.contains("tasks") || !evaluation["tasks"].is_array()) return evaluation;
    for (Json& task : evaluation["tasks"]) {
      if (!task.is_object()) continue;
      task = files_in(task);
      if (!task.contains("splits") || !task["splits"].is_object()) continue;
      for (auto& [split, file] : task["splits"].items()) file = found_file(file);
    }
    return evaluation;
  }

  fs::path checkpoint_;
  std::string where_;
  Json metadata_;
};

void check_outside(const char* key, const fs::path& path, const fs::path& checkpoint) {
  const fs::path from = fs::weakly_canonical(fs::absolute(path)).lexically_relative(fs::weakly_canonical(checkpoint));
  if (from.empty() || from.begin()->string() == "..") return;
  throw Error(ErrorKind::kInvalidArgument,
              fmt::format("{} is {}, inside the checkpoint {}, which is not written to", key, path.string(), checkpoint.string()))
      .with_hint(fmt::format("--set {}=... names another place; by default it is the checkpoint's parent folder", key));
}

}  // namespace

std::optional<Json> post_train_config(const fs::path& checkpoint) { return Planner(checkpoint).plan(false); }

std::optional<RunConfig> load_post_train_config(const fs::path& checkpoint, const std::vector<std::string>& overrides) {
  const Planner planner(checkpoint);
  const bool planned =
      std::any_of(overrides.begin(), overrides.end(), [](const std::string& text) { return text.starts_with("quantization"); });
  const std::optional<Json> plan = planner.plan(planned);
  if (!plan) return std::nullopt;
  ConfigNode root = ConfigNode::from_json(*plan, planner.where());
  for (const std::string& assignment : overrides) root.apply_override(assignment);
  RunConfig config = parse_run_config(root, plan->at("name").get<std::string>());
  check_outside("output.folder", config.output_folder, planner.checkpoint());
  check_outside("output.store", config.store, planner.checkpoint());
  return config;
}

}  // namespace salient::pipeline
