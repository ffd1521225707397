#include "quant/awq_gemv_fast.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/neg.h>
#include <ATen/ops/zeros.h>
#include <c10/util/StringUtil.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "common/error.h"
#include "quant/awq_layout.h"

namespace salient::quant {
namespace {

constexpr int64_t kRows = 4;    // output channels to a row of words
constexpr int64_t kBlock = 64;  // input channels to a block of words
constexpr int64_t kWords = kBlock / 4;
constexpr int64_t kPlaces = 8;  // groups to a padding word
constexpr int64_t kGrainCodes = 1 << 16;
constexpr float kNear = 0.125F;  // twice what bfloat16 rounding makes
constexpr uint8_t kLostZero = 8;
constexpr const char* kLayout = "AutoAWQ's GEMV_FAST layout";

// CHANNEL of the header
constexpr std::array<uint8_t, kBlock> make_channels() {
  std::array<uint8_t, kBlock> channels{};
  for (int p = 0; p < kBlock; ++p) channels[p] = static_cast<uint8_t>(32 * (p / 32) + 8 * (p % 4) + 2 * (p % 32 / 8) + p % 8 / 4);
  return channels;
}
constexpr std::array<uint8_t, kBlock> kChannel = make_channels();

int64_t grain(int64_t in) { return std::max<int64_t>(1, kGrainCodes / (kRows * in)); }

// codes: uint8 [out, in] -> int16 [out / 4, in]
at::Tensor interleave(const at::Tensor& codes) {
  const at::Tensor source = codes.contiguous();
  const int64_t in = source.size(1);
  at::Tensor words = at::empty({source.size(0) / kRows, in}, at::kShort);
  const auto* from = source.const_data_ptr<uint8_t>();
  auto* to = words.data_ptr<int16_t>();
  at::parallel_for(0, words.size(0), grain(in), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t block = 0; block < in; block += kBlock) {
        for (int64_t r = 0; r < kRows; ++r) {
          const uint8_t* code = from + (kRows * row + r) * in + block;
          int16_t* word = to + row * in + block + kWords * r;
          for (int64_t m = 0; m < kWords; ++m) {
            const uint8_t* channel = &kChannel[4 * m];
            word[m] =
                static_cast<int16_t>(code[channel[0]] | code[channel[1]] << 4 | code[channel[2]] << 8 | code[channel[3]] << 12);
          }
        }
      }
    }
  });
  return words;
}

at::Tensor deinterleave(const at::Tensor& words) {
  const at::Tensor source = words.contiguous();
  const int64_t in = source.size(1);
  at::Tensor codes = at::empty({source.size(0) * kRows, in}, at::kByte);
  const auto* from = source.const_data_ptr<int16_t>();
  auto* to = codes.data_ptr<uint8_t>();
  at::parallel_for(0, source.size(0), grain(in), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t block = 0; block < in; block += kBlock) {
        for (int64_t r = 0; r < kRows; ++r) {
          const int16_t* word = from + row * in + block + kWords * r;
          uint8_t* code = to + (kRows * row + r) * in + block;
          for (int64_t p = 0; p < kBlock; ++p) {
            code[kChannel[p]] = static_cast<uint8_t>((static_cast<uint16_t>(word[p / 4]) >> (4 * (p % 4))) & 15);
          }
        }
      }
    }
  });
  return codes;
}

// scales, products: [groups, out] -> uint8 [out, groups]
at::Tensor recover_zeros(const at::Tensor& scales, const at::Tensor& products) {
  const int64_t groups = scales.size(0);
  const int64_t out = scales.size(1);
  const at::Tensor scale_source = scales.to(at::kFloat).contiguous();
  const at::Tensor product_source = products.to(at::kFloat).contiguous();
  const auto* scale = scale_source.const_data_ptr<float>();
  const auto* product = product_source.const_data_ptr<float>();
  at::Tensor zeros = at::empty({out, groups}, at::kByte);
  auto* to = zeros.data_ptr<uint8_t>();
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t n = 0; n < out; ++n) {
      const int64_t i = g * out + n;
      if (scale[i] == 0 && product[i] == 0) {
        to[n * groups + g] = kLostZero;
        continue;
      }
      const float ratio = -product[i] / scale[i];
      const float zero = std::nearbyint(ratio);
      if (!(std::isfinite(scale[i]) && std::abs(ratio - zero) <= kNear && zero >= 0 && zero <= 15)) {  // false for NaN too
        fail(ErrorKind::kCorruption,
             "AutoAWQ GEMV_FAST: at group {}, output channel {}, qzeros {} and scale {} make the zero point {}; expected an "
             "integer, 0 to "
             "15",
             g, n, product[i], scale[i], ratio);
      }
      to[n * groups + g] = static_cast<uint8_t>(zero);
    }
  }
  return zeros;
}

}  // namespace

