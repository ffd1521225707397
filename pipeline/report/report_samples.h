// The documents of an evaluation as the report's sample browser shows them.
#pragma once

#include <string>
#include <string_view>

#include "common/json.h"
#include "pipeline/store.h"

namespace salient::pipeline {

// The metric by whose scores a task's documents are told right from wrong: its headline metric, else its first one; empty without
// any. `task`: an entry of "tasks" of eval::to_json(ModelResult).
std::string sample_metric(const Json& task);

// One document:
//   {"t": position of its task, "n": document, "l": its line in the data file, "q": question, "a": right answer, "c": [choices],
//   "g": right choice,
//    "m": {"x": text, "e": extracted answer, "p": [log-probabilities], "k": chosen, "s": score}, "b": the same of the base, "o":
//    outcome}
// What a document does not have is left out; so is "x" of a base that said the same as the model. Long texts are cut.
//
// Right is a score of 0.5 or more. Outcomes: "lost" (the base was right, the model is wrong), "gained", "changed" (another answer,
// as right or as wrong as before), "same"; without a base "right", "wrong", "none" (no score).
Json sample_json(const StoredDocument& document, std::string_view metric);

}  // namespace salient::pipeline
