// More than 100,000 random, adversarial and degenerate groups through every quantizer and kernel, each against its definition in
// float64 or in whole numbers.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "common/error.h"
#include "quant/adversarial_matrix.h"
#include "quant/affine.h"
#include "quant/awq_gemm.h"
#include "quant/awq_gemv.h"
#include "quant/ggml_types.h"
#include "quant/int8_rows.h"
#include "quant/kernels/integer_product.h"
#include "quant/pack_quantized.h"

namespace salient::quant {
namespace {

int64_t cases = 0;  // of this program; printed at the end

class CountCases : public ::testing::Environment {
 public:
  void TearDown() override { std::printf("%lld cases\n", static_cast<long long>(cases)); }
};
const auto* const kCounter = ::testing::AddGlobalTestEnvironment(new CountCases);

struct Affine {
  int bits;
  bool zero_point;
  at::ScalarType dtype;
};

// The steps between the stored dtype's numbers, relative.
double ulp(at::ScalarType dtype) { return dtype == at::kHalf ? 0x1.0p-10 : 0x1.0p-7; }

void check_affine_group(const float* w, const uint8_t* codes, double zero, double scale, int64_t n, const Affine& kind) {
  double low = 0;
  double high = 0;
  for (int64_t i = 0; i < n; ++i) {
    low = std::min<double>(low, w[i]);
    high = std::max<double>(high, w[i]);
  }
  const double levels = (1 << kind.bits) - 1;
  const double half = 1 << (kind.bits - 1);
  // Between 2^-24 and 65504, whatever the weights are.
  ASSERT_GE(scale, 0x1.0p-24);
  ASSERT_LE(scale, kind.dtype == at::kHalf ? 65504 : 65536);  // the nearest of bfloat16
  if (low == 0 && high == 0) {
    ASSERT_EQ(scale, 1);  // any would do
    for (int64_t i = 0; i < n; ++i) ASSERT_EQ(codes[i], zero);
    return;
  }
  const double wanted = std::clamp(kind.zero_point ? (high - low) / levels : std::max(-low, high) / (half - 1), 0x1.0p-24, 65504.0);
  ASSERT_LE(std::abs(scale - wanted), ulp(kind.dtype) * wanted + 0x1.0p-24) << "the scale of " << low << " to " << high;
  if (kind.zero_point) {
    ASSERT_LE(std::abs(zero - std::clamp(-low / scale, 0.0, levels)), 0.5001);
  } else {
    ASSERT_EQ(zero, half);
  }
  for (int64_t i = 0; i < n; ++i) {
    ASSERT_LE(codes[i], levels);
    const double exact = std::clamp(w[i] / scale + zero, 0.0, levels);
    ASSERT_LE(std::abs(codes[i] - exact), 0.5 + 1e-6 * levels) << w[i] << " in steps of " << scale << " from " << zero;
  }
}

TEST(Adversarial, AffineQuantizationIsItsDefinition) {
  constexpr int64_t kRows = 280;
  constexpr int64_t kColumns = 256;
  for (const int64_t group : {int64_t{32}, int64_t{128}}) {
    for (const int bits : {2, 3, 4, 5, 6, 8}) {
      for (const bool zero_point : {true, false}) {
        for (const at::ScalarType dtype : {at::kHalf, at::kBFloat16}) {
          const Affine kind{bits, zero_point, dtype};
          const at::Tensor w = test::adversarial_matrix(kRows, kColumns, group, static_cast<uint64_t>(100 * bits + zero_point));
          const QuantizedWeight q = quantize_affine(w, {bits, group, zero_point, dtype});
          const at::Tensor back = dequantize(q);
          const at::Tensor zeros = q.zeros.to(at::kFloat);
          ASSERT_TRUE(at::isfinite(back).all().item<bool>());
          for (int64_t g = 0; g < w.numel() / group; ++g, ++cases) {
            const double scale = q.scales.data_ptr<float>()[g];
            const double zero = zeros.data_ptr<float>()[g];
            check_affine_group(w.data_ptr<float>() + g * group, q.codes.data_ptr<uint8_t>() + g * group, zero, scale, group, kind);
            if (HasFatalFailure()) {
              FAIL() << bits << " bits, zero point " << zero_point << ", group " << g << " of kind " << g % test::kGroupKinds;
            }
            for (int64_t i = g * group; i < (g + 1) * group; ++i) {
              ASSERT_EQ(back.data_ptr<float>()[i], static_cast<float>((q.codes.data_ptr<uint8_t>()[i] - zero) * scale));
            }
          }
        }
      }
    }
  }
}

// What is not finite has no codes, but does no harm: no code beyond the range, no memory beyond the tensors (the sanitizers look).
TEST(Adversarial, NumbersThatAreNotFiniteStayInTheRange) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
    for (const int bits : {2, 4, 8}) {
      for (const bool zero_point : {true, false}) {
        at::Tensor w = test::adversarial_matrix(56, 64, 32, 5);
        for (int64_t row = 0; row < 56; ++row, ++cases) w.data_ptr<float>()[row * 64 + row] = bad;
        const QuantizedWeight q = quantize_affine(w, {bits, 32, zero_point});
        EXPECT_LE(q.codes.max().item<int64_t>(), (1 << bits) - 1);
        EXPECT_LE(q.zeros.max().item<int64_t>(), (1 << bits) - 1);
      }
    }
  }
}

