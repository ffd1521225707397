// Commands whose process is one of several ranks (common/ranks.h).
#pragma once

#include <string>
#include <vector>

#include "common/ranks.h"

namespace salient::pipeline {

// The ranks that the running command of this thread shares its work with; null = it works alone.
Ranks* command_ranks();

// While it lives, commands of this thread work with `ranks`, which outlives it.
class CommandRanksScope {
 public:
  explicit CommandRanksScope(Ranks& ranks);
  ~CommandRanksScope();
  CommandRanksScope(const CommandRanksScope&) = delete;
  CommandRanksScope& operator=(const CommandRanksScope&) = delete;

 private:
  Ranks* before_;
};

// run_program of a process that a launcher started as one of several ranks. Rank 0 prints; whichever rank fails, its error is
// printed once and ends all of them. Commands that cannot share their work are refused, rather than done several times at once;
// `hook` works alone, for the training that calls it may be a rank itself.
int run_program_over_ranks(const std::vector<std::string>& words, const StartedRanks& started);

}  // namespace salient::pipeline
