// Of the program alone, as the libraries know no MPI: run_program_over_ranks of command_ranks.h.
#include <algorithm>
#include <array>
#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "pipeline/commands/command_ranks.h"
#include "pipeline/commands/commands.h"
#include "pipeline/commands/session.h"
#include "pipeline/current_error.h"

namespace salient::pipeline {
namespace {

// How long a rank that failed waits for the others to reach their next exchange before it ends them.
constexpr std::chrono::seconds kPatience{30};

constexpr std::array<std::string_view, 1> kShared = {"quantize"};
constexpr std::array<std::string_view, 1> kAlone = {"hook"};

bool is_one_of(const std::string& word, std::span<const std::string_view> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

// What is only to be read needs no ranks: rank 0 prints it.
bool asks_for_help(const std::vector<std::string>& words) {
  return words.empty() || words[0] == "help" || words[0] == "-h" || words[0] == "--version" ||
         std::find(words.begin(), words.end(), "--help") != words.end();
}

void run_shared(const std::vector<std::string>& words, Ranks& ranks) {
  const CommandRanksScope scope(ranks);
  if (ranks.is_root()) return run_words(words);
  // What every rank would say, rank 0 says.
  const CommandHost silent{[](std::string_view) {}, [](const std::string&) {},
                           [](const std::string&, const std::string&, int64_t, int64_t) {}};
  const CommandHostScope quiet(silent);
  run_words(words);
}

// The error that this rank ended with; nothing where all is well here.
std::optional<Error> run_rank(const std::vector<std::string>& words, Ranks& ranks) {
  try {
    run_shared(words, ranks);
    return std::nullopt;
  } catch (const OtherRankFailed&) {
    return std::nullopt;
  } catch (...) {
    return current_error();
  }
}

int fail_with(const Error& error, bool print) {
  if (print) print_error(error);
  return static_cast<int>(error.kind());
}

}  // namespace

int run_program_over_ranks(const std::vector<std::string>& words, const StartedRanks& started) {
  const bool first = started.rank == 0;
  if (asks_for_help(words)) return first ? run_program(words) : words.empty() ? static_cast<int>(ErrorKind::kInvalidArgument) : 0;
  if (is_one_of(words[0], kAlone)) return run_program(words);
  if (!is_one_of(words[0], kShared)) {
    return fail_with(Error(ErrorKind::kUnsupported,
                           fmt::format("{} cannot be shared over ranks, and the launcher started {}: each would do all of it",
                                       words[0], started.size))
                         .with_hint("start it without mpirun or srun; salient quantize is what ranks share. A program that is a "
                                    "rank itself and calls it "
                                    "takes OMPI_COMM_WORLD_SIZE, PMI_SIZE and PMIX_RANK out of the environment"),
                     first);
  }
  std::unique_ptr<Ranks> ranks;
  try {
    ranks = connect_ranks(started);
  } catch (...) {  // the same on all of them
    return fail_with(current_error(), first);
  }
  const std::optional<Error> own = run_rank(words, *ranks);
  const std::optional<Error> error = ranks->end(own, kPatience);
  if (!error) return 0;
  if (!ranks->scattered()) return fail_with(*error, first);
  print_error(*error);
  ranks->abort(static_cast<int>(error->kind()));
  return static_cast<int>(error->kind());
}

}  // namespace salient::pipeline
