#include <chrono>
#include <cmath>
#include <utility>

#include "common/error.h"
#include "eval/divergence.h"
#include "eval/run_task.h"
#include "eval/task_data.h"
#include "eval/window_text.h"

namespace salient::eval {
namespace {

using Clock = std::chrono::steady_clock;

const MetricDefinition& definition_of(const TaskDefinition& task, std::string_view name) {
  for (const MetricDefinition& metric : task.metrics) {
    if (metric.name == name) return metric;
  }
  fail(ErrorKind::kInvalidArgument, "{}: metric_list: a task of windows needs the metric {}", task.origin, name);
}

class Metrics {
 public:
  Metrics(const TaskDefinition& task, TaskResult& result) : task_(task), result_(result) {}
  MetricResult& add(std::string_view name, Estimate value, int64_t n) {
    const MetricDefinition& definition = definition_of(task_, name);
    return result_.metrics.emplace_back(MetricResult{.metric = std::string(name),
                                                     .unit = definition.unit,
                                                     .higher_is_better = definition.higher_is_better,
                                                     .headline = definition.headline,
                                                     .detail = definition.detail,
                                                     .aggregation = "",
                                                     .value = value,
                                                     .n = n,
                                                     .chance = std::nullopt,
                                                     .base = std::nullopt});
  }

 private:
  const TaskDefinition& task_;
  TaskResult& result_;
};

// perplexity - base, its error from the paired ln ratio: d(ppl) = base ppl d(ratio).
BaseComparison compare_perplexity(double value, double base, const Estimate& ln_ratio) {
  BaseComparison out;
  out.base_value = base;
  out.difference = {value - base, std::nullopt};
  if (!ln_ratio.stderr_of_mean) return out;
  const double error = *ln_ratio.stderr_of_mean;
  out.difference.stderr_of_mean = value * error;
  const auto at = [&](double errors) { return base * std::expm1(ln_ratio.value + errors * error); };
  out.difference_95 = Interval{at(-kTwoSided95), at(kTwoSided95)};
  out.p_value = normal_p_value(ln_ratio.value, error);
  out.detectable_difference = base * std::expm1(kDetectable80 * error);
  return out;
}

struct Compared {
  PositionComparison positions;
  WindowLosses llama_cpp;
  WindowLosses base_llama_cpp;
};

// The llama.cpp protocol differs in its input only where the model wants BOS.
WindowLosses llama_cpp_losses(const LanguageModel& model, const std::string& text, const WindowLosses& paper,
                              const WindowOptions& options) {
  WindowOptions unwatched = options;
  unwatched.watch = {};
  return adds_bos(model) ? window_losses(model, llama_cpp_windows(model, text, options), unwatched) : paper;
}

void add_perplexities(const WindowLosses& paper_losses, const WindowLosses& llama_cpp_losses, const TaskDefinition& task,
                      TaskResult& result) {
  const Perplexity paper = paper_perplexity(paper_losses);
  const Perplexity llama_cpp = llama_cpp_perplexity(llama_cpp_losses);
  Metrics metrics(task, result);
  metrics.add("perplexity", paper.value, paper.tokens);
  metrics.add("perplexity_llama_cpp", llama_cpp.value, llama_cpp.tokens);
}

TaskResult new_result(const LanguageModel& model, const TaskDefinition& task, const TaskRequest& request,
                      const std::filesystem::path& file, const WindowText& text, const TokenWindows& windows) {
  TaskResult result;
  result.task = std::string(task.name);
  result.file = file.string();
  result.data_sha256 = text.sha256;
  result.output_type = task.output_type;
  result.config = task.config;
  result.rows = windows.count();
  result.settings = {{"limit", request.limit},
                     {"window", windows.window},
                     {"windows", windows.count()},
                     {"protocols",
                      {{"perplexity", "paper: windows without overlap or BOS, every next token, tail dropped"},
                       {"perplexity_llama_cpp", "llama-perplexity: second half of each window"}}},
                     {"softmax_dtype", "float32"},
                     {"model", describe(model)}};
  return result;
}

// What `body` gives; nothing, and a flag, where the model's logits are NaN or infinite.
template <typename Body>
auto unless_broken(TaskResult& result, Body body) -> std::optional<decltype(body())> {
  try {
    return body();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kCheckFailed) throw;
    result.flags = {{FlagKind::kNanLogits, 1, std::nullopt, error.message()}};
    return std::nullopt;
  }
}

void measure_alone(const LanguageModel& model, const std::string& text, const TokenWindows& windows, const WindowOptions& options,
                   const TaskDefinition& task, TaskResult& result) {
  unless_broken(result, [&] {
    const WindowLosses paper = window_losses(model, windows, options);
    add_perplexities(paper, llama_cpp_losses(model, text, paper, options), task, result);
    return true;
  });
}

}  // namespace

