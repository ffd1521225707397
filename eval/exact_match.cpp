#include "eval/exact_match.h"

#include "models/jinja/text.h"

namespace salient::eval {
namespace {

constexpr std::string_view kPunctuation = R"(!"#$%&'()*+,-./:;<=>?@[\]^_`{|}~)";
constexpr std::string_view kDigits = "0123456789";

}  // namespace

TextCleaner::TextCleaner(const ExactMatchRules& rules)
    : ignore_case_(rules.ignore_case), ignore_punctuation_(rules.ignore_punctuation), ignore_numbers_(rules.ignore_numbers) {
  for (const std::string& pattern : rules.regexes_to_ignore) regexes_.emplace_back(pattern);
}

std::string TextCleaner::operator()(std::string_view text) const {
  std::string out(text);
  for (const PythonRegex& regex : regexes_) out = regex.replace(out, "");
  if (ignore_case_) out = models::jinja::to_lower(out);
  if (ignore_punctuation_) std::erase_if(out, [](char c) { return kPunctuation.find(c) != std::string_view::npos; });
  if (ignore_numbers_) std::erase_if(out, [](char c) { return kDigits.find(c) != std::string_view::npos; });
  return out;
}

}  // namespace salient::eval
