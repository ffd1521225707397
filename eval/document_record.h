// One document of a task after it was run: what the model said, and what that is worth.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace salient::eval {

// What a model said to a document.
struct Response {
  std::vector<double> log_probs;   // of each choice, of the continuation, of the text, or of the probe
  std::vector<uint8_t> is_greedy;  // for each of log_probs: every token is the most probable one
  std::string text;                // generated
  std::string turn;                // the same up to the first special token
};

// One metric of one document, in fractions whatever the metric's unit. A metric that does not concern a document has no score
// there.
struct Score {
  std::string metric;  // "acc"; behind a named filter "exact_match,strict-match"
  double value = 0;
  double weight = 1;  // of weighted means: words or bytes
};

// Kept for paired comparisons and for looking at single answers.
struct DocumentRecord {
  int64_t line = 0;  // in the data file, from 1
  Response response;
  std::string answer;                                          // the gold answer
  std::vector<std::pair<std::string, std::string>> extracted;  // filter -> the answer that it found in the text
  std::vector<Score> scores;
  double chance = 0;  // expected score of guessing; 0 where that makes no sense

  std::optional<double> score(std::string_view metric) const;
};

}  // namespace salient::eval