TaskResult run_perplexity(const LanguageModel& model, const LanguageModel* base, const TaskDefinition& task,
                          const TaskRequest& request, const EvaluationOptions& options, const PhaseProgress& progress,
                          TaskResult* base_result) {
  const auto start = Clock::now();
  const std::filesystem::path file = find_split(task, task.evaluated_split(), {request.file, request.splits});
  const WindowText text = read_window_text(file);
  WindowOptions window_options{request.window,
                               request.limit,
                               options.batch_tokens,
                               [&](int64_t done, int64_t total) { progress("windows", done, total); },
                               {options.run_observer, task.name},
                               options.journal,
                               options.base_journal};
  const TokenWindows windows = base != nullptr
                                   ? common_windows(model, *base, text, file, window_options)
                                   : with_context(file.string(), [&] { return paper_windows(model, text.text, window_options); });
  TaskResult result = new_result(model, task, request, file, text, windows);
  const auto finish = [&](TaskResult& r) { r.seconds = std::chrono::duration<double>(Clock::now() - start).count(); };
  if (base == nullptr) {
    measure_alone(model, text.text, windows, window_options, task, result);
    finish(result);
    return result;
  }

  WindowOptions base_options = window_options;
  base_options.window = windows.window;
  WindowOptions of_base = base_options;
  of_base.journal = options.base_journal;
  of_base.watch = {};
  TaskResult base_task = new_result(*base, task, request, file, text, windows);
  const auto both = unless_broken(result, [&] {
    PositionComparison positions = compare_positions(model, *base, windows, window_options);
    WindowLosses model_losses = llama_cpp_losses(model, text.text, positions.model, base_options);
    WindowLosses base_losses = llama_cpp_losses(*base, text.text, positions.base, of_base);
    return Compared{std::move(positions), std::move(model_losses), std::move(base_losses)};
  });
  if (!both) {  // which of both it is shows where each runs alone
    result.flags.clear();
    window_options.watch = {};
    measure_alone(model, text.text, windows, window_options, task, result);
    measure_alone(*base, text.text, windows, of_base, task, base_task);
    finish(result);
    finish(base_task);
    if (base_result != nullptr) *base_result = std::move(base_task);
    return result;
  }
  const PositionComparison& comparison = both->positions;
  const Divergence divergence = summarize(comparison);
  add_perplexities(comparison.model, both->llama_cpp, task, result);
  add_perplexities(comparison.base, both->base_llama_cpp, task, base_task);
  result.metrics[0].base =
      compare_perplexity(result.metrics[0].value.value, base_task.metrics[0].value.value, divergence.ln_ppl_ratio);
  result.metrics[1].base = compare_perplexity(result.metrics[1].value.value, base_task.metrics[1].value.value, {});

  Metrics metrics(task, result);
  const int64_t n = divergence.positions;
  metrics.add("ln_ppl_ratio", divergence.ln_ppl_ratio, static_cast<int64_t>(comparison.model.losses.size()));
  metrics.add("kl_divergence", divergence.kl, n);
  metrics.add("kl_median", {divergence.kl_median, std::nullopt}, n);
  metrics.add("kl_p90", {divergence.kl_p90, std::nullopt}, n);
  metrics.add("kl_p95", {divergence.kl_p95, std::nullopt}, n);
  metrics.add("kl_p99", {divergence.kl_p99, std::nullopt}, n);
  metrics.add("kl_p999", {divergence.kl_p999, std::nullopt}, n);
  metrics.add("kl_max", {divergence.kl_max, std::nullopt}, n);
  metrics.add("top1_agreement", divergence.same_top, n);
  metrics.add("delta_p", divergence.delta_p, divergence.scored);
  metrics.add("delta_p_rms", divergence.delta_p_rms, divergence.scored);
  for (size_t i = 0; i < kDeltaPercentiles.size(); ++i) {
    metrics.add(fmt::format("delta_p_p{}", kDeltaPercentiles[i]), {divergence.delta_p_percentiles[i], std::nullopt},
                divergence.scored);
  }
  finish(result);
  if (base_result != nullptr) {
    finish(base_task);
    *base_result = std::move(base_task);
  }
  return result;
}

}  // namespace salient::eval
