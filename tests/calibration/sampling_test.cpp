#include "calibration/sampling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

#include "common/error.h"
#include "common/hash.h"

namespace salient::calibration {
namespace {

std::vector<int64_t> draw(int64_t rows, uint64_t seed, int64_t count) {
  RowSampler sampler(rows, seed);
  std::vector<int64_t> drawn;
  while (static_cast<int64_t>(drawn.size()) < count) {
    const auto row = sampler.next();
    if (!row) break;
    drawn.push_back(*row);
  }
  return drawn;
}

TEST(SampleSize, AutoIsFifteenPercentWithinBounds) {
  const std::pair<int64_t, int64_t> cases[] = {{1, 1},     {7, 7},     {8, 8},     {50, 8},     {56, 8},
                                               {57, 9},    {63, 9},    {64, 10},   {100, 15},   {110, 17},
                                               {856, 128}, {853, 128}, {849, 127}, {2000, 128}, {1000000, 128}};
  for (const auto& [rows, expected] : cases) EXPECT_EQ(sample_size(std::nullopt, rows), expected) << rows;
}

TEST(SampleSize, ANumberIsTakenUpToTheRows) {
  EXPECT_EQ(sample_size(3, 2000), 3);
  EXPECT_EQ(sample_size(500, 200), 200);
}

TEST(SampleSize, Parse) {
  EXPECT_EQ(parse_sample_size("auto"), std::nullopt);
  EXPECT_EQ(parse_sample_size("17"), 17);
  for (const char* text : {"", "0", "-3", "1.5", "12x", "Auto", "99999999999999999999"}) {
    EXPECT_THROW(parse_sample_size(text), Error) << text;
  }
}

TEST(RowSampler, DrawsEveryRowOnce) {
  for (const int64_t rows : {0, 1, 2, 17, 1000}) {
    const auto drawn = draw(rows, 5, rows + 10);
    ASSERT_EQ(static_cast<int64_t>(drawn.size()), rows);
    const std::set<int64_t> distinct(drawn.begin(), drawn.end());
    EXPECT_EQ(static_cast<int64_t>(distinct.size()), rows);
    if (rows > 0) {
      EXPECT_EQ(*distinct.begin(), 0);
      EXPECT_EQ(*distinct.rbegin(), rows - 1);
    }
  }
}

TEST(RowSampler, ASmallerSampleIsTheBeginningOfALargerOne) {
  const auto large = draw(10000, 9, 300);
  const auto small = draw(10000, 9, 40);
  EXPECT_TRUE(std::equal(small.begin(), small.end(), large.begin()));
}

TEST(RowSampler, SeedsDiffer) {
  EXPECT_NE(draw(1000, 1, 20), draw(1000, 2, 20));
  EXPECT_EQ(draw(1000, 1, 20), draw(1000, 1, 20));
}

// Against an independent statement of the same draw: a plain Fisher-Yates shuffle over all rows, of std::mt19937_64's standard
// outputs.
TEST(RowSampler, EqualsAPlainShuffle) {
  const int64_t rows = 500;
  std::mt19937_64 engine(derive_seed(3, "calibration/rows"));
  std::vector<int64_t> all(rows);
  for (int64_t i = 0; i < rows; ++i) all[static_cast<size_t>(i)] = i;
  for (int64_t i = 0; i < rows; ++i) {
    const auto left = static_cast<uint64_t>(rows - i);
    std::swap(all[static_cast<size_t>(i)], all[static_cast<size_t>(i) + engine() % left]);  // no output comes near 2^64 - 500
  }
  EXPECT_EQ(draw(rows, 3, rows), all);
}

TEST(RowSampler, IsEven) {
  std::vector<int> counts(10);
  for (uint64_t seed = 0; seed < 2000; ++seed)
    for (const int64_t row : draw(10, seed, 3)) ++counts[static_cast<size_t>(row)];
  // 600 expected each, standard deviation below 20.5
  for (const int count : counts) EXPECT_NEAR(count, 600, 5 * 20.5);
}

TEST(RowSampler, HugeSetsCostNoMemory) {
  const auto drawn = draw(int64_t{1} << 61, 1, 1000);
  EXPECT_EQ(std::set<int64_t>(drawn.begin(), drawn.end()).size(), 1000u);
  EXPECT_GT(*std::max_element(drawn.begin(), drawn.end()), int64_t{1} << 60);
}

}  // namespace
}  // namespace salient::calibration
