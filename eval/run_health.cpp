#include "eval/run_health.h"

#include <algorithm>
#include <array>
#include <map>
#include <vector>

#include "common/text.h"
#include "eval/response_filters.h"
#include "eval/result.h"

namespace salient::eval {
namespace {

struct KindName {
  FlagKind kind;
  std::string_view name;
};
constexpr std::array kKinds = {
    KindName{FlagKind::kNanLogits, "nan_logits"},
    KindName{FlagKind::kNoRightChoice, "no_right_choice"},
    KindName{FlagKind::kConstantAnswers, "constant_answers"},
    KindName{FlagKind::kRepetition, "repetition"},
    KindName{FlagKind::kChanceLevel, "chance_level"},
    KindName{FlagKind::kUnparsed, "unparsed"},
    KindName{FlagKind::kCutByLength, "cut_by_length"},
};

constexpr double kConstantShare = 0.95;
constexpr double kMostCommonGold = 0.75;
constexpr double kLoopShare = 0.2;
constexpr double kUnparsedShare = 0.5;
constexpr double kCutShare = 0.9;
constexpr double kOneSided95 = 1.6448536269514722;
constexpr size_t kLoopRepeats = 4;
constexpr size_t kLoopBytes = 24;

// How often something holds of the documents, and where first.
struct Count {
  double share = 0;
  std::optional<int64_t> line;
};
template <typename Holds>
Count count_of(const TaskResult& result, Holds holds) {
  int64_t count = 0;
  Count out;
  for (const DocumentRecord& document : result.documents) {
    if (!holds(document)) continue;
    ++count;
    if (!out.line) out.line = document.line;
  }
  if (!result.documents.empty()) out.share = static_cast<double>(count) / static_cast<double>(result.documents.size());
  return out;
}

std::string percent(double share) { return fmt::format("{:.0f} %", 100 * share); }

// "; of the base 3 %"
std::string beside_base(const std::optional<double>& base_share) {
  return base_share ? fmt::format("; of the base {}", percent(*base_share)) : "";
}

bool is_generation(const TaskDefinition& task) { return task.output_type == OutputType::kGenerateUntil; }

const std::string* extracted_by(const DocumentRecord& document, const std::string& filter) {
  for (const auto& [name, text] : document.extracted) {
    if (name == filter) return &text;
  }
  return nullptr;
}

// What the model answered, in one text: the number of its choice, what the first filter found, else all that it wrote.
std::string answer_of(const TaskDefinition& task, const DocumentRecord& document) {
  const std::vector<double>& log_probs = document.response.log_probs;
  if (!is_generation(task)) return std::to_string(std::max_element(log_probs.begin(), log_probs.end()) - log_probs.begin());
  const std::string* extracted = extracted_by(document, task.filters.front().name);
  return extracted != nullptr ? *extracted : document.response.text;
}

// The most common text, with its share and the first document that has it.
struct Common {
  std::string text;
  Count count;
};
template <typename TextOf>
Common most_common(const TaskResult& result, TextOf text_of) {
  std::map<std::string, int64_t> counts;
  for (const DocumentRecord& document : result.documents) ++counts[text_of(document)];
  const auto most =
      std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return {most->first, count_of(result, [&](const DocumentRecord& document) { return text_of(document) == most->first; })};
}

std::optional<HealthFlag> no_right_choice(const TaskDefinition& task, const TaskResult& result) {
  if (task.output_type != OutputType::kMultipleChoice || !task.process_results.empty()) return std::nullopt;
  const auto has_none = [](const DocumentRecord& document) {
    const std::vector<int64_t>& golds = document.gold_choices;
    return !golds.empty() && std::all_of(golds.begin(), golds.end(), [](int64_t gold) { return gold < 0; });
  };
  const Count count = count_of(result, has_none);
  if (!count.line) return std::nullopt;
  return HealthFlag{
      FlagKind::kNoRightChoice, count.share, count.line,
      fmt::format("{} of the documents have a right answer that is none of their choices, and score 0 whatever the model "
                  "says; look at doc_to_target and at the data",
                  percent(count.share))};
}

std::optional<HealthFlag> constant_answers(const TaskDefinition& task, const TaskResult& result, const TaskResult* base) {
  const bool chooses = task.output_type == OutputType::kMultipleChoice;
  if (!chooses && !is_generation(task)) return std::nullopt;
  const auto answer = [&](const DocumentRecord& document) { return answer_of(task, document); };
  const Common common = most_common(result, answer);
  const auto gold = [&](const DocumentRecord& document) {
    return chooses && !document.gold_choices.empty() ? std::to_string(document.gold_choices.front()) : document.answer;
  };
  if (common.count.share < kConstantShare || most_common(result, gold).count.share >= kMostCommonGold) return std::nullopt;
  if (is_generation(task) && common.text == no_match_text(task.filters.front())) return std::nullopt;  // kUnparsed
  std::optional<double> of_base;
  if (base != nullptr) of_base = most_common(*base, answer).count.share;
  const std::string what =
      chooses ? fmt::format("choice {}", std::stoi(common.text) + 1) : fmt::format("\"{}\"", shorten(one_line(common.text), 32));
  return HealthFlag{FlagKind::kConstantAnswers, common.count.share, common.count.line,
                    fmt::format("{} of the answers are {}, whatever is asked{}; look at the prompt of a sample, and at the model's "
                                "special tokens and chat template",
                                percent(common.count.share), what,
                                of_base ? fmt::format("; the base's most common answer has {}", percent(*of_base)) : "")};
}

std::optional<HealthFlag> repetition(const TaskDefinition& task, const TaskResult& result, const TaskResult* base) {
  if (!is_generation(task)) return std::nullopt;
  const auto loops = [](const DocumentRecord& document) { return is_loop(document.response.text); };
  const Count count = count_of(result, loops);
  if (count.share < kLoopShare) return std::nullopt;
  std::optional<double> of_base;
  if (base != nullptr) of_base = count_of(*base, loops).share;
  return HealthFlag{FlagKind::kRepetition, count.share, count.line,
                    fmt::format("{} of the texts end in a loop{}; look at them, and at the task's stop strings",
                                percent(count.share), beside_base(of_base))};
}

const MetricResult* headline_of(const TaskResult& result) {
  const auto it =
      std::find_if(result.metrics.begin(), result.metrics.end(), [](const MetricResult& metric) { return metric.headline; });
  return it == result.metrics.end() ? nullptr : &*it;
}

bool is_at_chance(const MetricResult& metric) {
  return metric.value.value - kOneSided95 * metric.value.stderr_of_mean.value_or(0) <= metric.chance.value_or(0);
}

std::optional<HealthFlag> chance_level(const TaskResult& result, const TaskResult* base) {
  const MetricResult* metric = headline_of(result);
  if (metric == nullptr || metric->aggregation != "mean" || !metric->higher_is_better || !is_at_chance(*metric))
    return std::nullopt;
  std::string what = metric->chance ? fmt::format("{} {:.4g} is not measurably above guessing, {:.4g}", metric->metric,
                                                  metric->value.value, *metric->chance)
                                    : fmt::format("{} is 0 or not measurably above it", metric->metric);
  const MetricResult* of_base = base != nullptr ? base->find(metric->metric) : nullptr;
  if (of_base == nullptr) {
    what += "; take more documents, and look at the prompt of a sample: it may not be what the model was trained on";
  } else if (is_at_chance(*of_base)) {
    what += "; nor is the base's, so this task cannot show a loss";
  } else {
    what += fmt::format("; the base has {:.4g}", of_base->value.value);
  }
  return HealthFlag{FlagKind::kChanceLevel, 1, std::nullopt, std::move(what)};
}

std::optional<HealthFlag> unparsed(const TaskDefinition& task, const TaskResult& result, const TaskResult* base) {
  if (!is_generation(task)) return std::nullopt;
  const FilterPipeline& filter = task.filters.front();
  const std::optional<std::string> no_match = no_match_text(filter);
  if (!no_match) return std::nullopt;
  const auto holds = [&](const DocumentRecord& document) {
    const std::string* found = extracted_by(document, filter.name);
    return found != nullptr && *found == *no_match;
  };
  const Count count = count_of(result, holds);
  if (count.share < kUnparsedShare) return std::nullopt;
  std::optional<double> of_base;
  if (base != nullptr) of_base = count_of(*base, holds).share;
  return HealthFlag{
      FlagKind::kUnparsed, count.share, count.line,
      fmt::format("in {} of the texts the filter {} finds no answer{}; look at a text: the model may answer in another form, "
                  "need examples (--num-fewshot) or its chat template",
                  percent(count.share), filter.name, beside_base(of_base))};
}

std::optional<HealthFlag> cut_by_length(const TaskDefinition& task, const TaskResult& result, const TaskResult* base) {
  if (!is_generation(task)) return std::nullopt;
  const auto cut = [](const DocumentRecord& document) { return document.response.hit_limit; };
  const Count count = count_of(result, cut);
  if (count.share < kCutShare) return std::nullopt;
  std::optional<double> of_base;
  if (base != nullptr) of_base = count_of(*base, cut).share;
  return HealthFlag{
      FlagKind::kCutByLength, count.share, count.line,
      fmt::format("{} of the texts are cut by their length{}; allow more (--max-new-tokens), or see whether the model ever "
                  "writes a stop string or its end token",
                  percent(count.share), beside_base(of_base))};
}

}  // namespace

std::string_view to_string(FlagKind kind) {
  return std::find_if(kKinds.begin(), kKinds.end(), [&](const KindName& row) { return row.kind == kind; })->name;
}

std::optional<FlagKind> find_flag_kind(std::string_view name) {
  const auto row = std::find_if(kKinds.begin(), kKinds.end(), [&](const KindName& r) { return r.name == name; });
  return row == kKinds.end() ? std::nullopt : std::optional(row->kind);
}

bool is_loop(std::string_view text) {
  const size_t n = text.size();
  if (n < kLoopBytes) return false;
  // Z function of the text read backwards: same[p] bytes from p on equal those from the start, so period p holds over p + same[p].
  const auto at = [&](size_t i) { return text[n - 1 - i]; };
  std::vector<size_t> same(n, 0);
  size_t left = 0;
  size_t right = 0;
  for (size_t p = 1; p < n; ++p) {
    if (p < right) same[p] = std::min(right - p, same[p - left]);
    while (p + same[p] < n && at(same[p]) == at(p + same[p])) ++same[p];
    if (p + same[p] > right) {
      left = p;
      right = p + same[p];
    }
    const size_t covered = p + same[p];
    if (covered >= kLoopRepeats * p && covered >= kLoopBytes && 2 * covered >= n) return true;
  }
  return false;
}

std::vector<HealthFlag> find_flags(const TaskDefinition& task, const TaskResult& result, const TaskResult* base) {
  std::vector<HealthFlag> flags;
  if (auto flag = no_right_choice(task, result)) flags.push_back(*flag);
  if (static_cast<int64_t>(result.documents.size()) < kFewestFlagged) return flags;
  if (base != nullptr && base->documents.size() != result.documents.size()) base = nullptr;
  for (auto& flag : {constant_answers(task, result, base), repetition(task, result, base), chance_level(result, base),
                     unparsed(task, result, base), cut_by_length(task, result, base)}) {
    if (flag) flags.push_back(*flag);
  }
  return flags;
}

std::optional<Error> broken_error(const Evaluation& evaluation) {
  std::vector<std::string> broken;
  const auto add = [&](const ModelResult& model) {
    std::vector<std::string> tasks;
    for (const TaskResult& task : model.tasks) {
      if (task.is_broken()) tasks.push_back(task.task);
    }
    if (!tasks.empty()) broken.push_back(fmt::format("{} has no scores for {}", model.model, fmt::join(tasks, ", ")));
  };
  add(evaluation.model);
  if (evaluation.base) add(*evaluation.base);
  if (broken.empty()) return std::nullopt;
  return Error(ErrorKind::kCheckFailed, fmt::format("{}: NaN or infinite logits", fmt::join(broken, "; ")))
      .with_code("BROKEN_MODEL")
      .with_hint(
          "all other results are kept; look for NaN or overflow in the weights and scales of the model's files (salient inspect)");
}

}  // namespace salient::eval
