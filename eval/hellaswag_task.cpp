#include "eval/hellaswag_task.h"

#include <algorithm>

#include "common/error.h"
#include "eval/python_regex.h"
#include "models/jinja/text.h"

namespace salient::eval {
namespace {

using models::jinja::replace_all;

// Brackets are remains of WikiHow's markup.
std::string preprocess(std::string_view text) {
  static const PythonRegex kBrackets(R"(\[.*?\])");
  const std::string titles = replace_all(models::jinja::strip(text, nullptr, true, true), " [title]", ". ", -1);
  return replace_all(kBrackets.replace(titles, ""), "  ", " ", -1);
}

}  // namespace

void hellaswag_process_docs(Json& row, const std::string& where) {
  const auto text = [&](const char* key) { return require<std::string>(row, key, where); };
  const Json endings = require<Json>(row, "endings", where);
  if (!endings.is_array() || !std::all_of(endings.begin(), endings.end(), [](const Json& e) { return e.is_string(); })) {
    fail(ErrorKind::kCorruption, "{}: endings: expected a list of strings", where);
  }
  row["query"] = preprocess(text("activity_label") + ": " + text("ctx_a") + " " + models::jinja::capitalize(text("ctx_b")));
  Json choices = Json::array();
  for (const Json& ending : endings) choices.push_back(preprocess(ending.get<std::string>()));
  row["choices"] = std::move(choices);
  // Test rows have an empty label.
  if (const Json label = row.value("label", Json()); label.is_number_integer()) {
    row["gold"] = label;
  } else if (label.is_string() && !label.get<std::string>().empty()) {
    row["gold"] = parse_json(label.get<std::string>(), where + ": label");
  }
}

}  // namespace salient::eval
