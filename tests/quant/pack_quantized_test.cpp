#include "quant/pack_quantized.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <limits>

#include "common/error.h"
#include "common/json.h"

namespace salient::quant {
namespace {

const std::string kFile = std::string(SALIENT_SOURCE_DIR) + "/tests/data/quant/pack_quantized.json";

at::Tensor matrix(const Json& rows, at::ScalarType dtype) {
  std::vector<double> values;
  for (const Json& row : rows) {
    for (const Json& value : row) values.push_back(value.get<double>());
  }
  return at::tensor(values, at::kDouble).view({static_cast<int64_t>(rows.size()), -1}).to(dtype);
}

QuantizedWeight random_weight(int64_t out, int64_t in, int64_t groups, int bits, bool zero_point) {
  at::manual_seed(out * 100 + in + bits);
  QuantizedWeight weight;
  weight.codes = at::randint(0, 1 << bits, {out, in}, at::kByte);
  weight.zeros =
      zero_point ? at::randint(0, 1 << bits, {out, groups}, at::kByte) : at::full({out, groups}, 1 << (bits - 1), at::kByte);
  weight.scales = (at::rand({out, groups}) + 0.01).to(at::kHalf).to(at::kFloat);
  return weight;
}

// Codes, zero points and words as compressed-tensors itself packs them.
TEST(PackQuantized, EqualsCompressedTensors) {
  const Json golden = read_json_file(kFile);
  ASSERT_GE(golden.at("cases").size(), 7u);
  for (const Json& item : golden.at("cases")) {
    const int bits = item.at("bits").get<int>();
    QuantizedWeight weight;
    weight.codes = matrix(item.at("codes"), at::kByte);
    weight.zeros = matrix(item.at("zeros"), at::kByte);
    weight.scales = matrix(item.at("scales"), at::kFloat);
    const bool zero_point = item.contains("weight_zero_point");
    const PackQuantized packed = pack_quantized(weight, bits, zero_point, at::kHalf);
    EXPECT_TRUE(at::equal(packed.packed, matrix(item.at("weight_packed"), at::kInt))) << bits << " bits";
    EXPECT_EQ(packed.zero_point.defined(), zero_point);
    if (zero_point) {
      EXPECT_TRUE(at::equal(packed.zero_point, matrix(item.at("weight_zero_point"), at::kInt))) << bits << " bits";
    }
    EXPECT_TRUE(at::equal(packed.shape, at::tensor(item.at("weight_shape").get<std::vector<int64_t>>(), at::kLong)));
    EXPECT_EQ(packed.scale.scalar_type(), at::kHalf);
    const at::Tensor decompressed = matrix(item.at("decompressed"), at::kFloat);
    const QuantizedWeight back = unpack_quantized(packed, weight.codes.size(1), bits);
    EXPECT_TRUE(at::equal(dequantize(back), decompressed)) << bits << " bits";
  }
}

// What compressed-tensors wrote before codes were split between words.
TEST(PackQuantized, ReadsTheOlderOrder) {
  const Json golden = read_json_file(kFile);
  ASSERT_GE(golden.at("older").size(), 3u);
  for (const Json& item : golden.at("older")) {
    const int bits = item.at("bits").get<int>();
    const at::Tensor codes = matrix(item.at("codes"), at::kByte);
    const at::Tensor words = matrix(item.at("weight_packed"), at::kInt);
    ASSERT_EQ(words.size(1), packed_words(codes.size(1), bits, CodeOrder::kWhole));
    EXPECT_TRUE(at::equal(unpack_codes(words, codes.size(1), bits, CodeOrder::kWhole), codes)) << bits << " bits";
    const QuantizedWeight weight = unpack_quantized({words, at::ones({codes.size(0), 1}), {}, {}}, codes.size(1), bits);
    EXPECT_TRUE(at::equal(weight.codes, codes)) << bits << " bits";
  }
}

TEST(PackQuantized, TheDocumentedExample) {
  const at::Tensor words = pack_codes_dense(at::arange(32).remainder(8).to(at::kByte).view({1, 32}), 3);
  ASSERT_EQ(words.sizes(), at::IntArrayRef({1, 3}));
  EXPECT_EQ(static_cast<uint32_t>(words[0][0].item<int>()), 0x88fac688u);
  EXPECT_EQ(static_cast<uint32_t>(words[0][1].item<int>()), 0xc688fac6u);
  EXPECT_EQ(static_cast<uint32_t>(words[0][2].item<int>()), 0xfac688fau);
}

TEST(PackQuantized, UnpackIsTheInverse) {
  for (const int bits : {2, 3, 4, 5, 6, 7, 8}) {
    for (const bool zero_point : {true, false}) {
      for (const auto& [out, in, groups] : {std::tuple{7, 96, 3}, {33, 100, 1}, {1, 31, 31}, {64, 128, 4}}) {
        const QuantizedWeight weight = random_weight(out, in, groups, bits, zero_point);
        const PackQuantized packed = pack_quantized(weight, bits, zero_point, at::kHalf);
        EXPECT_EQ(packed.packed.size(1), (in * bits + 31) / 32);
        const QuantizedWeight back = unpack_quantized(packed, in, bits);
        EXPECT_TRUE(at::equal(back.codes, weight.codes)) << bits;
        EXPECT_TRUE(at::equal(back.zeros, weight.zeros)) << bits;
        EXPECT_TRUE(at::equal(back.scales, weight.scales)) << bits;
      }
    }
  }
}

TEST(PackQuantized, CountsThatAFileClaimsDoNotOverflow) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(packed_words(kMost, 8), int64_t{1} << 61);
  EXPECT_EQ(packed_words(kMost, 8, CodeOrder::kWhole), int64_t{1} << 61);
  EXPECT_TRUE(possible_bits(1, kMost, 0, 1).empty());
}

TEST(PackQuantized, RefusesWhatDoesNotFit) {
  const auto kind_of = [](const auto& body) {
    try {
      body();
    } catch (const Error& error) {
      return error.kind();
    }
    return ErrorKind::kInternal;
  };
  const QuantizedWeight weight = random_weight(8, 64, 2, 4, true);
  EXPECT_EQ(kind_of([&] { pack_quantized(weight, 3, true, at::kHalf); }), ErrorKind::kInvalidArgument);
  EXPECT_EQ(kind_of([&] { pack_quantized(weight, 4, false, at::kHalf); }), ErrorKind::kInvalidArgument);
  EXPECT_EQ(kind_of([&] { pack_quantized(weight, 9, true, at::kHalf); }), ErrorKind::kInvalidArgument);
  QuantizedWeight uneven = weight;
  uneven.scales = weight.scales.narrow(1, 0, 1);
  EXPECT_EQ(kind_of([&] { pack_quantized(uneven, 4, true, at::kHalf); }), ErrorKind::kInvalidArgument);
  const PackQuantized packed = pack_quantized(weight, 4, true, at::kHalf);
  EXPECT_EQ(kind_of([&] { unpack_quantized(packed, 72, 4); }), ErrorKind::kCorruption);
  EXPECT_EQ(kind_of([&] { unpack_quantized(packed, 64, 3); }), ErrorKind::kCorruption);
  PackQuantized cut = packed;
  cut.zero_point = packed.zero_point.narrow(1, 0, 1);
  EXPECT_EQ(kind_of([&] { unpack_quantized(cut, 64, 4); }), ErrorKind::kCorruption);
  cut = packed;
  cut.zero_point = at::zeros({2, 2}, at::kInt);
  EXPECT_EQ(kind_of([&] { unpack_quantized(cut, 64, 4); }), ErrorKind::kCorruption);
  cut = packed;
  cut.scale = packed.scale.narrow(0, 0, 4);
  EXPECT_EQ(kind_of([&] { unpack_quantized(cut, 64, 4); }), ErrorKind::kCorruption);
}

}  // namespace
}  // namespace salient::quant
