#include "pipeline/commands/command_ranks.h"
#include "pipeline/commands/commands.h"

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  const salient::StartedRanks started = salient::started_ranks();
  return started.size > 1 ? salient::pipeline::run_program_over_ranks(words, started) : salient::pipeline::run_program(words);
}
