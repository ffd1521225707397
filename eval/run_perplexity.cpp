#include <chrono>

#include "common/error.h"
#include "common/file.h"
#include "common/hash.h"
#include "eval/divergence.h"
#include "eval/run_task.h"
#include "eval/task_data.h"
#include "models/text/dataset.h"

namespace salient::eval {
namespace {

using Clock = std::chrono::steady_clock;

struct Text {
  std::string text;
  std::string sha256;
};

// Rows are joined by blank lines, as the papers join those of WikiText; any other file is one text.
Text read_text(const std::filesystem::path& file) {
  if (!holds_rows(file)) {
    Text out{read_text_file(file), {}};
    out.sha256 = sha256_hex(out.text);
    return out;
  }
  const models::Dataset data = models::read_dataset(file);
  Text out{{}, data.sha256};
  for (size_t i = 0; i < data.rows.size(); ++i) {
    if (i > 0) out.text += "\n\n";
    out.text += require<std::string>(data.rows[i], "text", fmt::format("{}:{}", file.string(), data.line_numbers[i]));
  }
  return out;
}

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
  if (ln_ratio.stderr_of_mean) out.difference.stderr_of_mean = value * *ln_ratio.stderr_of_mean;
  return out;
}

struct Measured {
  WindowLosses paper;
  WindowLosses llama_cpp;
};

// The llama.cpp protocol differs in its input only where the model wants BOS.
WindowLosses llama_cpp_losses(const LanguageModel& model, const std::string& text, const WindowLosses& paper, const WindowOptions& options) {
  WindowOptions unwatched = options;
  unwatched.watch = {};
  return adds_bos(model) ? window_losses(model, llama_cpp_windows(model, text, options), unwatched) : paper;
}

void add_perplexities(const Measured& measured, const TaskDefinition& task, TaskResult& result) {
  const Perplexity paper = paper_perplexity(measured.paper);
  const Perplexity llama_cpp = llama_cpp_perplexity(measured.llama_cpp);
  Metrics metrics(task, result);
  metrics.add("perplexity", paper.value, paper.tokens);
  metrics.add("perplexity_llama_cpp", llama_cpp.value, llama_cpp.tokens);
}

TaskResult new_result(const LanguageModel& model, const TaskDefinition& task, const TaskRequest& request, const std::filesystem::path& file,
                      const Text& text, const TokenWindows& windows) {
  TaskResult result;
  result.task = std::string(task.name);
  result.file = file.string();
  result.data_sha256 = text.sha256;
  result.settings = {{"limit", request.limit},
                     {"window", windows.window},
                     {"windows", windows.count()},
                     {"protocols", {{"perplexity", "paper: windows without overlap or BOS, every next token, tail dropped"},
                                    {"perplexity_llama_cpp", "llama-perplexity: second half of each window"}}},
                     {"softmax_dtype", "float32"},
                     {"model", describe(model)}};
  return result;
}

}  // namespace

TaskResult run_perplexity(const LanguageModel& model, const LanguageModel* base, const TaskDefinition& task, const TaskRequest& request,
                          const EvaluationOptions& options, const PhaseProgress& progress, TaskResult* base_result) {
  const auto start = Clock::now();
  const std::filesystem::path file = find_split(task, task.evaluated_split(), {request.file, request.splits});
  const Text text = read_text(file);
  const WindowOptions window_options{request.window, request.limit, options.batch_tokens,
                                     [&](int64_t done, int64_t total) { progress("windows", done, total); },
                                     {options.run_observer, task.name}};
  const TokenWindows windows =
      with_context(file.string(), [&] { return paper_windows(model, text.text, window_options); });
  TaskResult result = new_result(model, task, request, file, text, windows);
  const auto finish = [&](TaskResult& r) { r.seconds = std::chrono::duration<double>(Clock::now() - start).count(); };
  if (base == nullptr) {
    Measured measured{window_losses(model, windows, window_options), {}};
    measured.llama_cpp = llama_cpp_losses(model, text.text, measured.paper, window_options);
    add_perplexities(measured, task, result);
    finish(result);
    return result;
  }

  WindowOptions base_options = window_options;
  base_options.window = windows.window;
  if (with_context(file.string(), [&] { return paper_windows(*base, text.text, base_options); }).ids != windows.ids) {
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("{} and its base {} tokenise {} differently: their distributions cannot be compared", model.name, base->name,
                            file.string()))
        .with_hint("compare with the model that this one was made from");
  }
  const PositionComparison comparison = compare_positions(model, *base, windows, window_options);
  const Divergence divergence = summarize(comparison);
  Measured measured{comparison.model, llama_cpp_losses(model, text.text, comparison.model, base_options)};
  Measured base_measured{comparison.base, llama_cpp_losses(*base, text.text, comparison.base, base_options)};
  add_perplexities(measured, task, result);
  TaskResult base_task = new_result(*base, task, request, file, text, windows);
  add_perplexities(base_measured, task, base_task);
  result.metrics[0].base = compare_perplexity(result.metrics[0].value.value, base_task.metrics[0].value.value, divergence.ln_ppl_ratio);
  result.metrics[1].base = compare_perplexity(result.metrics[1].value.value, base_task.metrics[1].value.value, {});

  Metrics metrics(task, result);
  const int64_t n = divergence.positions;
  metrics.add("ln_ppl_ratio", divergence.ln_ppl_ratio, static_cast<int64_t>(comparison.model.losses.size()));
  metrics.add("kl_divergence", divergence.kl, n);
  metrics.add("kl_median", {divergence.kl_median, std::nullopt}, n);
  metrics.add("kl_p99", {divergence.kl_p99, std::nullopt}, n);
  metrics.add("kl_max", {divergence.kl_max, std::nullopt}, n);
  metrics.add("top1_agreement", divergence.same_top, n);
  finish(result);
  if (base_result != nullptr) {
    finish(base_task);
    *base_result = std::move(base_task);
  }
  return result;
}

}  // namespace salient::eval
