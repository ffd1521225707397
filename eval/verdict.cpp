#include "eval/verdict.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "eval/figure_text.h"

namespace salient::eval {
namespace {

enum class Outcome {
  kNoLoss,  // and enough documents to have seen one
  kLoss,
  kGain,
  kTooFew,
  kUntested  // no base, or no documents to compare in pairs
};

struct JudgedTask {
  const TaskResult* task = nullptr;
  const MetricResult* metric = nullptr;  // by which it is judged; null: none, or broken
  Outcome outcome = Outcome::kUntested;
};

bool is_text_task(const TaskResult& task) { return task.settings.contains("windows"); }

// A share of right answers, in points, rather than a figure of its own scale.
bool is_share(const MetricResult& metric) { return metric.unit == Unit::kFraction || metric.unit == Unit::kPercent; }

const MetricResult* judged_metric(const TaskResult& task) {
  if (is_text_task(task)) return nullptr;
  const auto headline = std::find_if(task.metrics.begin(), task.metrics.end(), [](const MetricResult& m) { return m.headline; });
  if (headline != task.metrics.end()) return &*headline;
  const bool only_low =
      std::none_of(task.metrics.begin(), task.metrics.end(), [](const MetricResult& m) { return m.higher_is_better; });
  return only_low && !task.metrics.empty() ? &task.metrics.front() : nullptr;
}

// From the metric's unit to points or to percent of the base.
double in_points(const MetricResult& metric, double difference) {
  return is_share(metric) ? 100 / scale_of(metric.unit) * difference : 100 * difference / metric.base->base_value;
}
std::string unit_text(const MetricResult& metric) { return is_share(metric) ? "points" : "%"; }

Outcome outcome_of(const MetricResult& metric, double adjusted_p) {
  const BaseComparison& base = *metric.base;
  if (adjusted_p < kVerdictRisk) return (base.difference.value > 0) == metric.higher_is_better ? Outcome::kGain : Outcome::kLoss;
  if (!base.detectable_difference) return Outcome::kTooFew;
  return std::abs(in_points(metric, *base.detectable_difference)) > 100 * kTellingLoss ? Outcome::kTooFew : Outcome::kNoLoss;
}

std::vector<JudgedTask> judge(const ModelResult& model) {
  std::vector<JudgedTask> out;
  std::vector<size_t> tested;
  std::vector<double> p_values;
  for (const TaskResult& task : model.tasks) {
    out.push_back({&task, judged_metric(task), Outcome::kUntested});
    const MetricResult* metric = out.back().metric;
    if (metric == nullptr || !metric->base || !metric->base->p_value) continue;
    tested.push_back(out.size() - 1);
    p_values.push_back(*metric->base->p_value);
  }
  const std::vector<double> adjusted = holm_adjusted(p_values);
  for (size_t i = 0; i < tested.size(); ++i) out[tested[i]].outcome = outcome_of(*out[tested[i]].metric, adjusted[i]);
  return out;
}

// "-2.1 ± 0.9 points", "+1.2 ± 0.3 %"
std::string change_text(const MetricResult& metric) {
  std::string text = fmt::format("{:+.1f}", in_points(metric, metric.base->difference.value));
  if (const auto& bounds = metric.base->difference_95)
    text += fmt::format(" ± {:.1f}", in_points(metric, bounds->high - bounds->low) / 2);
  return fmt::format("{} {}", text, unit_text(metric));
}

std::string detectable_text(const MetricResult& metric) {
  return fmt::format("{:.1f} {}", std::abs(in_points(metric, metric.base->detectable_difference.value_or(0))), unit_text(metric));
}

std::string too_few_text(const MetricResult& metric) {
  if (!metric.base->detectable_difference) return fmt::format("{} document{}", metric.n, metric.n == 1 ? "" : "s");
  return fmt::format("{} documents can only show losses above {}", metric.n, detectable_text(metric));
}

std::string p_text(double p) { return p < 0.001 ? "p < 0.001" : fmt::format("p = {:.2g}", p); }

// "perplexity -0.24 ± 0.04 %, mean KL 0.00024 nats, the same top token at 98.9 % of positions"; empty for other tasks.
std::string text_task_text(const TaskResult& task) {
  const MetricResult* perplexity = task.find("perplexity");
  if (!is_text_task(task) || perplexity == nullptr) return "";
  if (!perplexity->base) return fmt::format("perplexity {}", number(perplexity->value.value));
  const double base = perplexity->base->base_value;
  std::string text = fmt::format("perplexity {:+.2f}", 100 * perplexity->base->difference.value / base);
  if (const auto& bounds = perplexity->base->difference_95)
    text += fmt::format(" ± {:.2f}", 100 * (bounds->high - bounds->low) / 2 / base);
  text += " %";
  if (const MetricResult* kl = task.find("kl_divergence")) text += fmt::format(", mean KL {:.3g} nats", kl->value.value);
  if (const MetricResult* top = task.find("top1_agreement")) {
    text += fmt::format(", the same top token at {:.1f} % of positions", 100 * top->value.value);
  }
  return text;
}

// "unparsed, cut_by_length"; without NaN, which has its own place.
std::string flags_text(const TaskResult& task) {
  std::string text;
  for (const HealthFlag& flag : task.flags) {
    if (flag.kind != FlagKind::kNanLogits) text += fmt::format("{}{}", text.empty() ? "" : ", ", to_string(flag.kind));
  }
  return text;
}

std::string broken_tasks(const ModelResult& model) {
  std::vector<std::string> names;
  for (const TaskResult& task : model.tasks) {
    if (task.is_broken()) names.push_back(task.task);
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

// The parts of the sentence about tasks that were run on both models.
void add_comparison(const std::vector<JudgedTask>& judged, std::vector<std::string>& parts) {
  int64_t tested = 0;
  int64_t without_loss = 0;
  std::vector<double> kept;
  std::vector<std::string> losses;
  std::vector<std::string> gains;
  std::vector<std::string> too_few;
  for (const auto& [task, metric, outcome] : judged) {
    if (outcome == Outcome::kUntested) continue;
    ++tested;
    if (metric->base->retention) kept.push_back(metric->base->retention->value);
    if (outcome == Outcome::kNoLoss || outcome == Outcome::kGain) ++without_loss;
    if (outcome == Outcome::kLoss) losses.push_back(fmt::format("{} {}", task->task, change_text(*metric)));
    if (outcome == Outcome::kGain) gains.push_back(fmt::format("{} {}", task->task, change_text(*metric)));
    if (outcome == Outcome::kTooFew) too_few.push_back(fmt::format("{} ({})", task->task, too_few_text(*metric)));
  }
  if (without_loss > 0)
    parts.push_back(fmt::format("no measurable loss on {} of {} task{}", without_loss, tested, tested == 1 ? "" : "s"));
  if (!losses.empty()) parts.push_back(fmt::format("measurable loss: {}", fmt::join(losses, ", ")));
  if (!gains.empty()) parts.push_back(fmt::format("measurable gain: {}", fmt::join(gains, ", ")));
  if (!too_few.empty()) parts.push_back(fmt::format("too few documents to tell: {}", fmt::join(too_few, ", ")));
  if (!kept.empty()) {
    parts.push_back(fmt::format("{:.1f} % of the scores kept{}", 100 * mean(kept).value, kept.size() == 1 ? "" : " on average"));
  }
}

std::string line_of(const JudgedTask& judged) {
  const auto& [task, metric, outcome] = judged;
  if (task->is_broken()) return fmt::format("broken: {}", task->flags.front().text);
  if (const std::string text = text_task_text(*task); !text.empty()) return text;
  const MetricResult* shown = metric != nullptr ? metric : task->metrics.empty() ? nullptr : &task->metrics.front();
  if (shown == nullptr) return "nothing was measured";
  if (!shown->base) return fmt::format("{} {}", shown->metric, number(shown->value.value));
  std::string text = fmt::format("{} {} -> {}", shown->metric, number(shown->base->base_value), number(shown->value.value));
  if (is_share(*shown) || shown->base->base_value != 0) text += fmt::format(", {}", change_text(*shown));
  if (const auto& flips = shown->base->flips)
    text += fmt::format("; {} lost and {} gained of {}", flips->lost, flips->gained, shown->n);
  if (shown->base->p_value) text += fmt::format(", {}", p_text(*shown->base->p_value));
  switch (outcome) {
    case Outcome::kNoLoss: text += fmt::format(": no measurable loss; one above {} would show", detectable_text(*shown)); break;
    case Outcome::kLoss: text += ": measurable loss"; break;
    case Outcome::kGain: text += ": measurable gain"; break;
    case Outcome::kTooFew: text += fmt::format(": too few to tell; {}", too_few_text(*shown)); break;
    case Outcome::kUntested: break;
  }
  return text;
}

}  // namespace

std::string verdict(const Evaluation& evaluation) {
  const std::vector<JudgedTask> judged = judge(evaluation.model);
  std::vector<std::string> parts;
  if (const std::string names = broken_tasks(evaluation.model); !names.empty()) {
    parts.push_back(fmt::format("broken, NaN or infinite logits and no figures: {}", names));
  }
  if (evaluation.base) {
    if (const std::string names = broken_tasks(*evaluation.base); !names.empty())
      parts.push_back(fmt::format("the base is broken: {}", names));
    add_comparison(judged, parts);
  } else {
    for (const auto& [task, metric, outcome] : judged) {
      if (metric != nullptr) parts.push_back(fmt::format("{} {} {}", task->task, metric->metric, number(metric->value.value)));
    }
  }
  std::vector<std::string> flagged;
  for (const TaskResult& task : evaluation.model.tasks) {
    if (const std::string text = text_task_text(task); !text.empty()) parts.push_back(text);
    if (const std::string flags = flags_text(task); !flags.empty()) flagged.push_back(fmt::format("{} ({})", task.task, flags));
  }
  if (!flagged.empty()) parts.push_back(fmt::format("look at {}", fmt::join(flagged, ", ")));
  const std::string name = evaluation.base ? fmt::format("{} against {}", with_bits(evaluation.model), with_bits(*evaluation.base))
                                           : with_bits(evaluation.model);
  return parts.empty() ? fmt::format("{}: nothing was measured.", name) : fmt::format("{}: {}.", name, fmt::join(parts, "; "));
}

std::vector<std::string> verdict_lines(const Evaluation& evaluation) {
  std::vector<std::string> lines;
  for (const JudgedTask& judged : judge(evaluation.model)) {
    const std::string flags = flags_text(*judged.task);
    lines.push_back(fmt::format("{}: {}{}", judged.task->task, line_of(judged), flags.empty() ? "" : fmt::format(" [{}]", flags)));
  }
  return lines;
}

}  // namespace salient::eval
