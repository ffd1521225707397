// Quantizations that are stopped and go on.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "calibration/token_blocks.h"
#include "pipeline/quantize_model.h"
#include "support/folder_bytes.h"

namespace salient::test {

// Thrown out of a job to stop it.
struct Stopped {};

// Runs `options` stopped after each number of blocks of `stops` in turn, then to the end: the folder is that of `expected`, byte
// for byte. The last stop is after the last block.
inline void expect_same_bytes_when_stopped(pipeline::QuantizeModelOptions options, const calibration::TokenBlocks& tokens,
                                           const std::vector<int64_t>& stops, const std::map<std::string, std::string>& expected) {
  for (const int64_t stop : stops) {
    options.on_progress = [&](int64_t done, int64_t) {
      if (done == stop) throw Stopped{};
    };
    EXPECT_THROW(pipeline::quantize_model(options, tokens), Stopped);
    EXPECT_FALSE(std::filesystem::exists(options.output));
  }
  options.on_progress = nullptr;
  const pipeline::QuantizeModelResult resumed = pipeline::quantize_model(options, tokens);
  EXPECT_EQ(resumed.resumed_blocks, stops.back());
  const auto found = folder_bytes(resumed.folder);
  ASSERT_EQ(found.size(), expected.size());
  for (const auto& [name, bytes] : expected) EXPECT_TRUE(found.at(name) == bytes) << name;
  EXPECT_FALSE(std::filesystem::exists(options.output.string() + ".partial"));
}

}  // namespace salient::test
