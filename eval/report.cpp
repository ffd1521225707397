#include "eval/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "common/table.h"
#include "eval/language_model.h"

namespace salient::eval {
namespace {

constexpr double kTwoSided95 = 1.96;

void put(Json& object, const char* key, const std::optional<double>& value) {
  if (value) object[key] = *value;
}

Json metric_json(const MetricResult& metric) {
  Json out = {{"metric", metric.metric},
              {"value", metric.value.value},
              {"n", metric.n},
              {"unit", std::string(to_string(metric.unit))},
              {"higher_is_better", metric.higher_is_better},
              {"headline", metric.headline}};
  put(out, "stderr", metric.value.stderr_of_mean);
  put(out, "chance", metric.chance);
  if (metric.base) {
    out["base_value"] = metric.base->base_value;
    out["difference"] = metric.base->difference.value;
    put(out, "difference_stderr", metric.base->difference.stderr_of_mean);
    if (metric.base->retention) {
      out["retention"] = metric.base->retention->value;
      put(out, "retention_stderr", metric.base->retention->stderr_of_mean);
    }
    if (metric.base->retention_above_chance) {
      out["retention_above_chance"] = metric.base->retention_above_chance->value;
      put(out, "retention_above_chance_stderr", metric.base->retention_above_chance->stderr_of_mean);
    }
  }
  return out;
}

// Four decimals, or four significant digits where these would show nothing.
std::string number(double value) {
  if (value != 0 && std::abs(value) < 0.01) return fmt::format("{:.3g}", value);
  if (std::abs(value) >= 1000) return fmt::format("{:.1f}", value);
  return fmt::format("{:.4f}", value);
}
std::string number(const std::optional<double>& value) { return value ? number(*value) : ""; }

std::string percent(const std::optional<Estimate>& ratio) {
  if (!ratio) return "";
  if (!ratio->stderr_of_mean) return fmt::format("{:.1f} %", 100 * ratio->value);
  return fmt::format("{:.1f} +- {:.1f} %", 100 * ratio->value, 100 * *ratio->stderr_of_mean);
}

std::string with_error(const Estimate& estimate) {
  if (!estimate.stderr_of_mean) return fmt::format("{}{}", estimate.value > 0 ? "+" : "", number(estimate.value));
  return fmt::format("{}{} +- {}", estimate.value > 0 ? "+" : "", number(estimate.value), number(*estimate.stderr_of_mean));
}

std::string megabytes(uint64_t bytes) { return fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6); }

std::string throughput_table(const Evaluation& evaluation) {
  std::vector<std::vector<std::string>> rows;
  const auto add = [&](const ModelResult& model, std::string role) {
    if (!model.throughput) return;
    if (const std::string bits = runtime_text(model.description); !bits.empty()) role += fmt::format(" ({})", bits);
    const Throughput& t = *model.throughput;
    rows.push_back({role, megabytes(t.disk_bytes), megabytes(t.memory_bytes), megabytes(t.peak_rss_bytes),
                    fmt::format("{:.0f}", t.prompt_tokens_per_second), fmt::format("{:.0f}", t.generation_tokens_per_second),
                    std::to_string(t.threads)});
  };
  add(evaluation.model, "model");
  if (evaluation.base) add(*evaluation.base, "base");
  if (rows.empty()) return "";
  return "\n" + format_table({"", "weights on disk", "in memory", "process peak", "prompt tokens/s", "generation tokens/s", "threads"}, rows);
}

// Empty without any.
std::string runtime_cost_table(const std::vector<RuntimeCost>& costs) {
  if (costs.empty()) return "";
  std::vector<std::vector<std::string>> rows;
  for (const RuntimeCost& cost : costs) {
    const auto value = [&](std::string_view name, double factor = 1.0) {
      const MetricResult* metric = cost.find(name);
      return metric == nullptr ? std::string() : number(factor * metric->value.value);
    };
    rows.push_back({fmt::format("a{} kv{}", cost.activation_bits, cost.kv_bits), value("perplexity"), value("ln_ppl_ratio", 100.0), value("kl_divergence"),
                    value("kl_p99"), value("top1_agreement", 100.0)});
  }
  return fmt::format("\nWhat 8 bits cost while it runs, against the same weights with 16 (a16 kv16), on {}:\n", costs.front().file) +
         format_table({"activations, KV cache", "perplexity", "100 x ln ratio", "mean KL, nats", "99 % of KL", "same top token, %"}, rows);
}

// A figure that is 0 for both models says nothing; the table leaves it out and says so, JSON and the store keep it.
bool is_empty(const MetricResult& metric) { return metric.value.value == 0 && (!metric.base || metric.base->base_value == 0); }

bool is_significant_loss(const MetricResult& metric) {
  if (!metric.base || !metric.base->difference.stderr_of_mean) return false;
  const double loss = metric.higher_is_better ? -metric.base->difference.value : metric.base->difference.value;
  return loss > kTwoSided95 * *metric.base->difference.stderr_of_mean;
}

std::string join(const std::vector<std::string>& parts, std::string_view separator) {
  return fmt::format("{}", fmt::join(parts, separator));
}

// "demo_awq", "demo_awq (a8 kv8)".
std::string with_bits(const ModelResult& model) {
  const std::string bits = runtime_text(model.description);
  return bits.empty() ? model.model : fmt::format("{} ({})", model.model, bits);
}

std::string verdict_alone(const ModelResult& model) {
  std::vector<std::string> parts;
  for (const TaskResult& task : model.tasks) {
    if (const MetricResult* perplexity = task.find("perplexity")) parts.push_back(fmt::format("perplexity {}", number(perplexity->value.value)));
    for (const MetricResult& metric : task.metrics) {
      if (metric.headline) parts.push_back(fmt::format("{} {} {}", task.task, metric.metric, number(metric.value.value)));
    }
  }
  return parts.empty() ? with_bits(model) + ": nothing was measured." : fmt::format("{}: {}.", with_bits(model), join(parts, ", "));
}

}  // namespace

