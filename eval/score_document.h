// Scores of one document from what the model said: ConfigurableTask.process_results of lm-evaluation-harness 0.4.13.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "eval/document_record.h"
#include "eval/exact_match.h"
#include "eval/task.h"

namespace salient::eval {

// The right answer among choices.
struct Gold {
  std::vector<int64_t> choices;  // one; several where doc_to_target is a list; -1 where it is none of the choices, which scores 0
};
// `target`: an index, a choice's text or a list of indices. As in the reference, an index behind the last choice is none, and a
// negative one as well.
Gold gold_choice(const Json& target, const std::vector<std::string>& choices);

// acc: the most likely choice is right; acc_norm and acc_bytes: after division by the choice's length in Unicode code points or
// bytes; the first of equal ones wins. acc_mutual_info: after subtraction of `unconditional`, the choices' log-probabilities
// without context. exact_match: the right choice is what the model would write. brier_score: of the softmax, with the first of
// `gold`, which must be there. f1 and mcc: the most likely choice beside the first of `gold`, for eval/aggregation.h; bypass: none.
// Only what `metrics` asks for.
std::vector<Score> score_choices(const std::vector<MetricDefinition>& metrics, const std::vector<std::string>& choices,
                                 const Gold& gold, const Response& response, const std::vector<double>& unconditional);

// perplexity: the log-probability; acc: every token is the most probable one.
std::vector<Score> score_continuation(const std::vector<MetricDefinition>& metrics, const Response& response);

// exact_match with any of the references.
class TextScorer {
 public:
  explicit TextScorer(const MetricDefinition& metric);
  Score operator()(const std::string& prediction, const std::vector<std::string>& references) const;

 private:
  std::string metric_;
  TextCleaner clean_;
};

}  // namespace salient::eval
