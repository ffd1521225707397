#include "eval/run_task.h"

#include <algorithm>
#include <chrono>

#include "common/error.h"
#include "eval/generate_until.h"
#include "eval/loglikelihood.h"

namespace salient::eval {
namespace {

using Clock = std::chrono::steady_clock;

double scale_of(Unit unit) { return unit == Unit::kPercent ? 100.0 : 1.0; }

Estimate scaled(Estimate estimate, double factor) {
  estimate.value *= factor;
  if (estimate.stderr_of_mean) *estimate.stderr_of_mean *= factor;
  return estimate;
}

std::string render_prompt(const LanguageModel& model, const std::string& text, bool chat) {
  if (!chat) return text;
  if (!model.chat_template) {
    throw Error(ErrorKind::kInvalidArgument, fmt::format("{}: a chat template is wanted, but {} has none", model.name, model.folder.string()))
        .with_hint("evaluate without the chat template");
  }
  OrderedJson message = OrderedJson::object();
  message["role"] = "user";
  message["content"] = text;
  models::ChatRenderOptions render;
  render.add_generation_prompt = true;
  render.variables["strftime_now"] = models::kFixedTemplateDate;
  return model.chat_template->render(OrderedJson::array({message}), render);
}

// Every value that a metric has over the documents; those that it does not concern have none.
std::vector<double> values_of(const std::vector<DocumentRecord>& documents, const std::string& metric) {
  std::vector<double> values;
  for (const DocumentRecord& document : documents) {
    if (const auto value = document.score(metric)) values.push_back(*value);
  }
  return values;
}

double mean_chance(const std::vector<DocumentRecord>& documents) {
  double sum = 0;
  for (const DocumentRecord& document : documents) sum += document.chance;
  return sum / static_cast<double>(documents.size());
}

void aggregate(const TaskDefinition& task, TaskResult& result) {
  std::vector<SetScore> set_scores;
  if (task.score_set != nullptr) set_scores = task.score_set(result.documents);
  const double chance = mean_chance(result.documents);
  for (const MetricDefinition& definition : task.metrics) {
    MetricResult metric{.metric = std::string(definition.name),
                        .unit = definition.unit,
                        .higher_is_better = definition.higher_is_better,
                        .headline = definition.headline,
                        .value = {},
                        .n = 0,
                        .chance = std::nullopt,
                        .base = std::nullopt};
    const auto set = std::find_if(set_scores.begin(), set_scores.end(), [&](const SetScore& s) { return s.metric == definition.name; });
    if (set != set_scores.end()) {
      metric.value.value = set->value * scale_of(definition.unit);
      metric.n = static_cast<int64_t>(result.documents.size());
    } else {
      const auto values = values_of(result.documents, metric.metric);
      metric.n = static_cast<int64_t>(values.size());
      // As in the reference: a group without documents scores 0.
      if (!values.empty()) metric.value = scaled(mean(values), scale_of(definition.unit));
      if (chance > 0) metric.chance = chance * scale_of(definition.unit);
    }
    result.metrics.push_back(std::move(metric));
  }
}

void run_choices(const LanguageModel& model, const TaskDefinition& task, const std::vector<std::string>& prompts, const models::Dataset& data,
                 const std::vector<std::string>& where, const EvaluationOptions& options, const PhaseProgress& progress, TaskResult& result) {
  std::vector<LikelihoodRequest> requests;
  std::vector<size_t> counts;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const Choices choices = task.choices(data.rows[i], where[i]);
    const std::string delimiter = options.apply_chat_template ? "" : std::string(kTargetDelimiter);
    for (const std::string& text : choices.texts) requests.push_back({prompts[i], delimiter + text, where[i]});
    counts.push_back(choices.texts.size());
    result.documents[i].answer = choices.texts[choices.gold];
    result.documents[i].chance = 1.0 / static_cast<double>(choices.texts.size());
  }
  const auto scores = loglikelihood(model, requests,
                                    {options.batch_tokens, [&](int64_t done, int64_t total) { progress("log-likelihoods", done, total); },
                                     {options.run_observer, task.name}});
  for (size_t i = 0, at = 0; i < prompts.size(); ++i) {
    for (size_t c = 0; c < counts[i]; ++c) result.documents[i].response.log_probs.push_back(scores[at++].log_prob);
  }
}

void run_generations(const LanguageModel& model, const TaskDefinition& task, const std::vector<std::string>& prompts, const models::Dataset& data,
                     const std::vector<std::string>& where, const EvaluationOptions& options, const PhaseProgress& progress, TaskResult& result) {
  std::vector<GenerationRequest> requests;
  for (size_t i = 0; i < prompts.size(); ++i) {
    requests.push_back({prompts[i], where[i]});
    result.documents[i].answer = task.answer(data.rows[i], where[i]);
  }
  GenerateUntilOptions generation;
  generation.stop.assign(task.stop.begin(), task.stop.end());
  generation.max_new_tokens = options.max_new_tokens > 0 ? options.max_new_tokens : task.max_new_tokens;
  generation.cache_bytes = options.generation_cache_bytes;
  generation.watch = {options.run_observer, task.name};
  generation.progress = [&](int64_t done, int64_t total) { progress("generations", done, total); };
  const auto texts = generate_until(model, requests, generation);
  for (size_t i = 0; i < prompts.size(); ++i) {
    result.documents[i].response.text = texts[i].text;
    result.documents[i].response.turn = texts[i].turn;
    result.hit_limit += texts[i].hit_limit ? 1 : 0;
    result.truncated += texts[i].truncated ? 1 : 0;
  }
  if (task.probe.empty()) return;
  std::vector<LikelihoodRequest> probes;
  for (size_t i = 0; i < prompts.size(); ++i) probes.push_back({prompts[i], std::string(task.probe), where[i]});
  const auto scores = loglikelihood(model, probes, {options.batch_tokens, [&](int64_t done, int64_t total) { progress("log-likelihoods", done, total); }, {}});
  for (size_t i = 0; i < prompts.size(); ++i) result.documents[i].response.log_probs = {scores[i].log_prob};
}

}  // namespace

