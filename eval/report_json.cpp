#include <utility>

#include "eval/report.h"
#include "eval/verdict.h"

namespace salient::eval {
namespace {

void put(Json& object, const char* key, const std::optional<double>& value) {
  if (value) object[key] = *value;
}

void put(Json& object, const std::string& key, const std::optional<Interval>& interval) {
  if (!interval) return;
  object[key + "_low"] = interval->low;
  object[key + "_high"] = interval->high;
}

void put_comparison(Json& out, const BaseComparison& base) {
  out["base_value"] = base.base_value;
  out["difference"] = base.difference.value;
  put(out, "difference_stderr", base.difference.stderr_of_mean);
  put(out, "difference_clustered_stderr", base.clustered_stderr);
  put(out, "difference", base.difference_95);
  if (base.clusters) out["clusters"] = *base.clusters;
  put(out, "p_value", base.p_value);
  put(out, "detectable_difference", base.detectable_difference);
  if (base.retention) {
    out["retention"] = base.retention->value;
    put(out, "retention_stderr", base.retention->stderr_of_mean);
    put(out, "retention", base.retention_95);
  }
  if (base.retention_above_chance) {
    out["retention_above_chance"] = base.retention_above_chance->value;
    put(out, "retention_above_chance_stderr", base.retention_above_chance->stderr_of_mean);
  }
  if (const auto& flips = base.flips) {
    out["flips"] = {{"lost", flips->lost},
                    {"gained", flips->gained},
                    {"changed", flips->changed},
                    {"mcnemar_p", flips->mcnemar_p},
                    {"mcnemar_mid_p", flips->mcnemar_mid_p}};
  }
}

Json metric_json(const MetricResult& metric) {
  Json out = {{"metric", metric.metric},
              {"value", metric.value.value},
              {"n", metric.n},
              {"unit", std::string(to_string(metric.unit))},
              {"higher_is_better", metric.higher_is_better},
              {"headline", metric.headline}};
  if (metric.detail) out["detail"] = true;
  put(out, "stderr", metric.value.stderr_of_mean);
  put(out, "value", metric.value_95);
  put(out, "chance", metric.chance);
  if (metric.base) put_comparison(out, *metric.base);
  return out;
}

Json calibration_json(const Calibration& calibration) {
  Json out = {{"n", calibration.n}, {"fragile", calibration.fragile}, {"margin", calibration.margin.value}};
  put(out, "margin_stderr", calibration.margin.stderr_of_mean);
  put(out, "ece", calibration.ece);
  put(out, "ece_change", calibration.ece_change);
  if (calibration.margin_change) {
    out["margin_change"] = calibration.margin_change->value;
    put(out, "margin_change_stderr", calibration.margin_change->stderr_of_mean);
  }
  return out;
}

Json generations_json(const GenerationComparison& generations) {
  Json out = {{"n", generations.n}, {"same", generations.same}, {"common_start", generations.common_start}};
  put(out, "length_change", generations.length_change);
  put(out, "first_difference", generations.first_difference);
  return out;
}

Json flags_json(const std::vector<HealthFlag>& flags) {
  Json out = Json::array();
  for (const HealthFlag& flag : flags) {
    out.push_back({{"kind", std::string(to_string(flag.kind))}, {"share", flag.share}, {"text", flag.text}});
    if (flag.document) out.back()["document"] = *flag.document;
  }
  return out;
}

}  // namespace

Json to_json(const ModelResult& result) {
  Json tasks = Json::array();
  for (const TaskResult& task : result.tasks) {
    Json metrics = Json::array();
    for (const MetricResult& metric : task.metrics) metrics.push_back(metric_json(metric));
    Json entry = {{"task", task.task},
                  {"file", task.file},
                  {"data_sha256", task.data_sha256},
                  {"settings", task.settings},
                  {"metrics", std::move(metrics)},
                  {"seconds", task.seconds}};
    if (!task.first_prompt.empty()) entry["first_prompt"] = task.first_prompt;
    if (task.truncated > 0) entry["truncated_prompts"] = task.truncated;
    if (task.hit_limit > 0) entry["generations_at_length_limit"] = task.hit_limit;
    if (task.calibration) entry["calibration"] = calibration_json(*task.calibration);
    if (task.generations) entry["generations"] = generations_json(*task.generations);
    if (!task.flags.empty()) entry["flags"] = flags_json(task.flags);
    tasks.push_back(std::move(entry));
  }
  Json out = {{"model", result.model}, {"description", result.description}, {"tasks", std::move(tasks)}};
  if (result.throughput) {
    const Throughput& t = *result.throughput;
    out["throughput"] = {{"prompt_tokens_per_second", t.prompt_tokens_per_second},
                         {"generation_tokens_per_second", t.generation_tokens_per_second},
                         {"prompt_tokens", t.prompt_tokens},
                         {"generated_tokens", t.generated_tokens},
                         {"repeats", t.repeats},
                         {"threads", t.threads},
                         {"weights_disk_bytes", t.disk_bytes},
                         {"weights_memory_bytes", t.memory_bytes},
                         {"peak_rss_bytes", t.peak_rss_bytes},
                         {"first_token_seconds", t.first_token_seconds},
                         {"token_latency_median_seconds", t.latency_median_seconds},
                         {"token_latency_p95_seconds", t.latency_p95_seconds},
                         {"token_latency_p99_seconds", t.latency_p99_seconds},
                         {"token_latencies", t.latency_tokens}};
    Json& throughput = out["throughput"];
    if (t.read_bandwidth > 0) throughput["read_bandwidth_bytes_per_second"] = t.read_bandwidth;
    if (t.bytes_per_token > 0) throughput["bytes_per_token"] = t.bytes_per_token;
    if (t.bandwidth_share > 0) throughput["bandwidth_share"] = t.bandwidth_share;
    if (!t.no_token_step.empty()) throughput["no_token_step"] = t.no_token_step;
  }
  return out;
}

Json to_json(const Evaluation& evaluation) {
  Json out = {{"model", to_json(evaluation.model)},
              {"verdict", verdict(evaluation)},
              {"verdict_lines", verdict_lines(evaluation)},
              {"version", SALIENT_VERSION}};
  if (evaluation.base) out["base"] = to_json(*evaluation.base);
  for (const RuntimeCost& cost : evaluation.runtime_costs) {
    Json metrics = Json::array();
    for (const MetricResult& metric : cost.metrics) metrics.push_back(metric_json(metric));
    out["runtime_costs"].push_back({{"activation_bits", cost.activation_bits},
                                    {"kv_bits", cost.kv_bits},
                                    {"file", cost.file},
                                    {"metrics", std::move(metrics)}});
  }
  return out;
}

}  // namespace salient::eval
