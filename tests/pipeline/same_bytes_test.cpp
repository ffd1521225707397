// The same settings give the same artifact, byte for byte, for every number of threads and every size of what is worked on at a
// time.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "support/folder_bytes.h"
#include "support/thread_count.h"
#include "support/tiny_quantization.h"

namespace salient::pipeline {
namespace {
namespace fs = std::filesystem;

void expect_same_bytes(const fs::path& folder, const fs::path& expected_folder, const std::vector<std::string>& left_out = {}) {
  const auto expected = test::folder_bytes(expected_folder);
  const auto found = test::folder_bytes(folder);
  ASSERT_EQ(test::names_of(found), test::names_of(expected));
  for (const auto& [name, bytes] : expected) {
    if (std::find(left_out.begin(), left_out.end(), name) != left_out.end()) continue;
    EXPECT_TRUE(found.at(name) == bytes) << name << " has other bytes";
  }
}

// Every way of choosing scales, clips and codes, and what is measured on the way.
const std::vector<std::string> kSettings = {
    "format: awq-gemm, refine: true, self_generated: 0.5, bits: 4",
    "format: compressed-tensors, bits: 3, zero_point: false, rows_curve: true",
    "format: gguf-q4_k_m, pad_intermediate: auto",
    "format: smoothed, duo_scaling: false",
    "objective: block",
    "method: gptq, format: awq-gemv, group_size: 64",
    "method: adaround, max_calib_samples: 15",
    "salient_ratio: 0.02, bit_choices: [3, 4, 8], target_bits: 4.5, max_calib_samples: 15",
};

TEST(SameBytes, ForEveryNumberOfThreads) {
  for (const std::string& settings : kSettings) {
    SCOPED_TRACE(settings);
    fs::path first;
    test::TinyQuantization tiny;
    for (const int threads : test::kThreadCounts) {
      SCOPED_TRACE(threads);
      const test::ThreadCount count(threads);
      // Words that name the same settings and make an artifact of their own.
      const fs::path folder = tiny(settings + std::string(static_cast<size_t>(threads), ' ')).folder;
      if (first.empty()) first = folder;
      expect_same_bytes(folder, first);
    }
  }
}

// The manifest and the card say how many tokens and how much memory there were at a time; everything else has the same bytes.
TEST(SameBytes, ForEveryNumberOfTokensAtATime) {
  test::TinyQuantization tiny;
  for (const std::string& settings : kSettings) {
    SCOPED_TRACE(settings);
    const fs::path first = tiny(settings).folder;
    for (const char* at_a_time : {"batch_tokens: 1", "batch_tokens: 170", "max_chunk_memory: 100KB"}) {
      SCOPED_TRACE(at_a_time);
      expect_same_bytes(tiny(settings + ", " + at_a_time).folder, first, {"quantization_metadata.json", "README.md"});
    }
  }
}

}  // namespace
}  // namespace salient::pipeline
