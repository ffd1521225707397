// One document of a task after it was run: what the model said, and what that is worth.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/json.h"

namespace salient::eval {

// What a model said to a document.
struct Response {
  std::vector<double> log_probs;   // of each choice, of the continuation, of the text, or of the probe
  std::vector<uint8_t> is_greedy;  // for each of log_probs: every token is the most probable one
  std::string text;                // generated
  std::string turn;                // the same up to the first special token
  bool hit_limit = false;          // the generation was cut by its length
};

// One metric of one document, in fractions whatever the metric's unit. A metric that does not concern a document has no score
// there.
struct Score {
  std::string metric;  // "acc"; behind a named filter "exact_match,strict-match"
  double value = 0;
  double weight = 1;    // of weighted means: words or bytes
  int64_t chosen = -1;  // the choice that the metric takes for the model's answer; -1: it takes none
  int64_t gold = 0;     // of f1 and mcc, whose value is the chosen class: the right one; -1 where it is none of the choices
};

// Kept for paired comparisons and for looking at single answers.
struct DocumentRecord {
  int64_t line = 0;                        // in the data file, from 1
  Json row;                                // the document, behind process_docs
  Json target;                             // what doc_to_target gives
  std::string question;                    // what doc_to_text gives; empty where the choices are the prompts
  std::vector<std::string> prompts;        // as the model got them: one, or one for each choice; of a text scored whole the text
  std::vector<std::string> continuations;  // one for each choice, or one behind every prompt; the probe
  Response response;
  std::string answer;                 // the gold answer
  std::vector<int64_t> gold_choices;  // the right ones among response.log_probs; empty: not a task of choices
  std::vector<std::pair<std::string, std::string>> extracted;  // filter -> the answer that it found in the text
  std::vector<Score> scores;
  double chance = 0;  // expected score of guessing; 0 where that makes no sense
  // Documents with the same number share a passage or a subject and are no independent observations; 0: shares nothing.
  int64_t cluster = 0;

  const Score* find(std::string_view metric) const;  // null where the metric does not concern the document
  std::optional<double> score(std::string_view metric) const;
};

}  // namespace salient::eval
