#include "eval/response_filters.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "common/error.h"
#include "common/text.h"
#include "eval/exact_match.h"
#include "eval/python_regex.h"
#include "eval/unicode_text.h"
#include "models/jinja/text.h"

namespace salient::eval {
namespace {

namespace text = models::jinja;
using Texts = std::vector<std::string>;

constexpr std::string_view kNoMatch = "[invalid]";

std::string trimmed(std::string_view value) { return std::string(text::strip(value, nullptr, true, true)); }

struct RegexStep {
  explicit RegexStep(const Json& arguments)
      : regex(arguments.value("regex_pattern", R"(#### (\-?[0-9\.\,]+))")),
        group_select(arguments.value("group_select", int64_t{0})),
        fallback(arguments.value("fallback", std::string(kNoMatch))) {}

  // The chosen match of any expression; nothing where there is no such match, or none of its groups took part.
  std::optional<std::string> find(const PythonRegex& expression, std::string_view response) const {
    const auto matches = expression.find_all(response);
    const auto count = static_cast<int64_t>(matches.size());
    const int64_t index = group_select < 0 ? count + group_select : group_select;
    if (index < 0 || index >= count) return std::nullopt;
    const PythonRegex::Match& match = matches[static_cast<size_t>(index)];
    if (match.groups.empty()) return trimmed(response.substr(match.begin, match.end - match.begin));
    if (match.groups.size() == 1) return trimmed(match.groups[0]);
    const auto group = std::find_if(match.groups.begin(), match.groups.end(), [](const std::string& g) { return !g.empty(); });
    if (group == match.groups.end()) return std::nullopt;
    return trimmed(*group);
  }
  std::string operator()(std::string_view response) const {
    const auto match = find(regex, response);
    return match ? *match : fallback;
  }

  PythonRegex regex;
  int64_t group_select;
  std::string fallback;
};

std::string escaped(std::string_view literal) {
  std::string out;
  for (const char c : literal) {
    if ((c & 0x80) == 0 && std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '_') out += '\\';
    out += c;
  }
  return out;
}

std::string without_punctuation(std::string_view value) {
  std::vector<char32_t> kept = to_code_points(value);
  std::erase_if(kept, is_punctuation);
  return to_utf8(kept);
}

// A choice that the response holds, else a letter behind a colon.
std::string find_choice(const RegexStep& step, const TextCleaner& cleaner, bool ignore_punctuation, const std::string& response,
                        const Document& document) {
  if (const auto match = step.find(step.regex, response); match && !match->empty()) return *match;
  const auto clean = [&](std::string_view value) {
    const std::string cleaned = cleaner(value);
    return ignore_punctuation ? without_punctuation(cleaned) : cleaned;
  };
  std::vector<std::string> patterns;
  std::string letters;
  std::map<std::string, std::string> letter_of;
  char letter = 'A';
  const auto choices = document.row->find("choices");
  if (choices == document.row->end() || !choices->is_array() ||
      !std::all_of(choices->begin(), choices->end(), [](const Json& choice) { return choice.is_string(); })) {
    fail(ErrorKind::kCorruption, "{}: the filter multi_choice_regex needs the column choices, a list of texts", document.where);
  }
  for (const Json& choice : *choices) {
    const std::string cleaned = clean(trimmed(choice.get<std::string>()));
    patterns.push_back(escaped(cleaned));
    letter_of[cleaned] = fmt::format("({})", letter);
    letters += fmt::format("{}{}", letters.empty() ? "" : "|", letter);
    ++letter;
  }
  // The longest first: a choice may begin another.
  std::stable_sort(patterns.begin(), patterns.end(), [](const auto& a, const auto& b) { return a.size() > b.size(); });
  if (const auto match = step.find(PythonRegex(fmt::format("{}", fmt::join(patterns, "|"))), clean(response));
      match && !match->empty()) {
    const auto found = letter_of.find(*match);
    return found == letter_of.end() ? *match : found->second;
  }
  if (const auto match = step.find(PythonRegex(fmt::format(":[\\s]*({})", letters)), response); match && !match->empty())
    return fmt::format("({})", *match);
  return step.fallback;
}

// But for punctuation, which for this filter is Unicode's, where exact_match knows ASCII's.
ExactMatchRules choice_rules(const Json& arguments) {
  return {arguments.value("regexes_to_ignore", std::vector<std::string>()), arguments.value("ignore_case", false), false, false};
}

// Texts of a mapping are taken as they are, other values as Python prints them.
std::string printed(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_null()) return "None";
  if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
  return dump_json(value);
}

std::string majority(const Texts& texts) {
  const std::string* best = nullptr;
  std::ptrdiff_t most = 0;
  for (const std::string& candidate : texts) {  // the first of equally frequent ones
    const auto count = std::count(texts.begin(), texts.end(), candidate);
    if (count > most) {
      most = count;
      best = &candidate;
    }
  }
  return best == nullptr ? std::string() : *best;
}

template <typename Change>
void change_each(std::vector<Texts>& responses, const Change& change) {
  for (Texts& texts : responses) {
    for (std::string& value : texts) value = change(value);
  }
}

void keep_first(std::vector<Texts>& responses, size_t count) {
  for (Texts& texts : responses) {
    if (texts.size() < count)
      fail(ErrorKind::kInvalidArgument, "the filter take_first_k needs {} responses, there are {}; raise repeats", count,
           texts.size());
    texts.resize(count);
  }
}

void apply(const FilterStep& step, std::vector<Texts>& responses, std::span<const Document> documents) {
  const Json& arguments = step.arguments;
  if (step.function == "regex") {
    change_each(responses, RegexStep(arguments));
  } else if (step.function == "multi_choice_regex") {
    const RegexStep regex(arguments);
    const TextCleaner cleaner(choice_rules(arguments));
    const bool ignore_punctuation = arguments.value("ignore_punctuation", false);
    for (size_t i = 0; i < responses.size(); ++i) {
      for (std::string& value : responses[i]) value = find_choice(regex, cleaner, ignore_punctuation, value, documents[i]);
    }
  } else if (step.function == "remove_whitespace") {
    change_each(responses, [](const std::string& value) { return trimmed(value); });
  } else if (step.function == "lowercase") {
    change_each(responses, [](const std::string& value) { return text::to_lower(value); });
  } else if (step.function == "uppercase") {
    change_each(responses, [](const std::string& value) { return text::to_upper(value); });
  } else if (step.function == "map") {
    const Json mapping = arguments.value("mapping_dict", Json::object());
    const std::string fallback = printed(arguments.value("default_value", Json()));
    change_each(responses,
                [&](const std::string& value) { return mapping.contains(value) ? printed(mapping.at(value)) : fallback; });
  } else if (step.function == "take_first") {
    keep_first(responses, 1);
  } else if (step.function == "take_first_k") {
    keep_first(responses, arguments.at("k").get<size_t>());
  } else {
    for (Texts& texts : responses) texts = {majority(texts)};
  }
}

struct FilterRow {
  std::string_view name;
  std::vector<std::string_view> arguments;
};
const std::vector<FilterRow> kFilters = {
    {"regex", {"regex_pattern", "group_select", "fallback"}},
    {"multi_choice_regex", {"regex_pattern", "group_select", "fallback", "ignore_case", "ignore_punctuation", "regexes_to_ignore"}},
    {"remove_whitespace", {}},
    {"lowercase", {}},
    {"uppercase", {}},
    {"map", {"mapping_dict", "default_value"}},
    {"take_first", {}},
    {"take_first_k", {"k"}},
    {"majority_vote", {}},
};

}  // namespace

