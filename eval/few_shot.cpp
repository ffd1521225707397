#include "eval/few_shot.h"

#include "common/error.h"

namespace salient::eval {

FewshotSampler::FewshotSampler(const TaskDefinition& task, const std::vector<Json>& pool, uint64_t seed)
    : pool_(pool),
      random_(seed),
      first_n_(task.fewshot.sampler == "first_n"),
      from_evaluated_(task.fewshot.split == task.test_split) {}

std::vector<size_t> FewshotSampler::draw(size_t count, const Json& row) {
  if (count == 0) return {};
  const auto differs = [&](size_t i) { return !from_evaluated_ || pool_[i] != row; };
  const auto others = [&] {
    std::vector<size_t> out;
    for (size_t i = 0; i < pool_.size(); ++i) {
      if (differs(i)) out.push_back(i);
    }
    return out;
  };
  std::vector<size_t> out;
  if (first_n_) {
    for (const size_t i : others()) {
      if (out.size() < count) out.push_back(i);
    }
    if (out.size() < count) fail(ErrorKind::kInvalidArgument, "{} examples are wanted, the task has {}", count, out.size());
    return out;
  }
  for (const size_t i : random_.sample(pool_.size(), from_evaluated_ ? count + 1 : count)) {
    if (differs(i) && out.size() < count) out.push_back(i);
  }
  if (out.size() == count) return out;
  // More than one copy of the row was drawn: draw again from the others.
  const std::vector<size_t> rest = others();
  out.clear();
  for (const size_t i : random_.sample(rest.size(), count)) out.push_back(rest[i]);
  return out;
}

}  // namespace salient::eval
