#include "eval/read_report.h"

#include <array>
#include <iterator>
#include <limits>
#include <string>

#include "common/error.h"

namespace salient::eval {
namespace {

std::optional<double> optional_number(const Json& json, std::string_view key, std::string_view where) {
  if (!json.contains(key) || json.at(std::string(key)).is_null()) return std::nullopt;
  return require<double>(json, key, where);
}

// JSON has no infinite numbers: a perplexity beyond any number is null.
double number_or_nan(const Json& json, std::string_view key, std::string_view where) {
  if (json.contains(key) && json.at(std::string(key)).is_null()) return std::numeric_limits<double>::quiet_NaN();
  return require<double>(json, key, where);
}

Unit parse_unit(const std::string& name, std::string_view where) {
  for (const Unit unit : {Unit::kFraction, Unit::kPercent, Unit::kNats, Unit::kNone}) {
    if (to_string(unit) == name) return unit;
  }
  fail(ErrorKind::kCorruption, "{}: unknown unit '{}'", where, name);
}

std::optional<Interval> optional_interval(const Json& json, const std::string& key, std::string_view where) {
  const auto low = optional_number(json, key + "_low", where);
  const auto high = optional_number(json, key + "_high", where);
  return low && high ? std::optional(Interval{*low, *high}) : std::nullopt;
}

// What comes of documents in pairs.
void read_comparison(const Json& json, std::string_view where, BaseComparison& out) {
  out.difference_95 = optional_interval(json, "difference", where);
  out.retention_95 = optional_interval(json, "retention", where);
  out.p_value = optional_number(json, "p_value", where);
  out.clustered_stderr = optional_number(json, "difference_clustered_stderr", where);
  out.detectable_difference = optional_number(json, "detectable_difference", where);
  if (json.contains("clusters")) out.clusters = require<int64_t>(json, "clusters", where);
  if (!json.contains("flips")) return;
  const Json& flips = json.at("flips");
  out.flips = Flips{require<int64_t>(flips, "lost", where), require<int64_t>(flips, "gained", where),
                    require<double>(flips, "changed", where), require<double>(flips, "mcnemar_p", where),
                    require<double>(flips, "mcnemar_mid_p", where)};
}

MetricResult metric_from_json(const Json& json, std::string_view where) {
  MetricResult metric;
  metric.metric = require<std::string>(json, "metric", where);
  metric.unit = parse_unit(value_or<std::string>(json, "unit", std::string(to_string(Unit::kNone)), where), where);
  metric.higher_is_better = value_or<bool>(json, "higher_is_better", true, where);
  metric.headline = value_or<bool>(json, "headline", false, where);
  metric.value = {number_or_nan(json, "value", where), optional_number(json, "stderr", where)};
  metric.n = value_or<int64_t>(json, "n", 0, where);
  metric.detail = value_or<bool>(json, "detail", false, where);
  metric.chance = optional_number(json, "chance", where);
  metric.value_95 = optional_interval(json, "value", where);
  if (json.contains("base_value")) {
    BaseComparison base;
    base.base_value = number_or_nan(json, "base_value", where);
    base.difference = {number_or_nan(json, "difference", where), optional_number(json, "difference_stderr", where)};
    if (const auto kept = optional_number(json, "retention", where)) {
      base.retention = Estimate{*kept, optional_number(json, "retention_stderr", where)};
    }
    if (const auto kept = optional_number(json, "retention_above_chance", where)) {
      base.retention_above_chance = Estimate{*kept, optional_number(json, "retention_above_chance_stderr", where)};
    }
    read_comparison(json, where, base);
    metric.base = base;
  }
  return metric;
}

Calibration calibration_from_json(const Json& json, std::string_view where) {
  Calibration out;
  out.n = require<int64_t>(json, "n", where);
  out.fragile = require<double>(json, "fragile", where);
  out.margin = {require<double>(json, "margin", where), optional_number(json, "margin_stderr", where)};
  out.ece = optional_number(json, "ece", where);
  out.ece_change = optional_number(json, "ece_change", where);
  if (const auto change = optional_number(json, "margin_change", where)) {
    out.margin_change = Estimate{*change, optional_number(json, "margin_change_stderr", where)};
  }
  return out;
}

GenerationComparison generations_from_json(const Json& json, std::string_view where) {
  GenerationComparison out;
  out.n = require<int64_t>(json, "n", where);
  out.same = require<double>(json, "same", where);
  out.common_start = require<double>(json, "common_start", where);
  out.length_change = optional_number(json, "length_change", where);
  out.first_difference = optional_number(json, "first_difference", where);
  return out;
}

HealthFlag flag_from_json(const Json& json, std::string_view where) {
  const auto name = require<std::string>(json, "kind", where);
  const std::optional<FlagKind> kind = find_flag_kind(name);
  if (!kind) fail(ErrorKind::kCorruption, "{}: unknown flag '{}'", where, name);
  HealthFlag out{*kind, require<double>(json, "share", where), std::nullopt, require<std::string>(json, "text", where)};
  if (json.contains("document")) out.document = require<int64_t>(json, "document", where);
  return out;
}

ModelResult model_from_json(const Json& json, std::string_view where) {
  ModelResult result;
  result.model = require<std::string>(json, "model", where);
  result.description = value_or<Json>(json, "description", Json::object(), where);
  for (const Json& entry : require<Json>(json, "tasks", where)) {
    TaskResult task;
    task.task = require<std::string>(entry, "task", where);
    task.file = value_or<std::string>(entry, "file", "", where);
    task.data_sha256 = value_or<std::string>(entry, "data_sha256", "", where);
    task.settings = value_or<Json>(entry, "settings", Json::object(), where);
    task.first_prompt = value_or<std::string>(entry, "first_prompt", "", where);
    task.truncated = value_or<int64_t>(entry, "truncated_prompts", 0, where);
    task.hit_limit = value_or<int64_t>(entry, "generations_at_length_limit", 0, where);
    task.seconds = value_or<double>(entry, "seconds", 0.0, where);
    for (const Json& metric : require<Json>(entry, "metrics", where)) task.metrics.push_back(metric_from_json(metric, where));
    if (entry.contains("calibration")) task.calibration = calibration_from_json(entry.at("calibration"), where);
    if (entry.contains("generations")) task.generations = generations_from_json(entry.at("generations"), where);
    for (const Json& flag : value_or<Json>(entry, "flags", Json::array(), where)) task.flags.push_back(flag_from_json(flag, where));
    result.tasks.push_back(std::move(task));
  }
  if (json.contains("throughput")) {
    const Json& found = json.at("throughput");
    Throughput throughput;
    throughput.prompt_tokens_per_second = require<double>(found, "prompt_tokens_per_second", where);
    throughput.generation_tokens_per_second = require<double>(found, "generation_tokens_per_second", where);
    throughput.prompt_tokens = require<int64_t>(found, "prompt_tokens", where);
    throughput.generated_tokens = require<int64_t>(found, "generated_tokens", where);
    throughput.repeats = static_cast<int>(require<int64_t>(found, "repeats", where));
    throughput.threads = static_cast<int>(require<int64_t>(found, "threads", where));
    throughput.disk_bytes = static_cast<uint64_t>(require<int64_t>(found, "weights_disk_bytes", where));
    throughput.memory_bytes = static_cast<uint64_t>(require<int64_t>(found, "weights_memory_bytes", where));
    throughput.peak_rss_bytes = static_cast<uint64_t>(require<int64_t>(found, "peak_rss_bytes", where));
    // Reports of earlier versions lack these.
    throughput.first_token_seconds = value_or<double>(found, "first_token_seconds", 0.0, where);
    throughput.latency_median_seconds = value_or<double>(found, "token_latency_median_seconds", 0.0, where);
    throughput.latency_p95_seconds = value_or<double>(found, "token_latency_p95_seconds", 0.0, where);
    throughput.latency_p99_seconds = value_or<double>(found, "token_latency_p99_seconds", 0.0, where);
    throughput.latency_tokens = value_or<int64_t>(found, "token_latencies", 0, where);
    throughput.bytes_per_token = static_cast<uint64_t>(value_or<int64_t>(found, "bytes_per_token", 0, where));
    throughput.read_bandwidth = value_or<double>(found, "read_bandwidth_bytes_per_second", 0.0, where);
    throughput.bandwidth_share = value_or<double>(found, "bandwidth_share", 0.0, where);
    throughput.no_token_step = value_or<std::string>(found, "no_token_step", "", where);
    result.throughput = throughput;
  }
  return result;
}

void append(ModelResult& all, ModelResult more) {
  if (all.model.empty()) {
    all.model = more.model;
    all.description = more.description;
  }
  all.tasks.insert(all.tasks.end(), std::make_move_iterator(more.tasks.begin()), std::make_move_iterator(more.tasks.end()));
  if (more.throughput) all.throughput = more.throughput;
}

}  // namespace

Evaluation evaluation_from_json(const Json& json, std::string_view where) {
  Evaluation evaluation;
  evaluation.model = model_from_json(require<Json>(json, "model", where), where);
  if (json.contains("base")) evaluation.base = model_from_json(json.at("base"), where);
  for (const Json& entry : value_or<Json>(json, "runtime_costs", Json::array(), where)) {
    RuntimeCost cost;
    cost.activation_bits = static_cast<int>(require<int64_t>(entry, "activation_bits", where));
    cost.kv_bits = static_cast<int>(require<int64_t>(entry, "kv_bits", where));
    cost.file = require<std::string>(entry, "file", where);
    for (const Json& metric : require<Json>(entry, "metrics", where)) cost.metrics.push_back(metric_from_json(metric, where));
    evaluation.runtime_costs.push_back(std::move(cost));
  }
  return evaluation;
}

void append(Evaluation& all, Evaluation more) {
  append(all.model, std::move(more.model));
  if (more.base) {
    if (!all.base) all.base.emplace();
    append(*all.base, std::move(*more.base));
  }
  std::move(more.runtime_costs.begin(), more.runtime_costs.end(), std::back_inserter(all.runtime_costs));
}

}  // namespace salient::eval
