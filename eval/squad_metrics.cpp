#include "eval/squad_metrics.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "eval/unicode_text.h"

namespace salient::eval {
namespace {

bool is_ascii_punctuation(char32_t c) {
  return (c >= 0x21 && c <= 0x2F) || (c >= 0x3A && c <= 0x40) || (c >= 0x5B && c <= 0x60) || (c >= 0x7B && c <= 0x7E);
}

// Words of the normalised text. Articles are whole runs of word characters, so "a-b" (now "ab") keeps its a, and a combining mark
// after "a" ends the run: the mark stays, the article goes.
std::vector<std::string> normalized_words(std::string_view text) {
  std::vector<char32_t> code_points;
  for (const char32_t c : to_code_points(to_lower(text))) {
    if (!is_ascii_punctuation(c)) code_points.push_back(c);
  }
  std::vector<char32_t> kept;
  for (size_t begin = 0; begin < code_points.size();) {
    size_t end = begin + 1;
    const bool word = is_word(code_points[begin]);
    while (end < code_points.size() && is_word(code_points[end]) == word) ++end;
    const std::u32string_view run(code_points.data() + begin, end - begin);
    if (run == U"a" || run == U"an" || run == U"the") {
      kept.push_back(U' ');
    } else {
      kept.insert(kept.end(), run.begin(), run.end());
    }
    begin = end;
  }
  std::vector<std::string> words;
  std::vector<char32_t> word;
  const auto flush = [&] {
    if (!word.empty()) words.push_back(to_utf8(word));
    word.clear();
  };
  for (const char32_t c : kept) {
    if (is_space(c)) {
      flush();
    } else {
      word.push_back(c);
    }
  }
  flush();
  return words;
}

}  // namespace

std::string normalize_answer(std::string_view text) {
  std::string out;
  for (const std::string& word : normalized_words(text)) {
    if (!out.empty()) out += ' ';
    out += word;
  }
  return out;
}

double exact_score(std::string_view prediction, std::string_view gold) {
  return normalize_answer(prediction) == normalize_answer(gold) ? 1 : 0;
}

double f1_score(std::string_view prediction, std::string_view gold) {
  const auto predicted = normalized_words(prediction);
  const auto expected = normalized_words(gold);
  if (predicted.empty() || expected.empty()) return predicted.empty() && expected.empty() ? 1 : 0;
  std::map<std::string, int> remaining;
  for (const std::string& word : expected) ++remaining[word];
  double common = 0;
  for (const std::string& word : predicted) {
    if (auto found = remaining.find(word); found != remaining.end() && found->second > 0) {
      --found->second;
      ++common;
    }
  }
  if (common == 0) return 0;
  const double precision = common / static_cast<double>(predicted.size());
  const double recall = common / static_cast<double>(expected.size());
  return 2 * precision * recall / (precision + recall);
}

AnswerScore score_answer(std::string_view prediction, const std::vector<std::string>& gold_answers) {
  std::vector<std::string_view> golds;
  for (const std::string& gold : gold_answers) {
    if (!normalized_words(gold).empty()) golds.push_back(gold);
  }
  if (golds.empty()) golds.push_back("");
  AnswerScore best;
  for (const std::string_view gold : golds) {
    best.exact = std::max(best.exact, exact_score(prediction, gold));
    best.f1 = std::max(best.f1, f1_score(prediction, gold));
  }
  return best;
}

double best_threshold_score(const std::vector<ThresholdItem>& items) {
  if (items.empty()) return 0;
  std::vector<size_t> order(items.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return items[a].no_answer_probability < items[b].no_answer_probability; });
  // Abstaining on everything is right for every question without an answer; then questions are answered one by one.
  double current =
      static_cast<double>(std::count_if(items.begin(), items.end(), [](const auto& item) { return !item.has_answer; }));
  double best = current;
  for (const size_t i : order) {
    if (items[i].has_answer) {
      current += items[i].score;
    } else if (!items[i].empty_prediction) {
      current -= 1;
    }
    best = std::max(best, current);
  }
  return best / static_cast<double>(items.size());
}

}  // namespace salient::eval
