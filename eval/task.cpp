#include "eval/task.h"

#include "eval/document_record.h"

namespace salient::eval {

std::string_view to_string(OutputType type) {
  switch (type) {
    case OutputType::kMultipleChoice: return "multiple_choice";
    case OutputType::kLoglikelihood: return "loglikelihood";
    case OutputType::kLoglikelihoodRolling: return "loglikelihood_rolling";
    case OutputType::kGenerateUntil: return "generate_until";
    case OutputType::kTokenWindows: return "token_windows";
  }
  return "";
}

std::string_view to_string(Unit unit) {
  switch (unit) {
    case Unit::kFraction: return "fraction";
    case Unit::kPercent: return "percent";
    case Unit::kNats: return "nats";
    case Unit::kNone: return "";
  }
  return "";
}

const std::string& TaskDefinition::shots_split() const {
  static const std::string kNone;
  if (!fewshot.split.empty()) return fewshot.split;
  if (fewshot.samples.is_array()) return kNone;
  if (!training_split.empty()) return training_split;
  return validation_split.empty() ? test_split : validation_split;
}

std::optional<double> DocumentRecord::score(std::string_view metric) const {
  for (const Score& s : scores) {
    if (s.metric == metric) return s.value;
  }
  return std::nullopt;
}

}  // namespace salient::eval
