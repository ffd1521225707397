// Log-likelihoods as the journal keeps them: in units that are computed alike whatever else runs, a tree of inputs or a padded
// batch.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "eval/scored_inputs.h"

namespace salient::eval {

// What runs together: inputs in order, and under which key they are known. Nothing where there is no journal.
struct LikelihoodUnit {
  std::span<const size_t> inputs;
  std::string key;
};

class LikelihoodJournal {
 public:
  // Both outlive it. `journal` may be null: then it is empty, and keeps nothing.
  LikelihoodJournal(const RequestJournal* journal, const ScoredInputs& scored) : journal_(journal), scored_(scored) {}

  bool is_there() const { return journal_ != nullptr; }
  // Adds what is asked behind the input.
  void add_requests(JournalKey& key, size_t input) const;

  // Whether all units are known; their likelihoods then stand in `out`, one for each request. All or nothing: what is missing of a
  // batch is rare, and computed again with the rest.
  bool read(std::span<const LikelihoodUnit> units, std::vector<Likelihood>& out) const;
  void write(std::span<const LikelihoodUnit> units, const std::vector<Likelihood>& likelihoods) const;

 private:
  const RequestJournal* journal_;
  const ScoredInputs& scored_;
};

// Requests of these inputs, in order.
std::vector<size_t> requests_of(const ScoredInputs& scored, std::span<const size_t> inputs);

}  // namespace salient::eval
