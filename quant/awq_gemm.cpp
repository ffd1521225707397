#include "quant/awq_gemm.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <c10/util/StringUtil.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "common/error.h"

namespace salient::quant {
namespace {

constexpr int64_t kPack = 8;
constexpr std::array<int, kPack> kOrder = {0, 2, 4, 6, 1, 3, 5, 7};  // nibble -> channel inside the word

// values: uint8 [channels, positions] -> int32 [positions, channels / 8]
at::Tensor pack_words(const at::Tensor& values) {
  const int64_t channels = values.size(0);
  const int64_t positions = values.size(1);
  const int64_t words = channels / kPack;
  at::Tensor packed = at::empty({positions, words}, at::kInt);
  const auto* in = values.const_data_ptr<uint8_t>();
  auto* out = packed.data_ptr<int32_t>();
  at::parallel_for(0, words, std::max<int64_t>(1, 8192 / positions), [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      for (int64_t k = 0; k < positions; ++k) {
        uint32_t word = 0;
        for (int i = 0; i < kPack; ++i) {
          word |= static_cast<uint32_t>(in[(kPack * c + kOrder[i]) * positions + k] & 15) << (4 * i);
        }
        out[k * words + c] = static_cast<int32_t>(word);
      }
    }
  });
  return packed;
}

}  // namespace

at::Tensor unpack_awq_codes(const at::Tensor& packed) {
  const at::Tensor source = packed.contiguous();
  const int64_t positions = source.size(0);
  const int64_t words = source.size(1);
  at::Tensor values = at::empty({words * kPack, positions}, at::kByte);
  const auto* in = source.const_data_ptr<int32_t>();
  auto* out = values.data_ptr<uint8_t>();
  at::parallel_for(0, words, std::max<int64_t>(1, 8192 / positions), [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      for (int64_t k = 0; k < positions; ++k) {
        const auto word = static_cast<uint32_t>(in[k * words + c]);
        for (int i = 0; i < kPack; ++i) out[(kPack * c + kOrder[i]) * positions + k] = static_cast<uint8_t>((word >> (4 * i)) & 15);
      }
    }
  });
  return values;
}

void check_awq_gemm(const QuantizationSpec& spec) {
  if (spec.weight_bits != 4) {
    fail(ErrorKind::kUnsupported, "bits: found {}; the AutoAWQ GEMM format stores 4 bits", spec.weight_bits);
  }
  if (spec.lm_head != HeadDtype::kFp16) {
    fail(ErrorKind::kUnsupported, "lm_head: found {}; the AutoAWQ GEMM format keeps the head in fp16", to_string(spec.lm_head));
  }
}

PackedGemm pack_awq_gemm(const QuantizedWeight& weight) {
  if (weight.codes.size(0) % kPack != 0) {
    fail(ErrorKind::kInvalidArgument, "AutoAWQ's GEMM layout packs 8 output channels into a word: {} is not a multiple of 8",
         weight.codes.size(0));
  }
  return {pack_words(weight.codes), pack_words(weight.zeros), weight.scales.t().contiguous().to(at::kHalf)};
}

void check_packed_gemm(const PackedGemm& packed) {
  const auto& [qweight, qzeros, scales] = packed;
  const bool fits = qweight.dim() == 2 && qzeros.dim() == 2 && scales.dim() == 2 && qweight.scalar_type() == at::kInt &&
                    qzeros.scalar_type() == at::kInt && qweight.size(1) == qzeros.size(1) && scales.size(0) == qzeros.size(0) &&
                    scales.size(1) == qweight.size(1) * kPack && scales.size(0) > 0 && qweight.size(0) % scales.size(0) == 0;
  if (!fits) {
    fail(ErrorKind::kCorruption,
         "AutoAWQ GEMM tensors do not fit each other: qweight {}, qzeros {}, scales {}; expected int32 [in, out/8], int32 "
         "[in/group, out/8], float16 [in/group, out]",
         c10::str(qweight.sizes()), c10::str(qzeros.sizes()), c10::str(scales.sizes()));
  }
}

QuantizedWeight unpack_awq_gemm(const at::Tensor& qweight, const at::Tensor& qzeros, const at::Tensor& scales) {
  check_packed_gemm({qweight, qzeros, scales});
  return {unpack_awq_codes(qweight), unpack_awq_codes(qzeros), scales.to(at::kFloat).t().contiguous()};
}

}  // namespace salient::quant
