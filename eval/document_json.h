// A scored document as JSON: what both models of a pair share, and what one of them said. The store and the report read these.
#pragma once

#include "common/json.h"
#include "eval/document_record.h"

namespace salient::eval {

// {"line", "question", "row", "target", "prompts", "continuations", "answer", "gold"}; what is empty is left out.
Json document_json(const DocumentRecord& document);
// {"scores": {metric: value}, "text", "turn", "log_probs", "is_greedy", "extracted": {filter: text}}; what is empty is left out,
// "turn" also where it equals the text.
Json response_json(const DocumentRecord& document);

}  // namespace salient::eval
