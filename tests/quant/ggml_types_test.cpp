// Byte equality with ggml (scripts/goldens/ggml_blocks.py), examples worked by hand, properties.
#include "quant/ggml_types.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "common/error.h"
#include "common/hash.h"
#include "common/json.h"
#include "quant/random_matrix.h"

namespace salient::quant {
namespace {

using ::testing::HasSubstr;

std::vector<uint8_t> from_hex(const std::string& text) {
  std::vector<uint8_t> bytes(text.size() / 2);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(std::stoi(text.substr(2 * i, 2), nullptr, 16));
  return bytes;
}

at::Tensor bytes_tensor(const std::vector<uint8_t>& bytes, int64_t rows) {
  return at::from_blob(const_cast<uint8_t*>(bytes.data()), {rows, static_cast<int64_t>(bytes.size()) / rows}, at::kByte).clone();
}

at::Tensor floats_from_hex(const std::string& text, int64_t columns) {
  std::vector<uint8_t> bytes = from_hex(text);
  return at::from_blob(bytes.data(), {static_cast<int64_t>(bytes.size()) / 4 / columns, columns}, at::kFloat).clone();
}

std::string hash_of(const at::Tensor& tensor) {
  Sha256 hash;
  hash.update(std::span(static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()));
  return hash.hex();
}

const std::vector<std::string> kFormats = {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"};

class GgmlGolden : public ::testing::TestWithParam<std::string> {};

TEST_P(GgmlGolden, BlocksAndValuesEqualThoseOfGgml) {
  const GgmlTypeInfo& info = *find_ggml_type(GetParam());
  int compared = 0;
  for (const Json& group : read_json_file(SALIENT_SOURCE_DIR "/tests/data/ggml_blocks/blocks.json")) {
    const auto columns = group.at("columns").get<int64_t>();
    const at::Tensor rows = floats_from_hex(group.at("rows").get<std::string>(), columns);
    for (const Json& expected : group.at("expected")) {
      if (expected.at("type") != GetParam()) continue;
      const auto name = expected.at("importance").get<std::string>();
      SCOPED_TRACE(name);
      at::Tensor importance;
      if (name != "none") importance = floats_from_hex(group.at("importances").at(name).get<std::string>(), columns).view({-1});
      const at::Tensor golden = bytes_tensor(from_hex(expected.at("blocks").get<std::string>()), rows.size(0));
      const at::Tensor found = quantize_ggml(rows, info.type, importance);
      ASSERT_EQ(found.sizes(), golden.sizes());
      for (int64_t row = 0; row < rows.size(0); ++row) EXPECT_TRUE(at::equal(found[row], golden[row])) << "row " << row;
      EXPECT_EQ(hash_of(dequantize_ggml(golden, info.type)), expected.at("values_sha256").get<std::string>());
      ++compared;
    }
  }
  EXPECT_EQ(compared, GetParam() == "Q8_0" ? 1 : info.block_elements == 32 ? 3 : 6);
}

INSTANTIATE_TEST_SUITE_P(Formats, GgmlGolden, ::testing::ValuesIn(kFormats), [](const auto& test) { return test.param; });

std::vector<uint8_t> row_bytes(const at::Tensor& blocks) {
  return {blocks.const_data_ptr<uint8_t>(), blocks.const_data_ptr<uint8_t>() + blocks.numel()};
}

TEST(GgmlTypes, TheExampleOfTheHeader) {
  const at::Tensor row = at::cat({at::arange(-8, 8, at::kFloat), at::zeros(16)}).view({1, 32});
  const std::vector<uint8_t> expected = from_hex("003c808182838485868788898a8b8c8d8e8f");
  EXPECT_EQ(row_bytes(quantize_ggml(row, GgmlType::kQ4_0)), expected);
  EXPECT_TRUE(at::equal(dequantize_ggml(bytes_tensor(expected, 1), GgmlType::kQ4_0), row));
}

// Each field of the layouts on its own.
TEST(GgmlTypes, BlocksWrittenByHandAreRead) {
  const auto read = [](GgmlType type, const std::vector<std::pair<int, int>>& bytes) {
    const GgmlTypeInfo& info = ggml_type_info(type);
    std::vector<uint8_t> block(static_cast<size_t>(info.block_bytes), 0);
    for (const auto& [at, value] : bytes) block[static_cast<size_t>(at)] = static_cast<uint8_t>(value);
    const at::Tensor values = dequantize_ggml(bytes_tensor(block, 1), type);
    return [values](int64_t i) { return values[0][i].item<float>(); };
  };
  // Q5_1: d = 2, m = -1; element 3: low nibble 5 and the fifth bit; element 19: high nibble 7.
  const auto q5_1 = read(GgmlType::kQ5_1, {{1, 0x40}, {3, 0xbc}, {4, 0x08}, {8 + 3, 0x75}});
  EXPECT_EQ(q5_1(3), 2.0F * 21 - 1);
  EXPECT_EQ(q5_1(19), 2.0F * 7 - 1);
  EXPECT_EQ(q5_1(0), -1.0F);
  const auto q8_0 = read(GgmlType::kQ8_0, {{1, 0x38}, {2 + 31, 0x80}});
  EXPECT_EQ(q8_0(31), -64.0F);
  // Q4_K: d = 1, dmin = 0.5; sub-block 1: scale 63, min 3; sub-block 6: scale 0b100101, min 0b010010.
  const auto q4_k = read(GgmlType::kQ4_K, {{1, 0x3c},
                                           {3, 0x38},
                                           {4 + 1, 63},
                                           {8 + 1, 3},
                                           {4 + 2, 0x80},
                                           {8 + 2, 0x40},
                                           {12 + 2, 0x25},
                                           {16 + 5, 0x90},
                                           {16 + 96 + 31, 0x0b}});
  EXPECT_EQ(q4_k(32 + 5), 63.0F * 9 - 1.5F);
  EXPECT_EQ(q4_k(32 + 6), -1.5F);
  EXPECT_EQ(q4_k(6 * 32 + 31), 37.0F * 11 - 9.0F);
  EXPECT_EQ(q4_k(7 * 32 + 31), 0.0F);
  // Q5_K: the fifth bit of sub-block 6, element 31.
  const auto q5_k = read(GgmlType::kQ5_K, {{1, 0x3c}, {12 + 2, 0x01}, {16 + 31, 0x40}, {48 + 96 + 31, 0x0b}});
  EXPECT_EQ(q5_k(6 * 32 + 31), 27.0F);
  // Q6_K: d = 1; second half, l = 2: element 128 + 64 + 2 has low bits 0xd (high nibble) and upper bits 2; its scale is number 12.
  const auto q6_k = read(GgmlType::kQ6_K, {{209, 0x3c}, {192 + 12, 0xfe}, {64 + 2, 0xd0}, {128 + 32 + 2, 0x20}});
  EXPECT_EQ(q6_k(194), -2.0F * (0x2d - 32));
}

// Every number a format can hold comes back: quantizing what was dequantized changes the values by little, and the error is within
// half a step.
TEST(GgmlTypes, ErrorsAreWithinAStep) {
  const at::Tensor weight = test::random_matrix(24, 512, 5);
  const std::map<std::string, double> bounds = {{"Q4_0", 0.11},  {"Q4_1", 0.09},   {"Q5_0", 0.055}, {"Q5_1", 0.045},
                                                {"Q8_0", 0.007}, {"Q4_K", 0.08},   {"Q5_K", 0.04},  {"Q6_K", 0.02},
                                                {"F16", 3e-4},   {"BF16", 2.5e-3}, {"F32", 0.0}};
  for (const auto& [name, bound] : bounds) {
    const GgmlTypeInfo& info = *find_ggml_type(name);
    const at::Tensor blocks = quantize_ggml(weight, info.type);
    EXPECT_EQ(blocks.size(1), info.row_bytes(512)) << name;
    const at::Tensor values = dequantize_ggml(blocks, info.type);
    const double error = (values - weight).norm().item<double>() / weight.norm().item<double>();
    EXPECT_LE(error, bound) << name;
    EXPECT_GE(error, bound / 4) << name;
  }
}

TEST(GgmlTypes, ImportanceLowersTheWeightedError) {
  const at::Tensor weight = test::random_matrix(16, 512, 6);
  const at::Tensor importance = at::ones(512);
  importance.slice(0, 0, 512, 16).fill_(100);
  for (const std::string& name : kFormats) {
    if (name == "Q8_0") continue;
    const GgmlType type = find_ggml_type(name)->type;
    const auto error = [&](const at::Tensor& blocks) {
      return ((dequantize_ggml(blocks, type) - weight).square() * importance).sum().item<double>();
    };
    EXPECT_LT(error(quantize_ggml(weight, type, importance)), 0.9 * error(quantize_ggml(weight, type))) << name;
  }
}

TEST(GgmlTypes, NarrowFloatsAndStridesGiveTheSameBlocks) {
  const at::Tensor weight = test::random_matrix(8, 256, 7).to(at::kBFloat16);
  const at::Tensor expected = quantize_ggml(weight.to(at::kFloat), GgmlType::kQ4_K);
  EXPECT_TRUE(at::equal(quantize_ggml(weight, GgmlType::kQ4_K), expected));
  EXPECT_TRUE(at::equal(quantize_ggml(weight.to(at::kFloat).t().contiguous().t(), GgmlType::kQ4_K), expected));
}

TEST(GgmlTypes, Bf16RoundsToEven) {
  const at::Tensor row = at::tensor({1.00390625F, 1.01171875F, -3.0e-39F, 0.1F}).view({1, 4});  // two ties, a subnormal
  EXPECT_EQ(row_bytes(quantize_ggml(row, GgmlType::kBF16)), from_hex("803f823f2180cd3d"));
}

std::string message_of(const std::function<void()>& body, ErrorKind kind) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.message();
  }
  ADD_FAILURE() << "no error";
  return "";
}

TEST(GgmlTypes, BadInputIsRefused) {
  const auto refuse = [](const at::Tensor& weight, GgmlType type, const at::Tensor& importance = {}) {
    return message_of([&] { quantize_ggml(weight, type, importance); }, ErrorKind::kInvalidArgument);
  };
  EXPECT_THAT(refuse(at::ones({2, 320}), GgmlType::kQ4_K), HasSubstr("320 columns cannot be divided into blocks of 256"));
  at::Tensor weight = at::ones({4, 256});
  weight[2][7] = std::numeric_limits<float>::quiet_NaN();
  weight[3][7] = std::numeric_limits<float>::infinity();
  for (const std::string& name : kFormats)
    EXPECT_THAT(refuse(weight, find_ggml_type(name)->type), HasSubstr("row 2 of the weight"));
  for (const char* name : {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "F16"}) {
    EXPECT_THAT(refuse(at::eye(256) * 1e30, find_ggml_type(name)->type), HasSubstr("row 0 of the weight holds values too large"))
        << name;
  }
  EXPECT_THAT(refuse(at::ones({1, 32}), GgmlType::kQ4_0, at::ones(31)),
              HasSubstr("31 numbers, expected one for each of the 32 columns"));
  EXPECT_THAT(refuse(at::ones({1, 32}), GgmlType::kQ4_0, -at::ones(32)), HasSubstr("importance of column 0: -1"));
  EXPECT_THAT(refuse(at::ones({1, 32}), GgmlType::kQ4_0, at::full(32, std::nanf(""))), HasSubstr("importance of column 0"));
  EXPECT_THAT(refuse(at::ones({1, 256}), find_ggml_type("Q2_K")->type), HasSubstr("Q2_K cannot be written"));
  EXPECT_THAT(refuse(at::ones({32}), GgmlType::kQ4_0), HasSubstr("must be a matrix"));
  EXPECT_THAT(message_of(
                  [] {
                    dequantize_ggml(at::zeros({2, 17}, at::kByte), GgmlType::kQ4_0);
                  },
                  ErrorKind::kCorruption),
              HasSubstr("multiple of 18"));
  EXPECT_THAT(message_of(
                  [] {
                    dequantize_ggml(at::zeros({2, 84}, at::kByte), find_ggml_type("Q2_K")->type);
                  },
                  ErrorKind::kUnsupported),
              HasSubstr("Q2_K cannot be read"));
}

TEST(GgmlTypes, TheTableIsConsistent) {
  for (const GgmlTypeInfo& info : ggml_types()) {
    EXPECT_EQ(find_ggml_type(static_cast<uint32_t>(info.type)), &info);
    EXPECT_EQ(find_ggml_type(info.name), &info);
    EXPECT_EQ(info.quantize == nullptr, info.dequantize == nullptr) << info.name;
  }
  EXPECT_EQ(find_ggml_type("q4_k"), &ggml_type_info(GgmlType::kQ4_K));
  EXPECT_EQ(find_ggml_type("Q4_X"), nullptr);
  EXPECT_EQ(find_ggml_type(uint32_t{4}), nullptr);
}

TEST(GgmlTypes, NoRowsAreNoBlocks) {
  EXPECT_EQ(quantize_ggml(at::empty({0, 256}), GgmlType::kQ6_K).sizes(), (at::IntArrayRef{0, 210}));
  EXPECT_EQ(dequantize_ggml(at::empty({0, 210}, at::kByte), GgmlType::kQ6_K).sizes(), (at::IntArrayRef{0, 256}));
}

}  // namespace
}  // namespace salient::quant
