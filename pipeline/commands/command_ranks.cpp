#include "pipeline/commands/command_ranks.h"

namespace salient::pipeline {
namespace {

thread_local Ranks* current_ranks = nullptr;

}  // namespace

Ranks* command_ranks() { return current_ranks; }

CommandRanksScope::CommandRanksScope(Ranks& ranks) : before_(current_ranks) { current_ranks = &ranks; }

CommandRanksScope::~CommandRanksScope() { current_ranks = before_; }

}  // namespace salient::pipeline
