#include "eval/evaluate.h"

#include "eval/run_task.h"
#include "eval/task_metrics.h"

namespace salient::eval {
namespace {

PhaseProgress progress_of(const EvaluationOptions& options, bool is_base, const std::string& task) {
  return [&options, is_base, task](const char* phase, int64_t done, int64_t total) {
    if (options.observer) options.observer({is_base, task, phase, done, total});
  };
}

ModelResult new_model_result(const LanguageModel& model) {
  ModelResult out;
  out.model = model.name;
  out.description = describe(model);
  return out;
}

// An earlier result of the base that can stand for a new run: same data, same settings, the base's description included.
const TaskResult* find_known(const ModelResult* known, const TaskResult& result, const LanguageModel& base) {
  if (known == nullptr) return nullptr;
  Json settings = result.settings;
  settings["model"] = describe(base);
  for (const TaskResult& task : known->tasks) {
    if (task.task == result.task && task.data_sha256 == result.data_sha256 && task.settings == settings) return &task;
  }
  return nullptr;
}

// A model's results as far as they are, and with a base the base's beside them.
class Evaluator {
 public:
  Evaluator(const LanguageModel& model, const LanguageModel* base, const EvaluationOptions& options, const ModelResult* known_base)
      : model_(model),
        base_(base),
        options_(options),
        base_options_(options),
        known_base_(known_base),
        out_{new_model_result(model), std::nullopt, {}} {
    if (base != nullptr) out_.base = new_model_result(*base);
    base_options_.run_observer = nullptr;
  }

  void run(const TaskSelection& selection, const TaskRequest& request) {
    const size_t first = out_.model.tasks.size();
    for (const auto& task : selection.tasks) run_task(*task, request);
    for (const GroupDefinition& group : selection.groups) {
      if (!group.metrics.empty()) add_group(group, first);
    }
  }

  Evaluation take() { return std::move(out_); }

 private:
  void run_task(const TaskDefinition& task, const TaskRequest& request) {
    const PhaseProgress progress = progress_of(options_, /*is_base=*/false, task.name);
    if (task.output_type == OutputType::kTokenWindows) {
      TaskResult base_result;
      out_.model.tasks.push_back(run_perplexity(model_, base_, task, request, options_, progress, &base_result));
      if (base_ != nullptr) out_.base->tasks.push_back(std::move(base_result));
      return;
    }
    TaskResult result = run_documents(model_, task, request, options_, progress);
    if (base_ != nullptr) {
      const TaskResult* known = find_known(known_base_, result, *base_);
      out_.base->tasks.push_back(known != nullptr ? *known
                                                  : run_documents(*base_, task, request, base_options_,
                                                                  progress_of(options_, /*is_base=*/true, task.name)));
      compare_documents(result, out_.base->tasks.back());
    }
    out_.model.tasks.push_back(std::move(result));
  }

  // The group stands for its tasks in a verdict.
  void add_group(const GroupDefinition& group, size_t first) {
    const auto summarize = [&](std::vector<TaskResult>& tasks) {
      TaskResult result = group_result(group, tasks);
      for (size_t i = first; i < tasks.size(); ++i) {
        for (MetricResult& metric : tasks[i].metrics) metric.headline = false;
        for (const std::string& member : group.tasks) {
          if (base_ != nullptr && tasks[i].task == member) {
            result.documents.insert(result.documents.end(), tasks[i].documents.begin(), tasks[i].documents.end());
          }
        }
      }
      return result;
    };
    TaskResult result = summarize(out_.model.tasks);
    if (base_ != nullptr) {
      TaskResult base_result = summarize(out_.base->tasks);
      compare_documents(result, base_result);
      base_result.documents.clear();
      out_.base->tasks.push_back(std::move(base_result));
    }
    result.documents.clear();
    out_.model.tasks.push_back(std::move(result));
  }

  const LanguageModel& model_;
  const LanguageModel* base_;
  const EvaluationOptions& options_;
  EvaluationOptions base_options_;
  const ModelResult* known_base_;
  Evaluation out_;
};

}  // namespace

Evaluation evaluate(const LanguageModel& model, const LanguageModel* base, const std::vector<TaskRequest>& requests,
                    const EvaluationOptions& options, const ModelResult* known_base) {
  const TaskLibrary& library = options.tasks != nullptr ? *options.tasks : TaskLibrary::bundled();
  std::vector<TaskSelection> selections;  // before any work
  for (const TaskRequest& request : requests) selections.push_back(library.find(request.task));
  Evaluator evaluator(model, base, options, known_base);
  for (size_t i = 0; i < requests.size(); ++i) evaluator.run(selections[i], requests[i]);
  Evaluation out = evaluator.take();
  if (options.throughput) {
    const auto measure = [&](const LanguageModel& m, ModelResult& result) {
      const PhaseProgress progress = progress_of(options, &m == base, "throughput");
      progress("models", 0, 1);
      result.throughput = measure_throughput(m);
      progress("models", 1, 1);
    };
    measure(model, out.model);
    if (base != nullptr) {
      if (known_base != nullptr && known_base->throughput) {
        out.base->throughput = known_base->throughput;
      } else {
        measure(*base, *out.base);
      }
    }
  }
  return out;
}

}  // namespace salient::eval
