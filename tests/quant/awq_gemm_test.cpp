#include "quant/awq_gemm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <vector>

#include "common/error.h"
#include "common/json.h"
#include "quant/random_matrix.h"

namespace salient::quant {
namespace {

template <typename T>
at::Tensor to_tensor(const Json& rows, at::ScalarType dtype) {
  at::Tensor result = at::empty({static_cast<int64_t>(rows.size()), static_cast<int64_t>(rows[0].size())}, dtype);
  T* data = result.data_ptr<T>();
  for (const Json& row : rows) {
    for (const Json& value : row) *data++ = value.get<T>();
  }
  return result;
}

TEST(AwqGemm, ExampleWord) {
  QuantizedWeight weight{at::arange(8, at::kByte).view({8, 1}).contiguous(), at::full({8, 1}, 8, at::kByte), at::ones({8, 1})};
  const PackedGemm packed = pack_awq_gemm(weight);
  EXPECT_EQ(packed.qweight.item<int32_t>(), 0x75316420);
  EXPECT_EQ(static_cast<uint32_t>(packed.qzeros.item<int32_t>()), 0x88888888U);
}

TEST(AwqGemm, UnpackIsTheInverse) {
  const QuantizedWeight weight = quantize_affine(test::random_matrix(40, 96, 1), {4, 32, true});
  const PackedGemm packed = pack_awq_gemm(weight);
  EXPECT_EQ(packed.qweight.sizes(), (at::IntArrayRef{96, 5}));
  EXPECT_EQ(packed.qzeros.sizes(), (at::IntArrayRef{3, 5}));
  const QuantizedWeight back = unpack_awq_gemm(packed.qweight, packed.qzeros, packed.scales);
  EXPECT_TRUE(back.codes.equal(weight.codes));
  EXPECT_TRUE(back.zeros.equal(weight.zeros));
  EXPECT_TRUE(back.scales.equal(weight.scales));
}

// tests/data/quant/awq_gemm.json was made by AutoAWQ 0.2.9 itself: scripts/goldens/quant_awq_gemm.py.
TEST(AwqGemm, AgreesWithAutoAwq) {
  const Json golden = read_json_file(SALIENT_SOURCE_DIR "/tests/data/quant/awq_gemm.json");
  const at::Tensor qweight = to_tensor<int32_t>(golden["qweight"], at::kInt);
  const at::Tensor qzeros = to_tensor<int32_t>(golden["qzeros"], at::kInt);
  const at::Tensor scales = to_tensor<float>(golden["scales"], at::kFloat);
  const QuantizedWeight unpacked = unpack_awq_gemm(qweight, qzeros, scales.to(at::kHalf));
  EXPECT_TRUE(dequantize(unpacked).equal(to_tensor<float>(golden["restored"], at::kFloat)));

  // Two-sided groups are quantized as AutoAWQ does, up to its double rounding through fp16 weights: codes may differ by one,
  // rarely.
  const at::Tensor weight = to_tensor<float>(golden["weight_times_256"], at::kFloat) / 256;
  const QuantizedWeight ours = quantize_affine(weight.contiguous(), {4, golden["group_size"].get<int64_t>(), true});
  EXPECT_TRUE(ours.scales.t().equal(scales));
  EXPECT_TRUE(ours.zeros.equal(to_tensor<uint8_t>(golden["zeros"], at::kByte)));
  const at::Tensor difference = (ours.codes.to(at::kInt) - unpacked.codes.to(at::kInt)).abs();
  EXPECT_LE(difference.max().item<int>(), 1);
  EXPECT_LE(difference.sum().item<int64_t>(), 4);
  const PackedGemm packed = pack_awq_gemm(unpacked);
  EXPECT_TRUE(packed.qweight.equal(qweight));
  EXPECT_TRUE(packed.qzeros.equal(qzeros));
}

TEST(AwqGemm, ShapesThatDoNotFitAreRefused) {
  const auto kind_of = [](auto&& body) {
    try {
      body();
    } catch (const Error& error) {
      return error.kind();
    }
    return ErrorKind::kInternal;
  };
  EXPECT_EQ(kind_of([] {
              unpack_awq_gemm(at::zeros({64, 2}, at::kInt), at::zeros({2, 3}, at::kInt), at::zeros({2, 16}, at::kHalf));
            }),
            ErrorKind::kCorruption);
  EXPECT_EQ(kind_of([] {
              unpack_awq_gemm(at::zeros({65, 2}, at::kInt), at::zeros({2, 2}, at::kInt), at::zeros({2, 16}, at::kHalf));
            }),
            ErrorKind::kCorruption);
  EXPECT_EQ(kind_of([] { pack_awq_gemm(quantize_affine(at::ones({12, 32}), {4, 32, true})); }), ErrorKind::kInvalidArgument);
}

}  // namespace
}  // namespace salient::quant
