#include "quant/awq_gemv.h"

#include <ATen/ops/zeros.h>
#include <c10/util/StringUtil.h>

#include "common/error.h"
#include "quant/awq_layout.h"
#include "quant/pack_quantized.h"

namespace salient::quant {
namespace {

constexpr int64_t kPack = 8;  // codes to a word
constexpr int kBits = 4;
constexpr const char* kLayout = "AutoAWQ's GEMV layout";

}  // namespace

void check_awq_gemv(int64_t out_features, int64_t in_features, int64_t group_size) {
  padded_zero_words(in_features, group_size);
  if (out_features < 1 || out_features % kPack != 0) {
    fail(ErrorKind::kInvalidArgument, "{}: {} output channels, expected a multiple of {}", kLayout, out_features, kPack);
  }
  if (in_features < 1 || in_features % group_size != 0) {
    fail(ErrorKind::kInvalidArgument, "{}: {} input channels, expected a multiple of the group size {}", kLayout, in_features,
         group_size);
  }
}

PackedGemv pack_awq_gemv(const QuantizedWeight& weight) {
  check_four_bits(weight, kLayout);
  const int64_t out = weight.codes.size(0);
  const int64_t in = weight.codes.size(1);
  const int64_t groups = weight.zeros.size(1);
  check_awq_gemv(out, in, in / groups);
  const int64_t places = kPack * padded_zero_words(in, in / groups);
  const at::Tensor zeros = at::zeros({out, places}, at::kByte);
  zeros.narrow(1, 0, groups).copy_(weight.zeros);
  PackedGemv packed{pack_codes_dense(weight.codes, kBits), pack_codes_dense(zeros, kBits), at::zeros({out, places}, at::kHalf)};
  packed.scales.narrow(1, 0, groups).copy_(to_stored_scales(weight.scales, at::kHalf, kLayout));
  return packed;
}

QuantizedWeight unpack_awq_gemv(const at::Tensor& qweight, const at::Tensor& qzeros, const at::Tensor& scales, int64_t group_size) {
  if (group_size != 32 && group_size != 64 && group_size != 128) {
    fail(ErrorKind::kUnsupported, "{}: a group size of {}, expected 32, 64 or 128", kLayout, group_size);
  }
  const bool shaped = qweight.dim() == 2 && qweight.scalar_type() == at::kInt && qweight.numel() > 0;
  const int64_t out = shaped ? qweight.size(0) : 0;
  const int64_t in = shaped ? kPack * qweight.size(1) : 0;
  const int64_t words = padded_zero_words(in, group_size);
  const bool fits = shaped && in % group_size == 0 && qzeros.scalar_type() == at::kInt &&
                    at::isFloatingType(scales.scalar_type()) && qzeros.sizes() == at::IntArrayRef{out, words} &&
                    scales.sizes() == at::IntArrayRef{out, kPack * words};
  if (!fits) {
    fail(ErrorKind::kCorruption,
         "AutoAWQ GEMV tensors do not fit each other and groups of {}: qweight {} {}, qzeros {} {}, scales {} {}; expected int32 "
         "[out, in/8], int32 [out, words], float16 [out, 8*words] with words = ceil(in/1024) * {}, and groups that divide in",
         group_size, c10::toString(qweight.scalar_type()), c10::str(qweight.sizes()), c10::toString(qzeros.scalar_type()),
         c10::str(qzeros.sizes()), c10::toString(scales.scalar_type()), c10::str(scales.sizes()), 128 / group_size);
  }
  const int64_t groups = in / group_size;
  return {unpack_codes(qweight, in, kBits), unpack_codes(qzeros, kPack * words, kBits).narrow(1, 0, groups).contiguous(),
          scales.narrow(1, 0, groups).to(at::kFloat).contiguous()};
}

}  // namespace salient::quant
