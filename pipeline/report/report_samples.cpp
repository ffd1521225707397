#include "pipeline/report/report_samples.h"

#include <algorithm>
#include <optional>
#include <vector>

namespace salient::pipeline {
namespace {

constexpr size_t kMostText = 6000;  // bytes of a text in the page
constexpr double kRight = 0.5;

bool continues_character(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

std::string without_end(const std::string& text) {
  if (text.size() <= kMostText) return text;
  size_t end = kMostText;
  while (end > 0 && continues_character(text[end])) --end;
  return text.substr(0, end) + " …";
}

std::string without_start(const std::string& text) {
  if (text.size() <= kMostText) return text;
  size_t begin = text.size() - kMostText;
  while (begin < text.size() && continues_character(text[begin])) ++begin;
  return "… " + text.substr(begin);
}

std::vector<std::string> texts_of(const Json& document, const char* key) {
  return document.contains(key) ? document.at(key).get<std::vector<std::string>>() : std::vector<std::string>();
}

std::string text_of(const Json& object, const char* key) {
  return object.contains(key) ? object.at(key).get<std::string>() : std::string();
}

// What stands behind the comma of "exact_match,strict-match".
std::string filter_of(std::string_view metric) {
  const size_t comma = metric.find(',');
  return comma == std::string_view::npos ? std::string() : std::string(metric.substr(comma + 1));
}

std::optional<double> score_of(const Json& response, std::string_view metric) {
  const Json& scores = response.at("scores");
  const auto it = scores.find(std::string(metric));
  return it != scores.end() && it->is_number() ? std::optional<double>(it->get<double>()) : std::nullopt;
}

Json answer_json(const Json& response, std::string_view metric, bool has_choices) {
  Json out = Json::object();
  if (response.contains("text")) out["x"] = without_end(text_of(response, "text"));
  if (response.contains("extracted")) {
    const Json& extracted = response.at("extracted");
    if (const auto it = extracted.find(filter_of(metric)); it != extracted.end()) out["e"] = without_end(it->get<std::string>());
  }
  if (response.contains("log_probs")) {
    const Json& log_probs = response.at("log_probs");
    out["p"] = log_probs;
    if (has_choices) {
      const auto less = [](const Json& a, const Json& b) {
        return a.is_number() ? b.is_number() && a < b : b.is_number();
      };  // null: not a number
      out["k"] = std::max_element(log_probs.begin(), log_probs.end(), less) - log_probs.begin();
    }
  }
  if (const auto score = score_of(response, metric)) out["s"] = *score;
  return out;
}

// Whether two models answered differently, of what their answers consist of.
bool differs(const Json& a, const Json& b) {
  for (const char* key : {"k", "e", "x"}) {  // the nearest to what is scored decides
    if (a.contains(key) || b.contains(key)) return a.value(key, Json()) != b.value(key, Json());
  }
  return false;
}

std::string outcome(const Json& model, const Json* base) {
  const bool scored = model.contains("s");
  const bool right = scored && model.at("s").get<double>() >= kRight;
  if (base == nullptr) return !scored ? "none" : right ? "right" : "wrong";
  if (scored && base->contains("s")) {
    const bool was_right = base->at("s").get<double>() >= kRight;
    if (was_right != right) return right ? "gained" : "lost";
  }
  return differs(model, *base) ? "changed" : "same";
}

}  // namespace

std::string sample_metric(const Json& task) {
  // Only of a share of documents it can be said whether one is right.
  const auto is_share = [](const Json& metric) {
    const std::string unit = metric.value("unit", "");
    return metric.value("higher_is_better", true) && (unit == "fraction" || unit == "percent");
  };
  std::string first;
  for (const Json& metric : task.at("metrics")) {
    if (!is_share(metric)) continue;
    if (metric.value("headline", false)) return metric.at("metric").get<std::string>();
    if (first.empty()) first = metric.at("metric").get<std::string>();
  }
  return first;
}

Json sample_json(const StoredDocument& document, std::string_view metric) {
  const Json& shared = document.document;
  Json out = {{"t", document.task}, {"n", document.position}};
  if (shared.contains("line")) out["l"] = shared.at("line");
  const std::vector<std::string> prompts = texts_of(shared, "prompts");
  const std::vector<std::string> continuations = texts_of(shared, "continuations");
  // With texts of their own for each choice, these are the choices, and the one continuation is what is asked.
  const bool choices_are_prompts = prompts.size() > 1;
  const bool has_choices = choices_are_prompts || continuations.size() > 1;
  std::string question = text_of(shared, "question");
  if (question.empty()) question = choices_are_prompts ? "… " + continuations.front() : prompts.empty() ? "" : prompts.front();
  out["q"] = without_start(question);
  out["a"] = without_end(text_of(shared, "answer"));
  if (has_choices) {
    Json& choices = out["c"] = Json::array();
    const std::vector<std::string>& texts = choices_are_prompts ? prompts : continuations;
    for (const std::string& text : texts) choices.push_back(without_start(text));
    if (shared.contains("gold")) out["g"] = shared.at("gold");
  }
  out["m"] = answer_json(document.model, metric, has_choices);
  if (!document.base) {
    out["o"] = outcome(out["m"], nullptr);
    return out;
  }
  Json base = answer_json(*document.base, metric, has_choices);
  out["o"] = outcome(out["m"], &base);
  // A text that is not there is the model's: an empty one has to be said.
  if (!base.contains("x") && out["m"].contains("x")) base["x"] = "";
  if (base.contains("x") && base["x"] == out["m"].value("x", Json())) base.erase("x");
  out["b"] = std::move(base);
  return out;
}

}  // namespace salient::pipeline
