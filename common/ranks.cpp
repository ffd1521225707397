#include "common/ranks.h"

#include <array>
#include <charconv>
#include <cstdlib>
#include <cstring>

namespace salient {
namespace {

std::optional<int> number_of(const char* variable) {
  const char* text = std::getenv(variable);
  if (text == nullptr) return std::nullopt;
  int number = 0;
  const char* end = text + std::strlen(text);
  const auto [stop, failure] = std::from_chars(text, end, number);
  if (failure != std::errc() || stop != end) return std::nullopt;
  return number;
}

struct Launcher {
  const char* rank;
  const char* size;
};

// A step of Slurm says its size whether MPI is meant or not, so that PMIx must have given a rank.
constexpr std::array<Launcher, 3> kLaunchers = {
    {{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"}, {"PMI_RANK", "PMI_SIZE"}, {"PMIX_RANK", "SLURM_STEP_NUM_TASKS"}}};

}  // namespace

StartedRanks started_ranks() {
  for (const Launcher& launcher : kLaunchers) {
    const std::optional<int> rank = number_of(launcher.rank);
    const std::optional<int> size = number_of(launcher.size);
    if (rank && size && *rank >= 0 && *rank < *size) return {*rank, *size};
  }
  return {};
}

}  // namespace salient
