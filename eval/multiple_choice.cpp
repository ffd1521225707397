#include "eval/multiple_choice.h"

#include <algorithm>

#include "common/error.h"
#include "eval/unicode_text.h"

namespace salient::eval {
namespace {

std::vector<std::string> string_list(const Json& object, const char* key, const std::string& where) {
  const Json list = require<Json>(object, key, where);
  if (!list.is_array() || !std::all_of(list.begin(), list.end(), [](const Json& item) { return item.is_string(); })) {
    fail(ErrorKind::kCorruption, "{}: choices.{}: expected a list of strings", where, key);
  }
  return list.get<std::vector<std::string>>();
}

size_t index_of_largest(const std::vector<double>& values) {
  return static_cast<size_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

}  // namespace

Choices labelled_choices(const Json& row, const std::string& where) {
  const Json choices = require<Json>(row, "choices", where);
  if (!choices.is_object()) fail(ErrorKind::kCorruption, "{}: choices: expected an object with text and label", where);
  const auto labels = string_list(choices, "label", where);
  Choices out{string_list(choices, "text", where), 0};
  if (out.texts.size() != labels.size() || labels.empty()) {
    fail(ErrorKind::kCorruption, "{}: {} choice texts and {} labels: expected as many of each, at least one", where, out.texts.size(),
         labels.size());
  }
  const auto key = require<std::string>(row, "answerKey", where);
  const auto found = std::find(labels.begin(), labels.end(), key);
  if (found == labels.end()) fail(ErrorKind::kCorruption, "{}: answerKey \"{}\" is none of the choices' labels", where, key);
  out.gold = static_cast<size_t>(found - labels.begin());
  return out;
}

std::vector<Score> score_choices(const Json& row, const Response& response) {
  const Choices choices = labelled_choices(row, "");
  std::vector<double> normalized = response.log_probs;
  for (size_t i = 0; i < normalized.size(); ++i) {
    normalized[i] /= static_cast<double>(std::max<int64_t>(1, count_code_points(choices.texts[i])));
  }
  return {{"acc", index_of_largest(response.log_probs) == choices.gold ? 1.0 : 0.0},
          {"acc_norm", index_of_largest(normalized) == choices.gold ? 1.0 : 0.0}};
}

}  // namespace salient::eval
