#include "eval/runtime_cost.h"

#include <utility>

#include "common/error.h"

namespace salient::eval {

std::vector<RuntimeCost> measure_runtime_costs(const LoadModel& load, const TaskRequest& text, EvaluationOptions options) {
  options.throughput = false;
  options.run_observer = nullptr;
  options.journal = options.base_journal = nullptr;  // those of the caller's models, which run with other bits
  const LanguageModel reference = load(16, 16);
  std::vector<std::pair<int, int>> kinds;
  if (reference.decoder.is_quantized()) kinds.emplace_back(8, 16);
  kinds.emplace_back(16, 8);
  if (reference.decoder.is_quantized()) kinds.emplace_back(8, 8);
  std::vector<RuntimeCost> costs;
  for (const auto& [activation_bits, kv_bits] : kinds) {
    const LanguageModel rounded = load(activation_bits, kv_bits);
    Evaluation evaluation = evaluate(rounded, &reference, {text}, options);
    if (const auto broken = broken_error(evaluation)) throw *broken;
    TaskResult& task = evaluation.model.tasks.front();
    if (task.find("kl_divergence") == nullptr) {
      throw Error(ErrorKind::kInvalidArgument,
                  fmt::format("task {} cannot tell what 8 bits cost: it has no divergence of two models", task.task))
          .with_hint("take the task perplexity");
    }
    costs.push_back({activation_bits, kv_bits, std::move(task.file), std::move(task.metrics)});
  }
  return costs;
}

}  // namespace salient::eval