Json to_json(const DocumentRecord& document) {
  Json scores = Json::object();
  for (const Score& score : document.scores) scores[std::string(score.metric)] = score.value;
  Json out = {{"line", document.line}, {"answer", document.answer}, {"scores", scores}};
  if (!document.response.log_probs.empty()) out["log_probs"] = document.response.log_probs;
  if (!document.response.text.empty()) out["text"] = document.response.text;
  if (document.response.turn != document.response.text) out["turn"] = document.response.turn;
  if (!document.response.is_greedy.empty()) out["is_greedy"] = document.response.is_greedy;
  for (const auto& [filter, text] : document.extracted) out["extracted"][filter] = text;
  return out;
}

Json to_json(const ModelResult& result) {
  Json tasks = Json::array();
  for (const TaskResult& task : result.tasks) {
    Json metrics = Json::array();
    for (const MetricResult& metric : task.metrics) metrics.push_back(metric_json(metric));
    Json entry = {{"task", task.task},         {"file", task.file},           {"data_sha256", task.data_sha256},
                  {"settings", task.settings}, {"metrics", std::move(metrics)}, {"seconds", task.seconds}};
    if (!task.first_prompt.empty()) entry["first_prompt"] = task.first_prompt;
    if (task.truncated > 0) entry["truncated_prompts"] = task.truncated;
    if (task.hit_limit > 0) entry["generations_at_length_limit"] = task.hit_limit;
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
                         {"peak_rss_bytes", t.peak_rss_bytes}};
  }
  return out;
}

Json to_json(const Evaluation& evaluation) {
  Json out = {{"model", to_json(evaluation.model)}, {"verdict", verdict(evaluation)}, {"version", SALIENT_VERSION}};
  if (evaluation.base) out["base"] = to_json(*evaluation.base);
  for (const RuntimeCost& cost : evaluation.runtime_costs) {
    Json metrics = Json::array();
    for (const MetricResult& metric : cost.metrics) metrics.push_back(metric_json(metric));
    out["runtime_costs"].push_back(
        {{"activation_bits", cost.activation_bits}, {"kv_bits", cost.kv_bits}, {"file", cost.file}, {"metrics", std::move(metrics)}});
  }
  return out;
}

std::string to_table(const Evaluation& evaluation) {
  std::vector<std::string> titles = {"task", "metric", "value", "stderr", "n"};
  const std::string bits = runtime_text(evaluation.model.description);
  if (!bits.empty()) titles[2] += fmt::format(" ({})", bits);
  if (evaluation.base) titles.insert(titles.end(), {"base", "difference", "retained"});
  std::vector<std::vector<std::string>> rows;
  std::string left_out;
  for (const TaskResult& task : evaluation.model.tasks) {
    std::string name = task.task;
    for (const MetricResult& metric : task.metrics) {
      if (is_empty(metric) && !metric.headline) {
        left_out += fmt::format("{}{} {}", left_out.empty() ? "" : ", ", task.task, metric.metric);
        continue;
      }
      rows.push_back({std::exchange(name, ""), metric.metric, number(metric.value.value), number(metric.value.stderr_of_mean), std::to_string(metric.n)});
      if (metric.base) {
        rows.back().insert(rows.back().end(),
                           {number(metric.base->base_value), with_error(metric.base->difference), percent(metric.base->retention)});
      }
    }
  }
  std::string out = format_table(titles, rows);
  if (!left_out.empty()) out += fmt::format("0 for every model, not shown: {}\n", left_out);
  return out + runtime_cost_table(evaluation.runtime_costs) + throughput_table(evaluation);
}

std::string verdict(const Evaluation& evaluation) {
  if (!evaluation.base) return verdict_alone(evaluation.model);
  std::vector<double> kept;
  std::vector<std::string> losses;
  std::vector<std::string> distribution;
  for (const TaskResult& task : evaluation.model.tasks) {
    for (const MetricResult& metric : task.metrics) {
      if (!metric.headline || !metric.base) continue;
      if (metric.base->retention) kept.push_back(metric.base->retention->value);
      if (is_significant_loss(metric)) {
        losses.push_back(fmt::format("{} {} {} -> {}", task.task, metric.metric, number(metric.base->base_value), number(metric.value.value)));
      }
    }
    const MetricResult* kl = task.find("kl_divergence");
    const MetricResult* top = task.find("top1_agreement");
    if (kl != nullptr && top != nullptr) {
      distribution.push_back(fmt::format("mean KL {:.3g} nats, the same top token at {:.1f} % of positions", kl->value.value, 100 * top->value.value));
    }
  }
  std::string out = with_bits(evaluation.model);
  if (!kept.empty()) {
    double sum = 0;
    for (const double k : kept) sum += k;
    out += fmt::format(" keeps {:.1f} % of the scores of {} on average over {} task{}", 100 * sum / static_cast<double>(kept.size()),
                       with_bits(*evaluation.base), kept.size(), kept.size() == 1 ? "" : "s");
    out += losses.empty() ? "; no loss is larger than chance explains (95 %)" : "; real losses (95 %): " + join(losses, ", ");
  } else {
    out += " against " + with_bits(*evaluation.base);
  }
  if (!distribution.empty()) out += (kept.empty() ? ": " : "; ") + join(distribution, "; ");
  return out + ".";
}

}  // namespace salient::eval