void check_awq_gemv_fast(int64_t out_features, int64_t in_features, int64_t group_size) {
  padded_zero_words(in_features, group_size);
  if (out_features < 1 || out_features % 8 != 0) {
    fail(ErrorKind::kInvalidArgument, "{}: {} output channels, expected a multiple of 8", kLayout, out_features);
  }
  if (in_features < 1 || in_features % kBlock != 0 || in_features % group_size != 0) {
    fail(ErrorKind::kInvalidArgument, "{}: {} input channels, expected a multiple of {} for groups of {}", kLayout, in_features,
         std::max(kBlock, group_size), group_size);
  }
}

PackedGemvFast pack_awq_gemv_fast(const QuantizedWeight& weight, at::ScalarType scale_dtype) {
  check_four_bits(weight, kLayout);
  const int64_t out = weight.codes.size(0);
  const int64_t in = weight.codes.size(1);
  const int64_t groups = weight.zeros.size(1);
  check_awq_gemv_fast(out, in, in / groups);
  const at::Tensor scales = to_stored_scales(weight.scales, scale_dtype, kLayout);
  const at::Tensor products = scales.to(at::kFloat).mul(weight.zeros).neg();
  const at::Tensor stored =
      with_context("product of scale and zero point", [&] { return to_stored_scales(products, scale_dtype, kLayout); });
  const int64_t places = kPlaces * padded_zero_words(in, in / groups);
  PackedGemvFast packed{interleave(weight.codes), at::zeros({places, out}, scale_dtype), at::zeros({places, out}, scale_dtype)};
  packed.scales.narrow(0, 0, groups).copy_(scales.t());
  packed.qzeros.narrow(0, 0, groups).copy_(stored.t());
  return packed;
}

QuantizedWeight unpack_awq_gemv_fast(const at::Tensor& qweight, const at::Tensor& scales, const at::Tensor& qzeros,
                                     int64_t group_size) {
  if (group_size != 32 && group_size != 64 && group_size != 128) {
    fail(ErrorKind::kUnsupported, "{}: a group size of {}, expected 32, 64 or 128", kLayout, group_size);
  }
  const bool shaped = qweight.dim() == 2 && qweight.scalar_type() == at::kShort && qweight.numel() > 0;
  const int64_t out = shaped ? kRows * qweight.size(0) : 0;
  const int64_t in = shaped ? qweight.size(1) : 0;
  const int64_t places = kPlaces * padded_zero_words(in, group_size);
  const bool fits = shaped && in % kBlock == 0 && in % group_size == 0 && at::isFloatingType(scales.scalar_type()) &&
                    at::isFloatingType(qzeros.scalar_type()) && scales.sizes() == at::IntArrayRef{places, out} &&
                    qzeros.sizes() == scales.sizes();
  if (!fits) {
    fail(ErrorKind::kCorruption,
         "AutoAWQ GEMV_FAST tensors do not fit each other and groups of {}: qweight {} {}, scales {} {}, qzeros {} {}; expected "
         "int16 "
         "[out/4, in], float16 [places, out], float16 [places, out] with places = ceil(in/1024) * {}, and in a multiple of {}",
         group_size, c10::toString(qweight.scalar_type()), c10::str(qweight.sizes()), c10::toString(scales.scalar_type()),
         c10::str(scales.sizes()), c10::toString(qzeros.scalar_type()), c10::str(qzeros.sizes()), kPlaces * 128 / group_size,
         std::max(kBlock, group_size));
  }
  const int64_t groups = in / group_size;
  const at::Tensor used = scales.narrow(0, 0, groups);
  return {deinterleave(qweight), recover_zeros(used, qzeros.narrow(0, 0, groups)), used.to(at::kFloat).t().contiguous()};
}

}  // namespace salient::quant
