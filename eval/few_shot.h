// Which examples stand before a question: ContextSampler and FirstNSampler of lm-evaluation-harness 0.4.13
// (lm_eval/api/samplers.py). Draws come from one random.Random(seed) of a task, used up document by document in their order.
#pragma once

#include <cstdint>
#include <vector>

#include "common/json.h"
#include "eval/python_random.h"
#include "eval/task.h"

namespace salient::eval {

inline constexpr uint64_t kFewshotSeed = 1234;

class FewshotSampler {
 public:
  // `pool` outlives the sampler.
  FewshotSampler(const TaskDefinition& task, const std::vector<Json>& pool, uint64_t seed);

  // Indices into the pool. Where examples come from the evaluated split itself (as the task names it, both unnamed included), one
  // row more is drawn and rows equal to `row` are left out. Errors: invalid argument for a pool that is too small.
  std::vector<size_t> draw(size_t count, const Json& row);

 private:
  const std::vector<Json>& pool_;
  PythonRandom random_;
  bool first_n_;
  bool from_evaluated_;
};

}  // namespace salient::eval