void check_filter(const FilterStep& step) {
  std::vector<std::string> names;
  for (const FilterRow& row : kFilters) {
    names.emplace_back(row.name);
    if (row.name != step.function) continue;
    for (const auto& [key, value] : step.arguments.items()) {
      if (std::find(row.arguments.begin(), row.arguments.end(), key) == row.arguments.end()) {
        fail(ErrorKind::kInvalidArgument, "filter {}: unknown argument '{}'{}", step.function, key,
             row.arguments.empty() ? "; it has none" : fmt::format(", expected {}", fmt::join(row.arguments, ", ")));
      }
    }
    try {
      if (step.function.ends_with("regex")) (void)RegexStep{step.arguments};
      if (step.function == "multi_choice_regex") {
        (void)TextCleaner{choice_rules(step.arguments)};
        step.arguments.value("ignore_punctuation", false);
      }
      if (step.function == "take_first_k") step.arguments.at("k").get<size_t>();
    } catch (const Json::exception& error) {
      fail(ErrorKind::kInvalidArgument, "filter {}: an argument is missing or of the wrong kind: {}", step.function, error.what());
    }
    return;
  }
  fail(ErrorKind::kInvalidArgument, "unknown filter '{}'{}; there are: {}", step.function, did_you_mean(step.function, names),
       fmt::join(names, ", "));
}

std::vector<std::string> apply_filters(const FilterPipeline& pipeline, const std::vector<std::vector<std::string>>& responses,
                                       std::span<const Document> documents) {
  std::vector<Texts> state = responses;
  for (const FilterStep& step : pipeline.steps) apply(step, state, documents);
  std::vector<std::string> out;
  for (Texts& texts : state) out.push_back(texts.empty() ? std::string() : std::move(texts.front()));
  return out;
}

std::optional<std::string> no_match_text(const FilterPipeline& pipeline) {
  for (const FilterStep& step : pipeline.steps) {
    if (step.function == "regex" || step.function == "multi_choice_regex")
      return step.arguments.value("fallback", std::string(kNoMatch));
  }
  return std::nullopt;
}

}  // namespace salient::eval
