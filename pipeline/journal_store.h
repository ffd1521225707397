// The store as the journal of an evaluation's requests.
#pragma once

#include "eval/language_model.h"
#include "eval/request_journal.h"
#include "pipeline/store.h"

namespace salient::pipeline {

// Answers are known by the model's files (model_hash) and by what it runs with: dtype, device, bits of activations and cache.
// `fresh`: what is there is not read, but replaced. Answers that a locked store does not take wait (answer_queue.h). `store`
// outlives the journal and its copies.
eval::RequestJournal make_journal(Store& store, const std::string& model_hash, const eval::LanguageModel& model,
                                  bool fresh = false);

}  // namespace salient::pipeline
