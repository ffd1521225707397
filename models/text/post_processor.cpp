#include "models/text/post_processor.h"

#include <limits>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "models/text/part_table.h"
#include "models/text/text_pattern.h"

namespace salient::models {
namespace {

using Runs = PostProcessor::Runs;
using Steps = std::vector<PostProcessor::Step>;
using Make = void (*)(const Json&, std::string_view, Steps&);

void add_part(const Json& part, std::string_view where, Steps& steps);

TokenId check_id(const Json& value, std::string_view where) {
  const bool fits =
      value.is_number_integer() && value.get<int64_t>() >= 0 && value.get<int64_t>() <= std::numeric_limits<TokenId>::max();
  if (!fits) fail(ErrorKind::kCorruption, "{}: found {}, expected a token id", where, dump_json(value).substr(0, 60));
  return value.get<TokenId>();
}

// ["[SEP]", 102]
TokenId require_named_id(const Json& part, std::string_view key, std::string_view where) {
  const Json pair = require_list(part, key, where);
  if (pair.size() != 2)
    fail(ErrorKind::kCorruption, "{}: key '{}': found {}, expected [token, id]", where, key, dump_json(pair).substr(0, 60));
  return check_id(pair[1], fmt::format("{}.{}", where, key));
}

// One item of a template: special tokens, or (none given) the text, as run number `sequence`.
struct TemplateItem {
  std::optional<std::vector<TokenId>> special;
  size_t sequence = 0;
};

std::vector<TemplateItem> read_template(const Json& part, std::string_view key, std::string_view where) {
  std::map<std::string, std::vector<TokenId>> special;
  const Json tokens = value_or<Json>(part, "special_tokens", Json::object(), where);
  for (const auto& [name, token] : tokens.items()) {
    const std::string token_where = fmt::format("{}.special_tokens.{}", where, name);
    for (const Json& id : require_list(token, "ids", token_where)) special[name].push_back(check_id(id, token_where + ".ids"));
  }
  std::vector<TemplateItem> items;
  const Json list = require_list(part, key, where);
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string item_where = element_name(where, key, i);
    if (list[i].is_object() && list[i].contains("Sequence")) {
      const auto name = require<std::string>(list[i]["Sequence"], "id", item_where);
      if (name != "A" && name != "B")
        fail(ErrorKind::kCorruption, "{}: key 'id': found '{}', expected 'A' or 'B'", item_where, name);
      items.push_back({std::nullopt, name == "B" ? size_t{1} : size_t{0}});
    } else if (list[i].is_object() && list[i].contains("SpecialToken")) {
      const auto name = require<std::string>(list[i]["SpecialToken"], "id", item_where);
      const auto it = special.find(name);
      if (it == special.end()) fail(ErrorKind::kCorruption, "{}: special token '{}' is not in special_tokens", item_where, name);
      items.push_back({it->second, 0});
    } else {
      fail(ErrorKind::kCorruption, "{}: found {}, expected {{\"Sequence\": ...}} or {{\"SpecialToken\": ...}}", item_where,
           dump_json(list[i]).substr(0, 60));
    }
  }
  return items;
}

void make_template(const Json& part, std::string_view where, Steps& steps) {
  steps.push_back([single = read_template(part, "single", where), pair = read_template(part, "pair", where),
                   name = std::string(where)](Runs& runs, bool add_special_tokens) {
    if (runs.empty() || runs.size() > 2)
      fail(ErrorKind::kUnsupported, "{}: a template behind processors that made {} parts", name, runs.size());
    Runs result;
    for (const TemplateItem& item : runs.size() == 1 ? single : pair) {
      if (item.special) {
        if (add_special_tokens) result.push_back(*item.special);
      } else if (item.sequence < runs.size()) {
        result.push_back(runs[item.sequence]);
      } else {
        fail(ErrorKind::kUnsupported, "{}: the template for one text names a second one", name);
      }
    }
    runs = std::move(result);
  });
}

// BERT and RoBERTa differ in what they put between two texts.
Steps::value_type surround(TokenId first, TokenId last, bool first_of_each) {
  return [=](Runs& runs, bool add_special_tokens) {
    if (!add_special_tokens) return;
    for (size_t i = 0; i < runs.size(); ++i) {
      if (i == 0) {
        runs[i].insert(runs[i].begin(), first);
      } else if (first_of_each) {
        runs[i].insert(runs[i].begin(), last);
      }
      runs[i].push_back(last);
    }
  };
}

void make_bert(const Json& part, std::string_view where, Steps& steps) {
  steps.push_back(surround(require_named_id(part, "cls", where), require_named_id(part, "sep", where), false));
}

void make_roberta(const Json& part, std::string_view where, Steps& steps) {
  steps.push_back(surround(require_named_id(part, "cls", where), require_named_id(part, "sep", where), true));
}

void make_byte_level(const Json&, std::string_view, Steps&) {}  // changes offsets only

void make_sequence(const Json& part, std::string_view where, Steps& steps) {
  const Json list = require_list(part, "processors", where);
  for (size_t i = 0; i < list.size(); ++i) add_part(list[i], element_name(where, "processors", i), steps);
}

constexpr PartKind<Make> kKinds[] = {
    {"TemplateProcessing", make_template}, {"ByteLevel", make_byte_level}, {"BertProcessing", make_bert},
    {"RobertaProcessing", make_roberta},   {"Sequence", make_sequence},
};

void add_part(const Json& part, std::string_view where, Steps& steps) {
  find_part<Make>(part, kKinds, "post-processor", where)(part, where, steps);
}

}  // namespace

PostProcessor PostProcessor::from_json(const Json& part, std::string_view where) {
  PostProcessor processor;
  if (!part.is_null()) add_part(part, where, processor.steps_);
  return processor;
}

std::vector<TokenId> PostProcessor::apply(std::vector<TokenId> ids, bool add_special_tokens) const {
  if (steps_.empty()) return ids;
  Runs runs;
  runs.push_back(std::move(ids));
  for (const Step& step : steps_) step(runs, add_special_tokens);
  std::vector<TokenId> joined;
  for (const auto& run : runs) joined.insert(joined.end(), run.begin(), run.end());
  return joined;
}

}  // namespace salient::models
