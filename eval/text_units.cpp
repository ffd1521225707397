#include "eval/text_units.h"

#include "eval/unicode_text.h"

namespace salient::eval {

int64_t count_words(std::string_view text) {
  int64_t pieces = 1;
  bool in_space = false;
  for (const char32_t c : to_code_points(text)) {
    const bool space = is_space(c);
    if (space && !in_space) ++pieces;
    in_space = space;
  }
  return pieces;
}

std::vector<Score> weighted_scores(double log_prob, std::string_view text) {
  const auto words = static_cast<double>(count_words(text));
  const auto bytes = static_cast<double>(text.size());
  return {{"word_perplexity", log_prob, words}, {"byte_perplexity", log_prob, bytes}, {"bits_per_byte", log_prob, bytes}};
}

}  // namespace salient::eval
