// Signs that a run is broken, not merely worse: a score that looks low may be a wrong prompt, a wrong filter or a model of NaN.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/error.h"
#include "eval/task.h"

namespace salient::eval {

struct TaskResult;
struct Evaluation;

enum class FlagKind {
  kNanLogits,        // the task has no scores at all
  kNoRightChoice,    // documents whose right answer is none of their choices
  kConstantAnswers,  // one choice or text for nearly every document, although the right ones differ
  kRepetition,       // generations that end in a loop
  kChanceLevel,      // not measurably above guessing
  kUnparsed,         // the task's filter finds no answer in the text
  kCutByLength       // no generation comes to its end
};
// "nan_logits", "no_right_choice", "constant_answers", "repetition", "chance_level", "unparsed", "cut_by_length".
std::string_view to_string(FlagKind kind);
std::optional<FlagKind> find_flag_kind(std::string_view name);

struct HealthFlag {
  FlagKind kind = FlagKind::kNanLogits;
  double share = 1;                 // of the documents that show it
  std::optional<int64_t> document;  // an example: its line in the data file
  std::string text;                 // what was seen, and what to do
};

// Fewer documents show no pattern: nothing but NaN and what is wrong in a single document is flagged.
inline constexpr int64_t kFewestFlagged = 10;

// Flags of a task's scored documents. `base`: the same documents of the base, so that the text can tell a defect of the
// quantization from one of the task or prompt; may be null.
//   no_right_choice   one document, which scores 0 as in the reference
//   constant_answers  at least 95 % of the documents, while no right answer covers 75 %
//   repetition        at least 20 % of the texts end in a loop (is_loop)
//   chance_level      the headline score less 1.64 standard errors is not above guessing (0 where nothing can be guessed)
//   unparsed          at least 50 % of the texts, for the filter of the headline metric
//   cut_by_length     at least 90 % of the texts
std::vector<HealthFlag> find_flags(const TaskDefinition& task, const TaskResult& result, const TaskResult* base);

// Whether the text ends in one part written four times or more, over at least 24 bytes and half of the text.
bool is_loop(std::string_view text);

// An error of kind check failed that names model and tasks without scores, of the base too: what a program ends with that has
// printed and stored all else. Nothing where every task has scores.
std::optional<Error> broken_error(const Evaluation& evaluation);

}  // namespace salient::eval