TaskResult run_documents(const LanguageModel& model, const TaskDefinition& task, const models::Dataset& data, const TaskRequest& request,
                         const EvaluationOptions& options, const PhaseProgress& progress) {
  const auto start = Clock::now();
  const size_t count = request.limit > 0 ? std::min(data.rows.size(), static_cast<size_t>(request.limit)) : data.rows.size();
  TaskResult result;
  result.task = std::string(task.name);
  result.file = request.file.string();
  result.data_sha256 = data.sha256;
  result.settings = {{"limit", request.limit},
                     {"documents", count},
                     {"num_fewshot", 0},
                     {"chat_template", options.apply_chat_template},
                     {"softmax_dtype", "float32"},
                     {"model", describe(model)}};
  if (options.apply_chat_template && model.chat_template) result.settings["chat_template_sha256"] = model.chat_template->sha256();
  if (task.kind == TaskKind::kGeneration) {
    result.settings["max_new_tokens"] = options.max_new_tokens > 0 ? options.max_new_tokens : task.max_new_tokens;
    result.settings["stop"] = std::vector<std::string>(task.stop.begin(), task.stop.end());
  }
  std::vector<std::string> prompts;
  std::vector<std::string> where;
  result.documents.resize(count);
  for (size_t i = 0; i < count; ++i) {
    where.push_back(fmt::format("{}:{}", request.file.string(), data.line_numbers[i]));
    result.documents[i].line = data.line_numbers[i];
    try {
      prompts.push_back(render_prompt(model, task.prompt(data.rows[i], where[i]), options.apply_chat_template));
    } catch (Error& error) {
      if (error.kind() == ErrorKind::kCorruption) error.with_hint(fmt::format("rows of the task {} hold: {}", task.name, task.layout));
      throw;
    }
  }
  if (!prompts.empty()) result.first_prompt = prompts.front();
  if (task.kind == TaskKind::kMultipleChoice) {
    run_choices(model, task, prompts, data, where, options, progress, result);
  } else {
    run_generations(model, task, prompts, data, where, options, progress, result);
  }
  for (size_t i = 0; i < count; ++i) result.documents[i].scores = task.score(data.rows[i], result.documents[i].response);
  aggregate(task, result);
  result.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return result;
}

void compare_documents(TaskResult& result, const TaskResult& base) {
  for (MetricResult& metric : result.metrics) {
    const MetricResult* other = base.find(metric.metric);
    if (other == nullptr) continue;
    const double scale = scale_of(metric.unit);
    const auto values = values_of(result.documents, metric.metric);
    const auto base_values = values_of(base.documents, metric.metric);
    BaseComparison comparison;
    comparison.base_value = other->value.value;
    comparison.difference.value = metric.value.value - other->value.value;
    if (!values.empty() && values.size() == base_values.size()) {
      comparison.difference = scaled(paired_difference(values, base_values), scale);
      comparison.retention = retention(values, base_values);
      if (metric.chance) comparison.retention_above_chance = retention_above_chance(values, base_values, *metric.chance / scale);
    } else if (other->value.value != 0) {
      comparison.retention = Estimate{metric.value.value / other->value.value, std::nullopt};
    }
    metric.base = comparison;
  }
}

const MetricResult* TaskResult::find(std::string_view metric) const {
  for (const MetricResult& m : metrics) {
    if (m.metric == metric) return &m;
  }
  return nullptr;
}

}  // namespace salient::eval
