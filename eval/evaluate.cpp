#include "eval/evaluate.h"

#include "common/memory.h"
#include "eval/compare_documents.h"
#include "eval/run_health.h"
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
    base_options_.journal = options.base_journal;
    if (options_.run_observer != nullptr) options_.journal = nullptr;
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
    const TaskResult* base_result = nullptr;
    if (base_ != nullptr) {
      const TaskResult* known = find_known(known_base_, result, *base_);
      out_.base->tasks.push_back(known != nullptr ? *known : run_base(task, request));
      base_result = &out_.base->tasks.back();
      compare_documents(result, *base_result);
    }
    add_flags(task, base_result, result);
    out_.model.tasks.push_back(std::move(result));
  }

  TaskResult run_base(const TaskDefinition& task, const TaskRequest& request) {
    TaskResult result = run_documents(*base_, task, request, base_options_, progress_of(options_, /*is_base=*/true, task.name));
    add_flags(task, nullptr, result);
    return result;
  }

  static void add_flags(const TaskDefinition& task, const TaskResult* base, TaskResult& result) {
    for (HealthFlag& flag : find_flags(task, result, base)) result.flags.push_back(std::move(flag));
  }

  // The group stands for its tasks in a verdict; for its statistics each task is one cluster of documents.
  void add_group(const GroupDefinition& group, size_t first) {
    const auto summarize = [&](std::vector<TaskResult>& tasks) {
      TaskResult result = group_result(group, tasks);
      for (size_t i = first; i < tasks.size(); ++i) {
        for (MetricResult& metric : tasks[i].metrics) metric.headline = false;
        for (const std::string& member : group.tasks) {
          if (base_ == nullptr || tasks[i].task != member) continue;
          for (const DocumentRecord& document : tasks[i].documents) {
            result.documents.push_back(document);
            result.documents.back().cluster = static_cast<int64_t>(i) + 1;
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
  EvaluationOptions options_;
  EvaluationOptions base_options_;
  const ModelResult* known_base_;
  Evaluation out_;
};

}  // namespace

DataSource source_of(const TaskRequest& request, const std::string& task) {
  const auto own = request.members.find(task);
  return own == request.members.end() ? DataSource{request.file, request.splits} : own->second;
}

Evaluation evaluate(const LanguageModel& model, const LanguageModel* base, const std::vector<TaskRequest>& requests,
                    const EvaluationOptions& options, const ModelResult* known_base) {
  const FreedMemoryKept kept;  // the same sizes come again and again
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
