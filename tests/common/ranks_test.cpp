// What launchers say in the environment. The exchanges themselves: tests/pipeline/mpi_quantize_test.cpp.
#include "common/ranks.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>

namespace salient {
namespace {

class Started : public testing::Test {
 protected:
  void SetUp() override { clear(); }
  void TearDown() override { clear(); }
  static void clear() {
    for (const char* name : {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMI_SIZE", "PMIX_RANK",
                             "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"})
      ::unsetenv(name);
  }
  static StartedRanks with(const std::map<std::string, std::string>& environment) {
    clear();
    for (const auto& [name, value] : environment) ::setenv(name.c_str(), value.c_str(), 1);
    return started_ranks();
  }
};

void expect_ranks(const StartedRanks& found, int rank, int size) {
  EXPECT_EQ(found.rank, rank);
  EXPECT_EQ(found.size, size);
}

TEST_F(Started, ByNobodyIsOneRank) { expect_ranks(with({}), 0, 1); }

TEST_F(Started, ByEveryLauncherIsKnown) {
  expect_ranks(with({{"OMPI_COMM_WORLD_RANK", "3"}, {"OMPI_COMM_WORLD_SIZE", "4"}}), 3, 4);
  expect_ranks(with({{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}}), 1, 2);
  expect_ranks(with({{"PMIX_RANK", "7"}, {"SLURM_STEP_NUM_TASKS", "8"}}), 7, 8);
}

// In a batch script of Slurm every program sees how many tasks there could be.
TEST_F(Started, ByABatchScriptIsOneRank) {
  expect_ranks(with({{"SLURM_NTASKS", "8"}}), 0, 1);
  expect_ranks(with({{"SLURM_STEP_NUM_TASKS", "8"}}), 0, 1);
}

TEST_F(Started, WithNumbersThatMakeNoSenseIsOneRank) {
  for (const auto& [rank, size] :
       std::map<std::string, std::string>{{"4", "4"}, {"-1", "2"}, {"x", "2"}, {"0x1", "2"}, {"", "2"}, {"0", ""}, {"1 ", "2"}})
    expect_ranks(with({{"OMPI_COMM_WORLD_RANK", rank}, {"OMPI_COMM_WORLD_SIZE", size}}), 0, 1);
}

}  // namespace
}  // namespace salient
