// exact_match of lm-evaluation-harness 0.4.13 (that of Hugging Face's evaluate): whether two texts are equal once some things are
// taken out of both.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "eval/python_regex.h"
#include "eval/task.h"

namespace salient::eval {

// The rules with their expressions compiled. Errors: invalid argument for a bad one.
class TextCleaner {
 public:
  explicit TextCleaner(const ExactMatchRules& rules);

  std::string operator()(std::string_view text) const;

 private:
  std::vector<PythonRegex> regexes_;
  bool ignore_case_, ignore_punctuation_, ignore_numbers_;
};

}  // namespace salient::eval
