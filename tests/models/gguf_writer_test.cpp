#include "models/io/gguf_writer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "common/error.h"
#include "common/file.h"
#include "models/io/gguf.h"
#include "support/temporary_folder.h"

namespace salient::models {
namespace {

using quant::GgmlType;
using test::TemporaryFolder;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

const fs::path kGolden = fs::path(SALIENT_SOURCE_DIR) / "tests/data/gguf/written_by_gguf.gguf";

std::string message_of(const std::function<void()>& body, ErrorKind kind) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.message();
    return error.message();
  }
  ADD_FAILURE() << "no error";
  return "";
}

// Reading the Python package's file and writing what was read gives its bytes.
TEST(GgufWriter, WritesTheBytesOfThePythonPackage) {
  const TemporaryFolder folder;
  const GgufFile golden(kGolden);
  const fs::path path = folder.path() / "copy.gguf";
  GgufWriter writer(path, golden.header().metadata, golden.header().tensors);
  EXPECT_EQ(writer.file_bytes(), fs::file_size(kGolden));
  for (const GgufTensor& tensor : golden.header().tensors) writer.append(tensor.name, golden.view(tensor.name));
  EXPECT_FALSE(fs::exists(path));
  writer.finish();
  EXPECT_EQ(read_text_file(path), read_text_file(kGolden));
}

TEST(GgufWriter, TakesTensorsInPartsAndInTheirOwnDtype) {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "deep/er/m.gguf";
  const at::Tensor weight = at::arange(96 * 4, at::kFloat).view({4, 96});
  const at::Tensor blocks = quant::quantize_ggml(weight, GgmlType::kQ8_0);
  GgufWriter writer(path, {{"general.architecture", std::string("llama")}},
                    {{"blocks", GgmlType::kQ8_0, {2, 2, 96}},
                     {"half", GgmlType::kF16, {96, 4}},
                     {"wide", GgmlType::kBF16, {4, 96}},
                     {"norm", GgmlType::kF32, {96}}});
  for (int64_t row = 0; row < 4; ++row) writer.append("blocks", blocks[row]);
  writer.append("half", weight.t().to(at::kHalf));
  writer.append("wide", weight.to(at::kBFloat16));
  writer.append("norm", weight[1]);
  writer.finish();
  const GgufFile file(path);
  EXPECT_TRUE(at::equal(file.view("blocks"), blocks));
  EXPECT_TRUE(at::equal(file.read("blocks"), quant::dequantize_ggml(blocks, GgmlType::kQ8_0).view({2, 2, 96})));
  EXPECT_TRUE(at::equal(file.read("half"), weight.t()));
  EXPECT_TRUE(at::equal(file.read("wide"), weight.to(at::kBFloat16).to(at::kFloat)));
  EXPECT_TRUE(at::equal(file.read("norm"), weight[1]));
}

TEST(GgufWriter, AFileOfMetadataAlone) {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "vocabulary.gguf";
  GgufWriter writer(path, {{"tokens", GgufArray(std::vector<std::string>{"a", "b"})}}, {});
  writer.finish();
  EXPECT_EQ(gguf_value<std::vector<std::string>>(GgufFile(path).header(), "tokens").size(), 2u);
}

TEST(GgufWriter, OtherAlignments) {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "m.gguf";
  GgufWriter writer(path, {{"general.alignment", uint32_t{64}}}, {{"a", GgmlType::kF32, {3}}, {"b", GgmlType::kF32, {16}}});
  writer.append("a", at::ones(3));
  writer.append("b", at::ones(16));
  writer.finish();
  const GgufFile file(path);
  EXPECT_EQ(file.tensor("b").offset, 64u);
  EXPECT_EQ(fs::file_size(path), file.header().data_begin + 128);
}

