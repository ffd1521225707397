#include "eval/task_yaml.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <set>

#include "common/error.h"
#include "common/hash.h"
#include "common/text.h"
#include "eval/aggregation.h"
#include "eval/metric_table.h"
#include "eval/response_filters.h"
#include "eval/task_functions.h"

namespace salient::eval {
namespace {

using Keys = std::vector<std::string>;

const Keys kTaskKeys = {"task",
                        "task_alias",
                        "tag",
                        "include",
                        "dataset_path",
                        "dataset_name",
                        "dataset_kwargs",
                        "training_split",
                        "validation_split",
                        "test_split",
                        "fewshot_split",
                        "process_docs",
                        "output_type",
                        "description",
                        "doc_to_text",
                        "doc_to_choice",
                        "doc_to_target",
                        "gen_prefix",
                        "target_delimiter",
                        "fewshot_delimiter",
                        "num_fewshot",
                        "fewshot_config",
                        "generation_kwargs",
                        "repeats",
                        "filter_list",
                        "metric_list",
                        "process_results",
                        "metadata",
                        "should_decontaminate",
                        "doc_to_decontamination_query",
                        "aliases",
                        "row_filter",
                        "document_reader",
                        "cluster_column",
                        "loglikelihood_of"};
const Keys kNotDone = {"class", "custom_dataset", "doc_to_image", "doc_to_audio", "use_prompt", "unsafe_code"};
const Keys kGroupKeys = {"group", "group_alias", "task", "aggregate_metric_list", "metadata", "tag", "include"};

constexpr size_t kMostIncludes = 100;

// Strings as a scalar or a list.
std::vector<std::string> strings(const ConfigNode& node) {
  std::vector<std::string> out;
  if (node.kind() == ConfigNode::Kind::kScalar) {
    out.push_back(node.as_string());
  } else {
    for (const ConfigNode& item : node.list()) out.push_back(item.as_string());
  }
  return out;
}

using Layer = TaskSource::Layer;

bool is_group_key(std::string_view key) { return std::find(kGroupKeys.begin(), kGroupKeys.end(), key) != kGroupKeys.end(); }

// A file and what it includes, the nearest first: the first that has a key decides, even where it says null.
class Layers {
 public:
  Layers(const ConfigNode& node, const std::string& origin, const IncludeLoader& include) {
    add(node, origin, include, {place_of(origin)});
  }
  explicit Layers(std::vector<Layer> layers) : layers_(std::move(layers)) {}

  const ConfigNode& get(std::string_view key) const {
    for (const Layer& layer : layers_) {
      if (layer.is_override && is_group_key(key)) continue;
      for (const auto& [name, child] : layer.node.map()) {
        if (name == key) return child;
      }
    }
    static const ConfigNode kNone;
    return kNone;
  }
  // The task's own map.
  const ConfigNode& top() const {
    return std::find_if(layers_.begin(), layers_.end(), [](const Layer& layer) { return !layer.is_override; })->node;
  }
  const std::vector<Layer>& layers() const { return layers_; }

  // The same layers over another task; none where no key is one of a task.
  std::vector<Layer> as_overrides() const {
    std::vector<Layer> out;
    for (const Layer& layer : layers_) {
      const auto& keys = layer.node.map();
      if (std::any_of(keys.begin(), keys.end(), [](const auto& entry) { return !is_group_key(entry.first); }))
        out.push_back({layer.node, true});
    }
    return out;
  }

 private:
  // The same for all ways to write a path.
  static std::filesystem::path place_of(const std::string& origin) { return std::filesystem::weakly_canonical(origin); }

