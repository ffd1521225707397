#include "eval/evaluate.h"

#include "common/error.h"
#include "eval/run_task.h"
#include "eval/tasks.h"

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

}  // namespace

Evaluation evaluate(const LanguageModel& model, const LanguageModel* base, const std::vector<TaskRequest>& requests,
                    const EvaluationOptions& options, const ModelResult* known_base) {
  for (const TaskRequest& request : requests) find_task(request.task);  // before any work
  Evaluation out{new_model_result(model), std::nullopt};
  if (base != nullptr) out.base = new_model_result(*base);
  EvaluationOptions base_options = options;
  base_options.run_observer = nullptr;
  for (const TaskRequest& request : requests) {
    const TaskDefinition& task = find_task(request.task);
    const PhaseProgress progress = progress_of(options, /*is_base=*/false, std::string(task.name));
    if (task.kind == TaskKind::kPerplexity) {
      TaskResult base_result;
      out.model.tasks.push_back(run_perplexity(model, base, request, options, progress, &base_result));
      if (base != nullptr) out.base->tasks.push_back(std::move(base_result));
      continue;
    }
    const models::Dataset data = models::read_dataset(request.file);
    TaskResult result = run_documents(model, task, data, request, options, progress);
    if (base != nullptr) {
      const TaskResult* known = find_known(known_base, result, *base);
      out.base->tasks.push_back(known != nullptr ? *known
                                                 : run_documents(*base, task, data, request, base_options, progress_of(options, /*is_base=*/true, std::string(task.name))));
      compare_documents(result, out.base->tasks.back());
    }
    out.model.tasks.push_back(std::move(result));
  }
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
