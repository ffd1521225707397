#include "pipeline/quantize_family.h"

#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "common/error.h"
#include "pipeline/quantize_job.h"
#include "support/folder_bytes.h"
#include "support/temporary_folder.h"
#include "support/tiny_quantization.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// Settings of a quantization on the tiny model's first rows.
struct Wish {
  std::string name;
  std::string settings;
  int64_t samples = 40;
};

// Two group sizes and bits on nested sets, held-back rows and none, formats with a head and with other float parts.
const std::vector<Wish> kWishes = {
    {"small_g32", "group_size: 32", 14},
    {"small_g64", "group_size: 64, bits: 3, format: dequantized", 14},
    {"middle_g32", "group_size: 32", 24},
    {"large_g32", "group_size: 32", 40},
    {"large_w8", "group_size: 64, bits: 8, zero_point: false, format: compressed-tensors", 40},
    {"large_nearest", "group_size: 32, rounding: nearest", 40},
    {"middle_kv8", "group_size: 32, format: compressed-tensors, write_runtime_bits: true, kv_cache_bits: 8, activation_bits: 8",
     24},
    {"large_gguf", "format: gguf-q4_0", 40},
};

class Tiny {
 public:
  Tiny() {
    at::set_num_threads(1);
    test::write_tiny_checkpoint(source());
    test::write_tiny_tokens(folder_.path() / "tokens.jsonl", 40);
  }
  fs::path source() const { return folder_.path() / "source"; }
  fs::path path() const { return folder_.path(); }

  QuantizeJob job(const Wish& wish, const fs::path& output) const {
    QuantizeJob job;
    const std::string settings =
        "{propagate_error: false, n_grid: 4, refine: false, clip_steps: 4, self_generated: 0, batch_tokens: 128, "
        "max_calib_seq_len: 32, " +
        wish.settings + "}";
    apply_to_job(make_quantization_config(given_settings(ConfigNode::parse(settings, "test")), "test"), job);
    job.calibration_file = folder_.path() / "tokens.jsonl";
    job.samples = wish.samples;
    job.max_seq_len = 32;
    job.model.model_folder = source();
    job.model.output = output / wish.name;
    job.model.reuse_output = true;
    return job;
  }

  // Each by itself; made once.
  const std::map<std::string, std::string>& alone(const Wish& wish) {
    auto& bytes = alone_[wish.name];
    if (bytes.empty()) bytes = test::folder_bytes(run_quantize_job(job(wish, folder_.path() / "alone")).model.folder);
    return bytes;
  }

 private:
  test::TemporaryFolder folder_;
  std::map<std::string, std::map<std::string, std::string>> alone_;
};

Tiny& tiny() {
  static Tiny tiny;
  return tiny;
}

// Quantizes together; the outputs go to folders of their names in `folder`.
struct Together {
  Together(const std::vector<Wish>& wishes, const fs::path& folder) {
    for (const Wish& wish : wishes) prepared.push_back(prepare_job(tiny().job(wish, folder)));
    options.folder = folder / "work";
    options.on_message = [this](const std::string& line) { said += line + "\n"; };
  }
  std::vector<FamilyOutcome> run() {
    std::vector<FamilyMember> members;
    for (const PreparedJob& job : prepared) members.push_back({job.model, &job.input.blocks});
    return quantize_family(members, options);
  }

  std::vector<PreparedJob> prepared;
  FamilyOptions options;
  std::string said;
};

void expect_alone_bytes(const std::vector<Wish>& wishes, const fs::path& folder) {
  for (const Wish& wish : wishes) {
    SCOPED_TRACE(wish.name);
    const auto& expected = tiny().alone(wish);
    const auto found = test::folder_bytes(folder / wish.name);
    ASSERT_EQ(test::names_of(found), test::names_of(expected));
    for (const auto& [name, bytes] : expected) EXPECT_TRUE(found.at(name) == bytes) << name;
  }
}

TEST(QuantizeFamily, EachHasTheBytesOfItsOwnRun) {
  const test::TemporaryFolder folder;
  Together together(kWishes, folder.path());
  for (const FamilyOutcome& outcome : together.run()) EXPECT_TRUE(outcome.result.has_value());
  expect_alone_bytes(kWishes, folder.path());
  EXPECT_FALSE(fs::exists(folder.path() / "work"));
  // 40 rows of 40 tokens are 50 blocks of 32, 4 in a batch: 13 batches. Of the 5 of 14 rows and the 8 of 24, the last is their own.
  // Rounding to nearest and GGUF's hold nothing back, or as much as others, so that their sums are others or the same.
  EXPECT_THAT(together.said, HasSubstr(fmt::format("{} quantizations on one pass", kWishes.size()))) << together.said;
}

