#include "eval/metric_table.h"

#include <array>

namespace salient::eval {
namespace {

constexpr auto kChoice = OutputType::kMultipleChoice;
constexpr auto kRolling = OutputType::kLoglikelihoodRolling;

constexpr std::array kRows = {
    MetricRow{"acc", kChoice, "mean", Unit::kFraction, true, true},
    MetricRow{"acc_norm", kChoice, "mean", Unit::kFraction, true, true},
    MetricRow{"acc_bytes", kChoice, "mean"},
    MetricRow{"acc_mutual_info", kChoice, "mean"},
    MetricRow{"exact_match", kChoice, "mean"},
    MetricRow{"f1", kChoice, "f1"},
    MetricRow{"mcc", kChoice, "matthews_corrcoef", Unit::kNone},
    MetricRow{"bypass", kChoice, "bypass", Unit::kNone},
    MetricRow{"brier_score", kChoice, "brier_score", Unit::kNone, false},
    MetricRow{"perplexity", OutputType::kLoglikelihood, "perplexity", Unit::kNone, false, true},
    MetricRow{"acc", OutputType::kLoglikelihood, "mean", Unit::kFraction, true, true},
    MetricRow{"bypass", OutputType::kLoglikelihood, "bypass", Unit::kNone},
    MetricRow{"word_perplexity", kRolling, "weighted_perplexity", Unit::kNone, false, true},
    MetricRow{"byte_perplexity", kRolling, "weighted_perplexity", Unit::kNone, false, true},
    MetricRow{"bits_per_byte", kRolling, "bits_per_byte", Unit::kNone, false, true},
    MetricRow{"exact_match", OutputType::kGenerateUntil, "mean", Unit::kFraction, true, true},
    MetricRow{"bypass", OutputType::kGenerateUntil, "bypass", Unit::kNone},
};

struct RefusedRow {
  std::string_view name;
  std::string_view reason;
};
constexpr std::string_view kSacrebleu = "its figures are those of the package sacrebleu, with its tokenizers";
constexpr RefusedRow kRefused[] = {
    {"bleu", kSacrebleu},
    {"chrf", kSacrebleu},
    {"chrf++", kSacrebleu},
    {"ter", kSacrebleu},
    {"acc_all", "it needs columns of SuperGLUE's multirc that only a Python function of that task hands over"},
    {"likelihood", "lm-evaluation-harness 0.4.13 itself fails with it: it takes the mean of pairs"},
};

template <typename Wanted>
std::vector<std::string_view> names_where(Wanted wanted) {
  std::vector<std::string_view> names;
  for (const MetricRow& row : kRows) {
    if (wanted(row)) names.push_back(row.name);
  }
  return names;
}

}  // namespace

const MetricRow* find_metric(std::string_view name, OutputType type) {
  for (const MetricRow& row : kRows) {
    if (row.name == name && row.type == type) return &row;
  }
  return nullptr;
}

std::string_view why_refused(std::string_view name) {
  for (const RefusedRow& row : kRefused) {
    if (row.name == name) return row.reason;
  }
  return {};
}

std::vector<std::string_view> metric_names(OutputType type) {
  return names_where([&](const MetricRow& row) { return row.type == type; });
}

std::vector<std::string_view> default_metrics(OutputType type) {
  return names_where([&](const MetricRow& row) { return row.type == type && row.by_default; });
}

}  // namespace salient::eval