TEST(Adversarial, RowsOfInt8AreWithinHalfAStep) {
  constexpr int64_t kRows = 7000;
  constexpr int64_t kColumns = 64;
  const at::Tensor x = test::adversarial_matrix(kRows, kColumns, kColumns, 11);
  for (const float half_range : {kCompressedTensorsHalfRange, kStableHalfRange}) {
    const Int8Rows rows = to_int8_rows(x, half_range);
    for (int64_t row = 0; row < kRows; ++row, ++cases) {
      const float* values = x.data_ptr<float>() + row * kColumns;
      const double scale = rows.scales.data_ptr<float>()[row];
      ASSERT_TRUE(std::isfinite(scale));
      for (int64_t i = 0; i < kColumns; ++i) {
        const double code = rows.codes.data_ptr<int8_t>()[row * kColumns + i];
        // Below 2^-126 float32 has fewer digits: the scale itself is rounded by half of 2^-149.
        ASSERT_LE(std::abs(values[i] - code * scale), scale * 0.50001 + 128 * 0x1.0p-149)
            << "row " << row << " of kind " << row % test::kGroupKinds;
      }
    }
  }
}

TEST(Adversarial, IntegerProductsAreExact) {
  std::mt19937_64 engine(3);
  const auto pick = [&](std::initializer_list<int64_t> list) {
    return *(list.begin() + static_cast<std::ptrdiff_t>(engine() % list.size()));
  };
  for (int shape = 0; shape < 60; ++shape) {
    const int64_t group = pick({8, 24, 32, 64, 128});
    const int64_t in = group * pick({1, 2, 3});
    const int64_t out = pick({1, 15, 16, 17, 40});
    const int64_t rows = pick({1, 2, 5, 9});
    const int levels = static_cast<int>(pick({16, 256}));
    at::Tensor codes = at::empty({out, in}, at::kByte);
    at::Tensor zeros = at::empty({out, in / group}, at::kByte);
    at::Tensor scales = at::full({out, in / group}, 1.0F);
    // Ends of the range more often than chance would have it.
    const auto level = [&]() -> uint8_t {
      return static_cast<uint8_t>(engine() % 3 == 0 ? (engine() % 2 == 0 ? 0 : levels - 1)
                                                    : engine() % static_cast<uint64_t>(levels));
    };
    for (int64_t i = 0; i < codes.numel(); ++i) codes.data_ptr<uint8_t>()[i] = level();
    for (int64_t i = 0; i < zeros.numel(); ++i) zeros.data_ptr<uint8_t>()[i] = level();
    const InterleavedWeight weight = interleave(codes, zeros, scales, group);
    QuantizedRows x = quantize_rows(test::adversarial_matrix(rows, in, in, engine()), group);
    x.scales.fill_(1.0F);
    const int8_t* x_codes = x.codes.data_ptr<int8_t>();
    const int64_t padded = x.codes.size(2);
    for (const InstructionSet set : available_instruction_sets()) {
      const at::Tensor y = integer_product(weight, x, set);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t n = 0; n < out; ++n, ++cases) {
          float total = 0;  // whole numbers below 2^24, each group's and their sum: exact in float32
          for (int64_t g = 0; g < in / group; ++g) {
            int64_t sum = 0;
            for (int64_t k = 0; k < group; ++k) {
              const int64_t w =
                  int64_t{codes.data_ptr<uint8_t>()[n * in + g * group + k]} - zeros.data_ptr<uint8_t>()[n * (in / group) + g];
              sum += w * x_codes[(r * (in / group) + g) * padded + k];
            }
            ASSERT_LT(std::abs(sum), 1 << 24);
            total += static_cast<float>(sum);
          }
          ASSERT_EQ(y.data_ptr<float>()[r * out + n], total) << name(set) << ", row " << r << ", channel " << n;
        }
      }
    }
  }
}

