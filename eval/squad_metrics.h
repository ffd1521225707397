// Scores of short answers by the rules of SQuAD 2.0 (Rajpurkar, Jia, Liang 2018, official evaluation script; HF evaluate
// `squad_v2`).
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace salient::eval {

// Lower case, without ASCII punctuation, the words a, an and the, and surplus whitespace.
std::string normalize_answer(std::string_view text);

// 1 if the normalised texts are equal, else 0.
double exact_score(std::string_view prediction, std::string_view gold);
// F1 of the multisets of words. When either side has none: 1 if both have none, else 0.
double f1_score(std::string_view prediction, std::string_view gold);

struct AnswerScore {
  double exact = 0;
  double f1 = 0;
};
// The best over the gold answers whose normalised form is not empty; without any of these the gold answer is the empty text.
AnswerScore score_answer(std::string_view prediction, const std::vector<std::string>& gold_answers);

// One question for best_threshold_score.
struct ThresholdItem {
  double score = 0;                 // exact or F1 of the prediction
  bool has_answer = false;          // the question has a gold answer
  bool empty_prediction = false;    // the predicted text is empty
  float no_answer_probability = 0;  // float32, as the reference stores it: its rounding decides ties
};
// best_exact and best_f1: the best mean score, 0 to 1, over all thresholds on no_answer_probability above which a question counts
// as answered by the empty text. 0 for no items.
double best_threshold_score(const std::vector<ThresholdItem>& items);

}  // namespace salient::eval