TEST(GgufWriter, NothingIsLeftOfAnUnfinishedFile) {
  const TemporaryFolder folder;
  {
    GgufWriter writer(folder.path() / "m.gguf", {}, {{"a", GgmlType::kF32, {3}}, {"b", GgmlType::kF32, {3}}});
    writer.append("a", at::ones(3));
    EXPECT_THAT(message_of([&] { writer.finish(); }, ErrorKind::kInvalidArgument),
                HasSubstr("1 of 2 planned tensors are missing or incomplete, the first is 'b'"));
    writer.append("b", at::ones(2));
    EXPECT_THAT(message_of([&] { writer.finish(); }, ErrorKind::kInvalidArgument), HasSubstr("1 of 2"));
  }
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(GgufWriter, WrongDataAreRefused) {
  const TemporaryFolder folder;
  GgufWriter writer(folder.path() / "m.gguf", {}, {{"a", GgmlType::kF32, {3}}, {"b", GgmlType::kQ8_0, {32}}});
  const auto refuse = [&](const std::string& name, const at::Tensor& data) {
    return message_of([&] { writer.append(name, data); }, ErrorKind::kInvalidArgument);
  };
  EXPECT_THAT(refuse("b", at::zeros(34, at::kByte)), HasSubstr("tensor 'b': out of turn, expected 'a'"));
  EXPECT_THAT(refuse("a", at::zeros(3, at::kInt)), HasSubstr("data of dtype Int, expected the bytes of F32"));
  EXPECT_THAT(refuse("a", {}), HasSubstr("undefined"));
  EXPECT_THAT(refuse("a", at::zeros(4)), HasSubstr("16 bytes after 0, expected 12 in all"));
  writer.append("a", at::zeros(3));
  EXPECT_THAT(refuse("b", at::zeros(32)), HasSubstr("data of dtype Float, expected the bytes of Q8_0"));
  writer.append("b", at::zeros(34, at::kByte));
  EXPECT_THAT(refuse("b", at::zeros(34, at::kByte)), HasSubstr("all 2 planned tensors are written"));
  writer.finish();
}

TEST(GgufWriter, WhatReadersWouldRefuseIsNotWritten) {
  const TemporaryFolder folder;
  const auto refuse = [&](std::vector<GgufPair> metadata, std::vector<GgufTensor> tensors) {
    return message_of([&] { GgufWriter(folder.path() / "m.gguf", std::move(metadata), std::move(tensors)); },
                      ErrorKind::kInvalidArgument);
  };
  EXPECT_THAT(refuse({{"k", true}, {"k", false}}, {}), HasSubstr("key 'k' is there twice"));
  EXPECT_THAT(refuse({{"", true}}, {}), HasSubstr("a key of 0 bytes"));
  EXPECT_THAT(refuse({{"k", GgufArray(std::monostate())}}, {}), HasSubstr("array of arrays"));
  EXPECT_THAT(refuse({{"general.alignment", int32_t{32}}}, {}), HasSubstr("must be a u32 power of two"));
  EXPECT_THAT(refuse({}, {{"a", GgmlType::kF32, {1}}, {"a", GgmlType::kF32, {1}}}), HasSubstr("tensor 'a' is there twice"));
  EXPECT_THAT(refuse({}, {{std::string(64, 'a'), GgmlType::kF32, {1}}}), HasSubstr("has 64 bytes, expected 1 to 63"));
  EXPECT_THAT(refuse({}, {{"a", GgmlType::kF32, {}}}), HasSubstr("has 0 dimensions"));
  EXPECT_THAT(refuse({}, {{"a", GgmlType::kF32, {1, 1, 1, 1, 1}}}), HasSubstr("has 5 dimensions"));
  EXPECT_THAT(refuse({}, {{"a", GgmlType::kF32, {2, 0}}}), HasSubstr("has the shape [2, 0]"));
  EXPECT_THAT(refuse({}, {{"a", GgmlType::kQ4_K, {2, 320}}}), HasSubstr("rows of 320 elements, expected a multiple of 256"));
  EXPECT_THAT(refuse({}, {{"a", static_cast<GgmlType>(4), {1}}}), HasSubstr("ggml type 4"));
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(GgufWriter, AFullDiskIsNoticedBeforehand) {
  const TemporaryFolder folder;
  try {
    GgufWriter(folder.path() / "m.gguf", {}, {{"a", GgmlType::kF32, {int64_t{1} << 30, int64_t{1} << 20}}});
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), "DISK_FULL");
  }
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

}  // namespace
}  // namespace salient::models
