// Filters of lm-evaluation-harness 0.4.13 (lm_eval/filters): from what a model wrote to the answer that is compared.
//
//   regex               regex_pattern, group_select (0), fallback ("[invalid]"): the match number group_select of all (negative:
//   from the last
//                       on), of several groups the first that is not empty; trimmed
//   multi_choice_regex  the same, else a choice of the column "choices" that the text holds, else a letter behind ":"; as "(A)",
//   "(B)"...;
//                       ignore_case, ignore_punctuation and regexes_to_ignore apply to the search for choices
//   remove_whitespace   around the text            lowercase, uppercase
//   map                 mapping_dict, default_value
//   take_first          of repeated responses      take_first_k (k), majority_vote
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "eval/task_format.h"

namespace salient::eval {

// Errors: invalid argument for unknown names and arguments, and bad expressions.
void check_filter(const FilterStep& step);

// responses[document][repeat] -> one text a document: the first of what the last step leaves. `documents`: those of the
// responses. Errors: invalid argument for too few repeats; corruption, naming the row, for columns that a filter needs.
std::vector<std::string> apply_filters(const FilterPipeline& pipeline, const std::vector<std::vector<std::string>>& responses,
                                       std::span<const Document> documents);

// What a regular expression among the steps says where it finds nothing, "[invalid]" unless the task has another text; nothing
// where there is none.
std::optional<std::string> no_match_text(const FilterPipeline& pipeline);

}  // namespace salient::eval
