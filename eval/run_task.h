// One task on one model: rows of a data set in, scored documents and metrics out.
#pragma once

#include <functional>

#include "eval/evaluate.h"
#include "eval/task.h"

namespace salient::eval {

// Tells how far a phase of a task is: phase, done, total.
using PhaseProgress = std::function<void(const char* phase, int64_t done, int64_t total)>;

// Every output type but token_windows. Errors: those of evaluate(). A model whose logits are NaN or infinite gives a result without
// documents and metrics, with a flag; so does run_perplexity.
TaskResult run_documents(const LanguageModel& model, const TaskDefinition& task, const TaskRequest& request,
                         const EvaluationOptions& options, const PhaseProgress& progress);

// Perplexity under both protocols; with `base` also its own perplexities and the divergence. `base_result` is filled when `base` is
// given. Where one of both is broken, the other's own figures stand without a comparison.
TaskResult run_perplexity(const LanguageModel& model, const LanguageModel* base, const TaskDefinition& task,
                          const TaskRequest& request, const EvaluationOptions& options, const PhaseProgress& progress,
                          TaskResult* base_result);

}  // namespace salient::eval
