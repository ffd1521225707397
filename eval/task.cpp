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

double scale_of(Unit unit) { return unit == Unit::kPercent ? 100.0 : 1.0; }

const std::string& TaskDefinition::shots_split() const {
  static const std::string kNone;
  if (!fewshot.split.empty()) return fewshot.split;
  if (fewshot.samples.is_array()) return kNone;
  if (!training_split.empty()) return training_split;
  return validation_split.empty() ? test_split : validation_split;
}

const Score* DocumentRecord::find(std::string_view metric) const {
  for (const Score& s : scores) {
    if (s.metric == metric) return &s;
  }
  return nullptr;
}

std::optional<double> DocumentRecord::score(std::string_view metric) const {
  const Score* found = find(metric);
  return found == nullptr ? std::nullopt : std::optional(found->value);
}

}  // namespace salient::eval