// Blocks of every type that is written: read back finite, no further off than the block is wide; what does not fit a float16 scale
// is refused.
TEST(Adversarial, BlocksOfGgmlComeBack) {
  for (const GgmlTypeInfo& type : ggml_types()) {
    if (type.quantize == nullptr || type.block_elements == 1) continue;
    const at::Tensor w = test::adversarial_matrix(112, 1024, type.block_elements, type.block_bytes);
    for (int64_t row = 0; row < w.size(0); ++row) {
      const at::Tensor one = w.narrow(0, row, 1);
      cases += w.size(1) / type.block_elements;
      at::Tensor blocks;
      try {
        blocks = quantize_ggml(one, type.type);
      } catch (const Error& error) {
        ASSERT_EQ(error.kind(), ErrorKind::kInvalidArgument) << error.message();
        ASSERT_GT(one.abs().max().item<float>(), 65504) << type.name << ": " << error.message();
        continue;
      }
      const at::Tensor back = dequantize_ggml(blocks, type.type);
      ASSERT_TRUE(at::isfinite(back).all().item<bool>()) << type.name << ", row " << row;
      for (int64_t begin = 0; begin < w.size(1); begin += type.block_elements) {
        const at::Tensor block = one.narrow(1, begin, type.block_elements);
        const float width = block.abs().max().item<float>();
        // The least step of float16, 2^-24, times a scale of 6 bits times a code of 4: what the K types miss small blocks by.
        ASSERT_LE((back.narrow(1, begin, type.block_elements) - block).abs().max().item<float>(), 1.01F * width + 0x1.0p-15F)
            << type.name << ", row " << row << ", from " << begin;
      }
    }
  }
}

// Codes and zero points at random, the ends of the range among them, through each layout and back.
TEST(Adversarial, LayoutsGiveBackWhatWentIn) {
  std::mt19937_64 engine(17);
  for (int round = 0; round < 40; ++round) {
    for (const int bits : {2, 3, 4, 5, 6, 8}) {
      const int64_t group = 32;
      const int64_t out = 64;
      const int64_t in = 128;
      QuantizedWeight q{at::empty({out, in}, at::kByte), at::empty({out, in / group}, at::kByte),
                        at::empty({out, in / group}, at::kFloat)};
      for (const at::Tensor& t : {q.codes, q.zeros}) {
        for (int64_t i = 0; i < t.numel(); ++i) t.data_ptr<uint8_t>()[i] = static_cast<uint8_t>(engine() % (uint64_t{1} << bits));
      }
      for (int64_t i = 0; i < q.scales.numel(); ++i)
        q.scales.data_ptr<float>()[i] = to_stored_scale(static_cast<float>(std::exp2(static_cast<double>(engine() % 40) - 26)));
      const auto same = [&](const QuantizedWeight& back, const char* layout) {
        EXPECT_TRUE(at::equal(back.codes, q.codes)) << layout;
        EXPECT_TRUE(at::equal(back.zeros, q.zeros)) << layout;
        EXPECT_TRUE(at::equal(back.scales, q.scales)) << layout;
        cases += out * in / group;
      };
      const PackQuantized packed = pack_quantized(q, bits, /*zero_point=*/true, at::kHalf);
      same(unpack_quantized(packed, in, bits), "pack-quantized");
      if (bits != 4) continue;
      const PackedGemm gemm = pack_awq_gemm(q);
      same(unpack_awq_gemm(gemm.qweight, gemm.qzeros, gemm.scales), "gemm");
      const PackedGemv gemv = pack_awq_gemv(q);
      same(unpack_awq_gemv(gemv.qweight, gemv.qzeros, gemv.scales, group), "gemv");
    }
  }
  EXPECT_GE(cases, 100'000) << "fewer cases than this program promises";
}

}  // namespace
}  // namespace salient::quant
