#include "models/gguf/imatrix.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "common/file.h"
#include "models/io/gguf.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::models {
namespace {

Imatrix example() {
  Imatrix imatrix;
  imatrix.entries["blk.0.attn_q.weight"] = {at::rand({1, 8}), at::tensor({64.0F})};
  imatrix.entries["blk.0.ffn_down_exps.weight"] = {at::rand({3, 4}), at::tensor({5.0F, 0.0F, 7.0F})};
  imatrix.datasets = {"rows.jsonl"};
  imatrix.chunk_count = 3;
  imatrix.chunk_size = 512;
  return imatrix;
}

TEST(ImatrixTest, WhatIsWrittenIsRead) {
  const test::TemporaryFolder folder;
  const Imatrix written = example();
  write_imatrix(folder.path() / "imatrix.gguf", written);
  const Imatrix read = read_imatrix(folder.path() / "imatrix.gguf");
  ASSERT_EQ(read.entries.size(), 2U);
  for (const auto& [name, entry] : written.entries) {
    EXPECT_TRUE(at::equal(read.entries.at(name).sum_of_squares, entry.sum_of_squares)) << name;
    EXPECT_TRUE(at::equal(read.entries.at(name).counts, entry.counts)) << name;
  }
  EXPECT_THAT(read.datasets, testing::ElementsAre("rows.jsonl"));
  EXPECT_EQ(read.chunk_count, 3);
  EXPECT_EQ(read.chunk_size, 512);
  write_imatrix(folder.path() / "again.gguf", read);
  EXPECT_TRUE(read_text_file(folder.path() / "again.gguf") == read_text_file(folder.path() / "imatrix.gguf"));
}

TEST(ImatrixTest, TheFileHasLlamaCppsKeysAndTensors) {
  const test::TemporaryFolder folder;
  write_imatrix(folder.path() / "imatrix.gguf", example());
  const GgufFile file(folder.path() / "imatrix.gguf");
  EXPECT_EQ(gguf_value<std::string>(file.header(), "general.type"), "imatrix");
  EXPECT_EQ(gguf_value<uint32_t>(file.header(), "imatrix.chunk_count"), 3U);
  EXPECT_EQ(file.tensor("blk.0.ffn_down_exps.weight.in_sum2").shape, (std::vector<int64_t>{3, 4}));
  EXPECT_EQ(file.tensor("blk.0.ffn_down_exps.weight.counts").shape, (std::vector<int64_t>{3, 1}));
}

TEST(ImatrixTest, ImportanceIsTheMeanAndOnesWithoutTokens) {
  const at::Tensor importance =
      imatrix_importance({at::tensor({8.0F, 4.0F, 9.0F, 9.0F}).reshape({2, 2}), at::tensor({4.0F, 0.0F})});
  EXPECT_TRUE(at::equal(importance, at::tensor({2.0F, 1.0F, 1.0F, 1.0F}).reshape({2, 2})));
}

template <typename T>
void put(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

std::string old_file() {
  std::string bytes;
  put<int32_t>(bytes, 1);
  put<int32_t>(bytes, 19);
  bytes += "blk.0.attn_q.weight";
  put<int32_t>(bytes, 4);  // calls
  put<int32_t>(bytes, 2);
  for (const float value : {8.0F, 2.0F}) put(bytes, value);  // mean times calls
  put<int32_t>(bytes, 11);
  put<int32_t>(bytes, 4);
  return bytes + "text";
}

TEST(ImatrixTest, TheOldFormatIsRead) {
  const test::TemporaryFolder folder;
  write_file(folder.path() / "imatrix.dat", old_file());
  const Imatrix read = read_imatrix(folder.path() / "imatrix.dat");
  EXPECT_TRUE(at::equal(imatrix_importance(read.entries.at("blk.0.attn_q.weight")), at::tensor({2.0F, 0.5F}).reshape({1, 2})));
  EXPECT_EQ(read.chunk_count, 11);
  EXPECT_THAT(read.datasets, testing::ElementsAre("text"));
}

TEST(ImatrixTest, BrokenFilesAreRefused) {
  const test::TemporaryFolder folder;
  const std::string whole = old_file();
  for (size_t size = 0; size < whole.size(); ++size) {
    if (size == 43 || size == 47) continue;  // after the entries, and after the chunks: older files end there
    write_file(folder.path() / "cut.dat", whole.substr(0, size));
    test::error_of([&] { read_imatrix(folder.path() / "cut.dat"); }, ErrorKind::kCorruption);
  }
  std::string bad = whole;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  bad.replace(35, sizeof nan, reinterpret_cast<const char*>(&nan), sizeof nan);
  write_file(folder.path() / "nan.dat", bad);
  test::error_of([&] { read_imatrix(folder.path() / "nan.dat"); }, ErrorKind::kCorruption);
}

// A GGUF file by hand: the writer refuses such shapes.
std::string file_with_sums(const std::vector<uint64_t>& dimensions) {
  std::string bytes = "GGUF";
  const auto put_text = [&](const std::string& text) {
    put<uint64_t>(bytes, text.size());
    bytes += text;
  };
  const auto put_tensor = [&](const std::string& name, const std::vector<uint64_t>& sizes, uint64_t offset) {
    put_text(name);
    put(bytes, static_cast<uint32_t>(sizes.size()));
    for (const uint64_t size : sizes) put(bytes, size);
    put<uint32_t>(bytes, 0);  // F32
    put(bytes, offset);
  };
  put<uint32_t>(bytes, 3);
  put<uint64_t>(bytes, 2);
  put<uint64_t>(bytes, 1);
  put_text("general.type");
  put<uint32_t>(bytes, 8);
  put_text("imatrix");
  put_tensor("a.in_sum2", dimensions, 0);
  const bool empty = std::find(dimensions.begin(), dimensions.end(), 0U) != dimensions.end();
  put_tensor("a.counts", {1}, empty ? 0 : 32);
  bytes.resize((bytes.size() + 31) / 32 * 32 + (empty ? 32 : 64), '\0');
  return bytes;
}

TEST(ImatrixTest, SumsOfNoColumnsAreRefused) {
  const test::TemporaryFolder folder;
  const auto read = [&](const std::vector<uint64_t>& dimensions) {
    write_file(folder.path() / "a.gguf", file_with_sums(dimensions));
    return read_imatrix(folder.path() / "a.gguf");
  };
  EXPECT_EQ(read({2, 1}).entries.at("a").sum_of_squares.size(1), 2);
  for (const std::vector<uint64_t>& dimensions : std::vector<std::vector<uint64_t>>{{}, {0}, {0, 1}})
    EXPECT_THAT(test::message_of([&] { read(dimensions); }, ErrorKind::kCorruption), testing::HasSubstr("a.in_sum2"));
}

TEST(ImatrixTest, ImpossibleNumbersAreNotWritten) {
  const test::TemporaryFolder folder;
  const auto refuse = [&](ImatrixEntry entry) {
    Imatrix imatrix;
    imatrix.entries["a"] = std::move(entry);
    test::error_of([&] { write_imatrix(folder.path() / "a.gguf", imatrix); }, ErrorKind::kInvalidArgument);
  };
  refuse({at::full({1, 2}, -1.0F), at::tensor({1.0F})});
  refuse({at::full({1, 2}, std::numeric_limits<float>::infinity()), at::tensor({1.0F})});
  refuse({at::full({2, 2}, 1.0F), at::tensor({1.0F})});
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "a.gguf"));
}

}  // namespace
}  // namespace salient::models