  // `within`: the places of this file and of those that include it.
  void add(const ConfigNode& node, const std::string& origin, const IncludeLoader& include,
           const std::set<std::filesystem::path>& within) {
    layers_.push_back({node, false});
    const ConfigNode& includes = node.get("include");
    const std::vector<std::string> names = strings(includes);
    // Of several the last wins, so it comes first here.
    for (auto name = names.rbegin(); name != names.rend(); ++name) {
      if (layers_.size() > kMostIncludes) includes.reject(fmt::format("no more than {} included files in all", kMostIncludes));
      const IncludedFile file = include(*name, origin);
      std::set<std::filesystem::path> deeper = within;
      if (!deeper.insert(place_of(file.origin)).second) includes.reject("no file that includes itself");
      add(file.root, file.origin, include, deeper);
    }
  }

  std::vector<Layer> layers_;
};

std::string text_or(const ConfigNode& node, std::string fallback) {
  return node.is_null() ? std::move(fallback) : node.as_string();
}

// The name behind "!function"; the name that `find` does not know is an error.
template <typename Find>
std::string function_name(const ConfigNode& node, Find find) {
  if (node.is_null()) return {};
  const std::string text = node.as_string();
  if (!text.starts_with(kFunctionTag)) node.reject("!function NAME");
  std::string name = text.substr(kFunctionTag.size());
  if (find(name) == nullptr) {
    const auto names = task_function_names();
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("{}: '{}': no function {}{} for this key", node.where(), node.path(), name, did_you_mean(name, names)))
        .with_hint(fmt::format("Python files of tasks are not run: write a template, or name one of {}", fmt::join(names, ", ")));
  }
  return name;
}

Field read_field(const ConfigNode& node) {
  Field field;
  if (node.is_null()) return field;
  if (node.kind() == ConfigNode::Kind::kMap) {  // of doc_to_choice: the values
    field.kind = Field::Kind::kConstant;
    field.constant = Json::array();
    for (const auto& [key, value] : node.map()) field.constant.push_back(value.to_json());
    return field;
  }
  const Json value = node.to_json();
  if (!value.is_string()) {
    field.kind = Field::Kind::kConstant;
    field.constant = value;
  } else if (node.as_string().starts_with(kFunctionTag)) {
    field.kind = Field::Kind::kFunction;
    field.text = function_name(node, find_document_field);
  } else {
    field.kind = Field::Kind::kTemplate;
    field.text = node.as_string();
  }
  return field;
}

OutputType read_output_type(const ConfigNode& node) {
  constexpr std::array kTypes = {OutputType::kMultipleChoice, OutputType::kLoglikelihood, OutputType::kLoglikelihoodRolling,
                                 OutputType::kGenerateUntil, OutputType::kTokenWindows};
  if (node.is_null()) return OutputType::kGenerateUntil;
  Keys names;
  for (const OutputType type : kTypes) names.emplace_back(to_string(type));
  const std::string name = node.as_choice(names);
  return kTypes[static_cast<size_t>(std::find(names.begin(), names.end(), name) - names.begin())];
}

std::string read_process_results(const ConfigNode& node, OutputType type) {
  std::string name = function_name(node, find_process_results);
  if (name.empty()) return name;
  if (const OutputType scored = scored_output_type(name); scored != type)
    node.reject(fmt::format("a function for output_type: {}; this one is for {}", to_string(type), to_string(scored)));
  return name;
}

Unit read_unit(const ConfigNode& node, Unit fallback) {
  if (node.is_null()) return fallback;
  const std::string name = node.as_choice(Keys{"fraction", "percent", "nats", "none"});
  return name == "fraction" ? Unit::kFraction : name == "percent" ? Unit::kPercent : name == "nats" ? Unit::kNats : Unit::kNone;
}

MetricDefinition read_metric(const ConfigNode& node, const TaskDefinition& task) {
  node.check_keys(Keys{"metric", "aggregation", "higher_is_better", "unit", "headline", "detail", "regexes_to_ignore",
                       "ignore_case", "ignore_punctuation", "ignore_numbers", "hf_evaluate"});
  MetricDefinition metric;
  metric.name = text_or(node.get("metric"), "");
  // exact_match of Hugging Face's evaluate is the function that lm-evaluation-harness has as its own.
  const bool foreign = node.has("hf_evaluate") && node.get("hf_evaluate").as_bool() && metric.name != "exact_match";
  if (const std::string_view reason = foreign ? "hf_evaluate asks for the package evaluate" : why_refused(metric.name);
      !reason.empty() && task.process_results.empty()) {
    throw Error(ErrorKind::kUnsupported,
                fmt::format("{}: the metric '{}' is not computed here: {}", node.where(), metric.name, reason))
        .with_hint("leave it out of metric_list");
  }
  const MetricRow* row = find_metric(metric.name, task.output_type);
  if (row == nullptr && task.process_results.empty() && task.output_type != OutputType::kTokenWindows) {
    node.get("metric").reject(
        fmt::format("a metric of {}: {}", to_string(task.output_type), fmt::join(metric_names(task.output_type), ", ")));
  }
  if (row != nullptr) {
    metric.aggregation = row->aggregation;
    metric.unit = row->unit;
    metric.higher_is_better = row->higher_is_better;
  }
  if (const ConfigNode& aggregation = node.get("aggregation"); !aggregation.is_null()) {
    metric.aggregation = aggregation.as_string();
    if (metric.aggregation.starts_with(kFunctionTag)) {
      const std::string function = function_name(aggregation, find_aggregation_function);
      const auto metrics = aggregated_metrics(function);
      if (std::find(metrics.begin(), metrics.end(), metric.name) == metrics.end()) {
        aggregation.reject(
            fmt::format("another one for the metric '{}': this function gives {}", metric.name, fmt::join(metrics, ", ")));
      }
    } else if (!is_aggregation(metric.aggregation)) {
      aggregation.reject(fmt::format("one of {}", fmt::join(aggregation_names(), ", ")));
    }
  }
  if (node.has("higher_is_better")) metric.higher_is_better = node.get("higher_is_better").as_bool();
  metric.unit = read_unit(node.get("unit"), metric.unit);
  if (node.has("headline")) metric.headline = node.get("headline").as_bool();
  const auto flag = [&](const char* key) { return node.has(key) && node.get(key).as_bool(); };
  metric.detail = flag("detail");
  metric.exact_match = {strings(node.get("regexes_to_ignore")), flag("ignore_case"), flag("ignore_punctuation"),
                        flag("ignore_numbers")};
  return metric;
}

void read_metrics(const ConfigNode& node, TaskDefinition& task) {
  if (node.is_null()) {
    for (const std::string_view name : default_metrics(task.output_type)) {
      const MetricRow& row = *find_metric(name, task.output_type);
      task.metrics.push_back({std::string(name), std::string(row.aggregation), row.unit, row.higher_is_better, false, false, {}});
    }
  } else {
    for (const ConfigNode& metric : node.list()) task.metrics.push_back(read_metric(metric, task));
  }
  // Perplexities stand for themselves; else the first share of right answers is what a task is known by.
  const auto is_headline = [](const MetricDefinition& m) { return m.headline; };
  if (task.output_type == OutputType::kTokenWindows || std::any_of(task.metrics.begin(), task.metrics.end(), is_headline)) return;
  const auto first = std::find_if(task.metrics.begin(), task.metrics.end(),
                                  [](const MetricDefinition& m) { return m.higher_is_better && m.aggregation != "bypass"; });
  if (first != task.metrics.end()) first->headline = true;
}

void read_filters(const ConfigNode& node, TaskDefinition& task) {
  for (const ConfigNode& entry : node.list()) {
    entry.check_keys(Keys{"name", "filter"});
    FilterPipeline pipeline{text_or(entry.get("name"), "none"), {}};
    for (const ConfigNode& step : entry.get("filter").list()) {
      if (step.kind() != ConfigNode::Kind::kMap) step.reject("a map with the key function");
      FilterStep read{text_or(step.get("function"), ""), step.to_json()};
      read.arguments.erase("function");
      with_context(step.where(), [&] { check_filter(read); });
      pipeline.steps.push_back(std::move(read));
    }
    task.filters.push_back(std::move(pipeline));
  }
  if (task.filters.empty()) task.filters.push_back({"none", {{"take_first", Json::object()}}});
}

void read_generation(const ConfigNode& node, TaskDefinition& task) {
  task.until = {task.fewshot_delimiter};
  if (node.is_null()) return;
  node.check_keys(Keys{"until", "do_sample", "temperature", "max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens",
                       "top_p", "top_k"});
  if (node.has("until")) task.until = strings(node.get("until"));
  // Without do_sample a temperature above 0 asks for it; with it and without a temperature, transformers takes 1, and the 50
  // likeliest tokens.
  const bool asked = node.has("do_sample") && node.get("do_sample").as_bool();
  const double temperature = node.has("temperature") ? node.get("temperature").as_double(0) : (asked ? 1.0 : 0.0);
  if ((asked || !node.has("do_sample")) && temperature > 0) {
    task.temperature = temperature;
    if (node.has("top_p")) task.top_p = node.get("top_p").as_double(0);
    task.top_k = node.has("top_k") ? node.get("top_k").as_int64(0, 1 << 30) : 50;
  }
  for (const char* key :
       {"max_completion_tokens", "max_tokens", "max_new_tokens", "max_gen_toks"}) {  // the last that is there wins
    if (node.has(key)) task.max_new_tokens = node.get(key).as_int64(1, 1 << 20);
  }
}

void read_fewshot(const Layers& layers, TaskDefinition& task) {
  FewshotDefinition& fewshot = task.fewshot;
  fewshot = {"default",
             text_or(layers.get("fewshot_split"), ""),
             Json(),
             task.doc_to_text,
             task.doc_to_choice,
             task.doc_to_target,
             task.gen_prefix,
             task.target_delimiter,
             task.fewshot_delimiter};
  const ConfigNode& node = layers.get("fewshot_config");
  if (node.is_null()) return;
  node.check_keys(Keys{"sampler", "split", "samples", "doc_to_text", "doc_to_choice", "doc_to_target", "gen_prefix",
                       "target_delimiter", "fewshot_delimiter"});
  if (node.has("sampler")) fewshot.sampler = node.get("sampler").as_choice(Keys{"default", "first_n"});
  fewshot.split = text_or(node.get("split"), fewshot.split);
  if (node.has("samples")) {
    for (const ConfigNode& sample : node.get("samples").list()) {
      if (sample.kind() != ConfigNode::Kind::kMap) sample.reject("a map of columns");
    }
    fewshot.samples = node.get("samples").to_json();
  }
  const auto field = [&](const char* key, Field& target) {
    if (node.has(key)) target = read_field(node.get(key));
  };
  field("doc_to_text", fewshot.doc_to_text);
  field("doc_to_choice", fewshot.doc_to_choice);
  field("doc_to_target", fewshot.doc_to_target);
  field("gen_prefix", fewshot.gen_prefix);
  fewshot.target_delimiter = text_or(node.get("target_delimiter"), fewshot.target_delimiter);
  fewshot.fewshot_delimiter = text_or(node.get("fewshot_delimiter"), fewshot.fewshot_delimiter);
}

void read_data(const Layers& layers, TaskDefinition& task) {
  task.dataset_path = text_or(layers.get("dataset_path"), "");
  task.dataset_name = text_or(layers.get("dataset_name"), "");
  const ConfigNode& files = layers.get("dataset_kwargs").get("data_files");
  if (files.kind() == ConfigNode::Kind::kMap) {
    for (const auto& [split, file] : files.map()) task.data_files[split] = file.as_string();
  } else if (!files.is_null()) {
    task.data_files["train"] = files.as_string();  // as Hugging Face's loaders take a single file
  }
  for (const auto& [column, value] : layers.get("row_filter").map()) task.row_filter[column] = value.as_string();
  task.cluster_column = text_or(layers.get("cluster_column"), "");
  task.document_reader = function_name(layers.get("document_reader"), find_document_reader);
  task.process_docs = function_name(layers.get("process_docs"), find_process_docs);
  task.training_split = text_or(layers.get("training_split"), "");
  task.validation_split = text_or(layers.get("validation_split"), "");
  task.test_split = text_or(layers.get("test_split"), "");
}

void check_task(const TaskDefinition& task, const ConfigNode& node) {
  const bool windows = task.output_type == OutputType::kTokenWindows;
  if (!windows && !task.doc_to_target.is_set()) node.reject("the key doc_to_target");
  if (!windows && !task.doc_to_text.is_set()) node.reject("the key doc_to_text");
  if (task.output_type == OutputType::kMultipleChoice && !task.doc_to_choice.is_set())
    node.reject("the key doc_to_choice with output_type: multiple_choice");
  if (!windows && task.evaluated_split().empty()) node.reject("a test_split or a validation_split");
}

ReadTask read_task(const Layers& layers, const std::string& origin) {
  Json all = Json::array();
  for (const auto& [node, is_override] : layers.layers()) {
    for (const auto& [key, child] : node.map()) {
      if (std::find(kNotDone.begin(), kNotDone.end(), key) == kNotDone.end() || child.is_null()) continue;
      fail(ErrorKind::kUnsupported, "{}: tasks with the key '{}' are not evaluated here", child.where(), key);
    }
    Keys known = kTaskKeys;
    known.insert(known.end(), kNotDone.begin(), kNotDone.end());
    if (is_override) known.insert(known.end(), kGroupKeys.begin(), kGroupKeys.end());
    node.check_keys(known);
    all.push_back(node.to_json());
  }
  TaskDefinition task;
  task.config = Json::object();
  for (const Json& layer : all) task.config.insert(layer.begin(), layer.end());  // the first that has a key decides
  task.config.erase("include");
  task.name = layers.get("task").as_string();
  task.tags = strings(layers.get("tag"));
  task.aliases = strings(layers.top().get("aliases"));
  task.origin = origin;
  task.sha256 = sha256_hex(dump_json(all));
  if (const ConfigNode& version = layers.get("metadata").get("version"); !version.is_null()) task.version = version.as_string();
  read_data(layers, task);
  task.output_type = read_output_type(layers.get("output_type"));
  task.description = read_field(layers.get("description"));
  task.doc_to_text = read_field(layers.get("doc_to_text"));
  task.doc_to_choice = read_field(layers.get("doc_to_choice"));
  task.doc_to_target = read_field(layers.get("doc_to_target"));
  task.gen_prefix = read_field(layers.get("gen_prefix"));
  task.target_delimiter = text_or(layers.get("target_delimiter"), task.target_delimiter);
  task.fewshot_delimiter = text_or(layers.get("fewshot_delimiter"), task.fewshot_delimiter);
  read_fewshot(layers, task);
  if (const ConfigNode& shots = layers.get("num_fewshot"); !shots.is_null()) task.num_fewshot = shots.as_int64(0, 10000);
  if (task.output_type == OutputType::kGenerateUntil) read_generation(layers.get("generation_kwargs"), task);
  if (const ConfigNode& repeats = layers.get("repeats"); !repeats.is_null()) task.repeats = repeats.as_int64(1, 10000);
  task.probe = text_or(layers.get("loglikelihood_of"), "");
  task.process_results = read_process_results(layers.get("process_results"), task.output_type);
  read_filters(layers.get("filter_list"), task);
  read_metrics(layers.get("metric_list"), task);
  check_task(task, layers.top());
  return {std::make_shared<const TaskDefinition>(std::move(task)), {layers.layers(), origin}};
}

std::vector<GroupMetric> read_group_metrics(const ConfigNode& node) {
  std::vector<GroupMetric> out;
  const auto read = [&](const ConfigNode& entry) {
    entry.check_keys(Keys{"metric", "aggregation", "weight_by_size", "filter_list"});
    if (entry.has("aggregation")) entry.get("aggregation").as_choice(Keys{"mean"});
    out.push_back({entry.get("metric").as_string(), strings(entry.get("filter_list")),
                   !entry.has("weight_by_size") || entry.get("weight_by_size").as_bool()});
  };
  if (node.kind() == ConfigNode::Kind::kMap) {
    read(node);
  } else {
    for (const ConfigNode& entry : node.list()) read(entry);
  }
  return out;
}

std::shared_ptr<const GroupSource> read_group(const ConfigNode& node, const std::string& origin, const IncludeLoader& include,
                                              const std::vector<Layer>& outer, TaskFile& out);

// `overrides`: of the groups around it.
GroupMember read_member(const ConfigNode& node, const std::string& origin, const IncludeLoader& include,
                        const std::vector<Layer>& overrides, TaskFile& out) {
  GroupMember member;
  if (node.kind() == ConfigNode::Kind::kScalar) {
    member.name = node.as_string();
    return member;
  }
  const bool is_group = node.has("group");
  if (!is_group && !node.has("task")) node.reject("a name, or a map with the key task or group");
  member.name = node.get(is_group ? "group" : "task").as_string();
  if (is_group && node.has("task")) {
    member.group = read_group(node, origin, include, overrides, out);
    return member;
  }
  const Layers layers(node, origin, include);
  if (!is_group && !layers.get("doc_to_text").is_null() && !layers.get("doc_to_target").is_null()) {
    std::vector<Layer> all = layers.layers();
    all.insert(all.end(), overrides.begin(), overrides.end());
    member.task = std::make_shared<const ReadTask>(read_task(Layers(std::move(all)), origin));
    out.tasks.push_back(member.task);
    return member;
  }
  member.overrides = layers.as_overrides();
  return member;
}

std::shared_ptr<const GroupSource> read_group(const ConfigNode& node, const std::string& origin, const IncludeLoader& include,
                                              const std::vector<Layer>& outer, TaskFile& out) {
  const Layers layers(node, origin, include);
  Keys known = kGroupKeys;
  known.insert(known.end(), kTaskKeys.begin(), kTaskKeys.end());
  for (const Layer& layer : layers.layers()) layer.node.check_keys(known);
  GroupSource group{
      layers.get("group").as_string(), {}, layers.as_overrides(), read_group_metrics(layers.get("aggregate_metric_list"))};
  std::vector<Layer> inner = outer;
  inner.insert(inner.end(), group.overrides.begin(), group.overrides.end());
  const ConfigNode& members = layers.get("task");
  if (members.kind() == ConfigNode::Kind::kScalar) {
    group.members.push_back(read_member(members, origin, include, inner, out));
  } else {
    for (const ConfigNode& member : members.list()) group.members.push_back(read_member(member, origin, include, inner, out));
  }
  if (group.members.empty()) (members.is_null() ? node : members).reject("the key task with one or more tasks");
  out.groups.push_back(std::make_shared<const GroupSource>(std::move(group)));
  return out.groups.back();
}

}  // namespace

TaskFile read_task_file(const ConfigNode& root, const std::string& origin, const IncludeLoader& include) {
  TaskFile out;
  if (root.has("group")) {
    read_group(root, origin, include, {}, out);
  } else if (root.has("task")) {
    out.tasks.push_back(std::make_shared<const ReadTask>(read_task(Layers(root, origin, include), origin)));
  }
  return out;
}

ReadTask override_task(const TaskSource& source, const std::vector<TaskSource::Layer>& overrides) {
  std::vector<Layer> layers = overrides;
  layers.insert(layers.end(), source.layers.begin(), source.layers.end());
  return read_task(Layers(std::move(layers)), source.origin);
}

}  // namespace salient::eval
