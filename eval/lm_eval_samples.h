// Scored documents in the form in which lm-evaluation-harness 0.4.13 logs samples, with its hashes: evaluator.evaluate and
// loggers/evaluation_tracker.py.
#pragma once

#include <string>
#include <vector>

#include "common/json.h"
#include "eval/result.h"

namespace salient::eval {

// One entry for each document and filter, all documents of the first filter first:
//   {"doc_id", "doc", "target", "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": continuation or generation_kwargs}},
//   "resps", "filtered_resps", "filter",
//    "metrics": [names], "doc_hash", "prompt_hash", "target_hash", metric: value}
// The document's columns stand in the order of the task's file, which is read again for it; of files other than JSON and CSV
// they are sorted, so that doc_hash is another one there.
// Requests without context (acc_mutual_info) are left out.
// Errors: those of read_row_order.
std::vector<OrderedJson> lm_eval_samples(const TaskResult& task);

// SHA-256 over the hashes of all samples: an entry of "task_hashes".
std::string lm_eval_task_hash(const std::vector<OrderedJson>& samples);

}  // namespace salient::eval
