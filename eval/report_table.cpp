#include <fmt/format.h>

#include <utility>
#include <vector>

#include "common/table.h"
#include "eval/figure_text.h"
#include "eval/language_model.h"
#include "eval/report.h"

namespace salient::eval {
namespace {

std::string percent(const std::optional<Estimate>& ratio) { return ratio ? fmt::format("{:.1f} %", 100 * ratio->value) : ""; }

std::string with_sign(double value) { return fmt::format("{}{}", value > 0 ? "+" : "", number(value)); }

// "-0.0250 to +0.0150"
std::string bounds(const std::optional<Interval>& interval) {
  return interval ? fmt::format("{} to {}", with_sign(interval->low), with_sign(interval->high)) : "";
}

std::string bounds_of(const Estimate& estimate) {
  if (!estimate.stderr_of_mean) return "";
  const double half = kTwoSided95 * *estimate.stderr_of_mean;
  return fmt::format("{} to {}", number(estimate.value - half), number(estimate.value + half));
}

std::string p_value(const std::optional<double>& p) { return !p ? "" : *p < 0.001 ? "<0.001" : fmt::format("{:.3f}", *p); }

std::string flips(const std::optional<Flips>& flips) { return flips ? fmt::format("{} / {}", flips->lost, flips->gained) : ""; }

std::string megabytes(uint64_t bytes) { return fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6); }

std::string milliseconds(double seconds) { return seconds > 0 ? fmt::format("{:.3g}", 1000 * seconds) : "-"; }

std::string throughput_table(const Evaluation& evaluation) {
  std::vector<std::vector<std::string>> rows;
  std::vector<std::vector<std::string>> waits;
  const auto add = [&](const ModelResult& model, std::string role) {
    if (!model.throughput) return;
    if (const std::string bits = runtime_text(model.description); !bits.empty()) role += fmt::format(" ({})", bits);
    const Throughput& t = *model.throughput;
    rows.push_back({role, megabytes(t.disk_bytes), megabytes(t.memory_bytes), megabytes(t.peak_rss_bytes),
                    fmt::format("{:.0f}", t.prompt_tokens_per_second), fmt::format("{:.0f}", t.generation_tokens_per_second),
                    std::to_string(t.threads)});
    waits.push_back({role, milliseconds(t.first_token_seconds), milliseconds(t.latency_median_seconds),
                     milliseconds(t.latency_p95_seconds), milliseconds(t.latency_p99_seconds), std::to_string(t.latency_tokens),
                     t.bytes_per_token > 0 ? megabytes(t.bytes_per_token) : "-",
                     t.bandwidth_share > 0 ? fmt::format("{:.0f} %", 100 * t.bandwidth_share) : "-"});
  };
  add(evaluation.model, "model");
  if (evaluation.base) add(*evaluation.base, "base");
  if (rows.empty()) return "";
  return "\n" +
         format_table({"", "weights on disk", "in memory", "process peak", "prompt tokens/s", "generation tokens/s", "threads"},
                      rows) +
         "\n" +
         format_table({"", "first token, ms", "token, ms: median", "95 %", "99 %", "tokens", "bytes a token", "of the bandwidth"},
                      waits);
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
    rows.push_back({fmt::format("a{} kv{}", cost.activation_bits, cost.kv_bits), value("perplexity"), value("ln_ppl_ratio", 100.0),
                    value("kl_divergence"), value("kl_p99"), value("top1_agreement", 100.0)});
  }
  return fmt::format("\nWhat 8 bits cost while it runs, against the same weights with 16 (a16 kv16), on {}:\n",
                     costs.front().file) +
         format_table({"activations, KV cache", "perplexity", "100 x ln ratio", "mean KL, nats", "99 % of KL", "same top token, %"},
                      rows);
}

// A figure that is 0 for both models says nothing; the table leaves it out and says so, JSON and the store keep it.
bool is_empty(const MetricResult& metric) { return metric.value.value == 0 && (!metric.base || metric.base->base_value == 0); }

}  // namespace

std::string to_table(const Evaluation& evaluation) {
  std::vector<std::string> titles = {"task", "metric", "value"};
  const std::string bits = runtime_text(evaluation.model.description);
  if (!bits.empty()) titles[2] += fmt::format(" ({})", bits);
  if (evaluation.base) {
    titles.insert(titles.end(), {"base", "difference", "95 %", "retained", "lost / gained", "p", "n"});
  } else {
    titles.insert(titles.end(), {"stderr", "n"});
  }
  std::vector<std::vector<std::string>> rows;
  std::string left_out;
  std::string flags;
  for (const TaskResult& task : evaluation.model.tasks) {
    std::string name = task.task;
    for (const HealthFlag& flag : task.flags) flags += fmt::format("! {}: {}: {}\n", task.task, to_string(flag.kind), flag.text);
    if (task.is_broken()) rows.push_back({std::exchange(name, ""), "broken"});
    for (const MetricResult& metric : task.metrics) {
      if (metric.detail) continue;
      if (is_empty(metric) && !metric.headline) {
        left_out += fmt::format("{}{} {}", left_out.empty() ? "" : ", ", task.task, metric.metric);
        continue;
      }
      std::vector<std::string>& row =
          rows.emplace_back(std::vector{std::exchange(name, ""), metric.metric, number(metric.value.value)});
      if (!evaluation.base) {
        row.push_back(number(metric.value.stderr_of_mean));
      } else if (const auto& base = metric.base) {
        row.insert(row.end(), {number(base->base_value), with_sign(base->difference.value), bounds(base->difference_95),
                               percent(base->retention), flips(base->flips), p_value(base->p_value)});
      } else {  // a figure that compares both models by itself
        row.insert(row.end(), {"", "", bounds_of(metric.value), "", "", ""});
      }
      row.push_back(std::to_string(metric.n));
    }
  }
  std::string out = format_table(titles, rows);
  if (!left_out.empty()) out += fmt::format("0 for every model, not shown: {}\n", left_out);
  if (!flags.empty()) out += "\n" + flags;
  return out + runtime_cost_table(evaluation.runtime_costs) + throughput_table(evaluation);
}

}  // namespace salient::eval