// At every block, of every member.
TEST(QuantizeFamily, StoppedAnywhereItGoesOn) {
  const std::vector<Wish> wishes(kWishes.begin(), kWishes.begin() + 4);
  const test::TemporaryFolder folder;
  struct Stopped {};
  for (int64_t stop = 1; stop < 8; ++stop) {
    Together together(wishes, folder.path());
    int64_t calls = 0;
    together.options.on_progress = [&](int64_t done, int64_t total) {
      EXPECT_EQ(total, 8);
      if (++calls > 1 && done == stop) throw Stopped{};
    };
    EXPECT_THROW(together.run(), Stopped) << stop;
    for (const Wish& wish : wishes) EXPECT_FALSE(fs::exists(folder.path() / wish.name)) << wish.name;
  }
  Together together(wishes, folder.path());
  for (const FamilyOutcome& outcome : together.run()) ASSERT_TRUE(outcome.result.has_value());
  expect_alone_bytes(wishes, folder.path());
}

// New members begin at the first block, the others wait for them; finished ones are taken as they are.
TEST(QuantizeFamily, MembersMayJoinLater) {
  const test::TemporaryFolder folder;
  struct Stopped {};
  {
    Together together({kWishes[0], kWishes[3]}, folder.path());
    together.options.on_progress = [](int64_t done, int64_t) {
      if (done == 3) throw Stopped{};
    };
    EXPECT_THROW(together.run(), Stopped);
  }
  const std::vector<Wish> more{kWishes[0], kWishes[2], kWishes[3], kWishes[4]};
  ASSERT_TRUE(Together(more, folder.path()).run()[3].result.has_value());
  expect_alone_bytes(more, folder.path());
  Together again({kWishes[1], kWishes[3]}, folder.path());
  const auto outcomes = again.run();
  EXPECT_EQ(outcomes[1].result->resumed_blocks, 2);
  expect_alone_bytes({kWishes[1], kWishes[3]}, folder.path());
}

// A stopped member can be finished by a run of its own, and the other way round.
TEST(QuantizeFamily, ASingleRunGoesOnToTheSameBytes) {
  const test::TemporaryFolder folder;
  struct Stopped {};
  Together together({kWishes[0], kWishes[3]}, folder.path());
  together.options.on_progress = [](int64_t done, int64_t) {
    if (done == 3) throw Stopped{};
  };
  EXPECT_THROW(together.run(), Stopped);
  run_quantize_job(tiny().job(kWishes[0], folder.path()));
  QuantizeJob stopped = tiny().job(kWishes[1], folder.path());
  stopped.model.on_progress = [](int64_t done, int64_t) {
    if (done == 1) throw Stopped{};
  };
  EXPECT_THROW(run_quantize_job(stopped), Stopped);
  ASSERT_TRUE(Together({kWishes[1], kWishes[3]}, folder.path()).run()[0].result.has_value());
  expect_alone_bytes({kWishes[0], kWishes[1], kWishes[3]}, folder.path());
}

TEST(QuantizeFamily, OneThatFailsLeavesTheOthers) {
  const test::TemporaryFolder folder;
  Together together({kWishes[2], kWishes[3], kWishes[4]}, folder.path());
  fs::create_directories(folder.path() / kWishes[3].name);  // in the way
  const auto outcomes = together.run();
  EXPECT_FALSE(outcomes[1].result.has_value());
  ASSERT_NE(outcomes[1].error, nullptr);
  try {
    std::rethrow_exception(outcomes[1].error);
  } catch (const Error& error) {
    EXPECT_THAT(error.message(), HasSubstr("exists"));
  }
  expect_alone_bytes({kWishes[2], kWishes[4]}, folder.path());
}

TEST(QuantizeFamily, WhatCannotShareIsAnError) {
  const test::TemporaryFolder folder;
  Together together({kWishes[3]}, folder.path());
  together.prepared.push_back(together.prepared.front());
  together.prepared.back().model.output = folder.path() / "propagating";
  together.prepared.back().model.awq.propagate_error = true;
  const auto outcomes = together.run();
  ASSERT_NE(outcomes[1].error, nullptr);
  try {
    std::rethrow_exception(outcomes[1].error);
  } catch (const Error& error) {
    EXPECT_THAT(error.message(), HasSubstr("propagate_error"));
  }
}

}  // namespace
}  // namespace salient::pipeline
