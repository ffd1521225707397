#include "eval/document_json.h"

namespace salient::eval {

Json document_json(const DocumentRecord& document) {
  Json out = {{"line", document.line}, {"answer", document.answer}};
  if (!document.gold_choices.empty() && document.gold_choices.front() >= 0) out["gold"] = document.gold_choices.front();
  if (!document.row.is_null()) out["row"] = document.row;
  if (!document.target.is_null()) out["target"] = document.target;
  if (!document.question.empty()) out["question"] = document.question;
  if (!document.prompts.empty()) out["prompts"] = document.prompts;
  if (!document.continuations.empty()) out["continuations"] = document.continuations;
  return out;
}

Json response_json(const DocumentRecord& document) {
  Json scores = Json::object();
  for (const Score& score : document.scores) scores[score.metric] = score.value;
  Json out = {{"scores", std::move(scores)}};
  const Response& response = document.response;
  if (!response.log_probs.empty()) out["log_probs"] = response.log_probs;
  if (!response.text.empty()) out["text"] = response.text;
  if (response.turn != response.text) out["turn"] = response.turn;
  if (!response.is_greedy.empty()) out["is_greedy"] = response.is_greedy;
  for (const auto& [filter, text] : document.extracted) out["extracted"][filter] = text;
  return out;
}

}  // namespace salient::eval
