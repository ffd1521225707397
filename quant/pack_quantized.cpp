#include "quant/pack_quantized.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/util/StringUtil.h>

#include <algorithm>

#include "common/error.h"

namespace salient::quant {
namespace {

constexpr int kWordBits = 32;
constexpr int64_t kGrainCodes = 1 << 16;

void check_bits(int bits) {
  if (bits < 2 || bits > 8) fail(ErrorKind::kInvalidArgument, "pack-quantized: {} bits, expected 2 to 8", bits);
}

void check_codes(const at::Tensor& codes, int bits, const char* what) {
  if (codes.dim() != 2 || codes.scalar_type() != at::kByte) {
    fail(ErrorKind::kInvalidArgument, "pack-quantized: {} must be uint8 of two dimensions, found {} {}", what,
         c10::toString(codes.scalar_type()), c10::str(codes.sizes()));
  }
  if (codes.numel() == 0) return;
  if (const int highest = codes.max().item<int>(); highest >= 1 << bits) {
    fail(ErrorKind::kInvalidArgument, "pack-quantized: {} go up to {}, beyond {} bits", what, highest, bits);
  }
}

int64_t grain(int64_t count) { return std::max<int64_t>(1, kGrainCodes / std::max<int64_t>(1, count)); }

void pack_row(const uint8_t* codes, int64_t count, int bits, int32_t* words) {
  uint64_t buffer = 0;
  int filled = 0;
  for (int64_t i = 0; i < count; ++i) {
    buffer |= static_cast<uint64_t>(codes[i]) << filled;
    filled += bits;
    if (filled >= kWordBits) {
      *words++ = static_cast<int32_t>(static_cast<uint32_t>(buffer));
      buffer >>= kWordBits;
      filled -= kWordBits;
    }
  }
  if (filled > 0) *words = static_cast<int32_t>(static_cast<uint32_t>(buffer));
}

void unpack_row(const int32_t* words, int64_t count, int bits, uint8_t* codes) {
  const uint64_t mask = (uint64_t{1} << bits) - 1;
  uint64_t buffer = 0;
  int filled = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (filled < bits) {
      buffer |= static_cast<uint64_t>(static_cast<uint32_t>(*words++)) << filled;
      filled += kWordBits;
    }
    codes[i] = static_cast<uint8_t>(buffer & mask);
    buffer >>= bits;
    filled -= bits;
  }
}

void unpack_whole(const int32_t* words, int64_t count, int bits, uint8_t* codes) {
  const int64_t each = kWordBits / bits;
  const uint32_t mask = (1U << bits) - 1;
  for (int64_t i = 0; i < count; ++i)
    codes[i] = static_cast<uint8_t>((static_cast<uint32_t>(words[i / each]) >> (i % each * bits)) & mask);
}

}  // namespace

int64_t packed_words(int64_t count, int bits, CodeOrder order) {
  check_bits(bits);
  // A count may be what a file claims: no product of it, and nothing added to it.
  if (order == CodeOrder::kDense) return count / kWordBits * bits + (count % kWordBits * bits + kWordBits - 1) / kWordBits;
  const int64_t each = kWordBits / bits;
  return count / each + (count % each == 0 ? 0 : 1);
}

std::vector<int> possible_bits(int64_t words, int64_t in_features, int64_t zero_words, int64_t out_features) {
  std::vector<int> found;
  for (const CodeOrder order : {CodeOrder::kDense, CodeOrder::kWhole}) {
    for (int bits = 2; bits <= 8; ++bits) {
      const bool fits = packed_words(in_features, bits, order) == words &&
                        (zero_words == 0 || packed_words(out_features, bits, order) == zero_words);
      if (fits && std::find(found.begin(), found.end(), bits) == found.end()) found.push_back(bits);
    }
  }
  return found;
}

at::Tensor pack_codes_dense(const at::Tensor& codes, int bits) {
  check_bits(bits);
  check_codes(codes, bits, "codes");
  const at::Tensor source = codes.contiguous();
  const int64_t count = source.size(1);
  const int64_t width = packed_words(count, bits);
  at::Tensor words = at::empty({source.size(0), width}, at::kInt);
  const auto* in = source.const_data_ptr<uint8_t>();
  auto* out = words.data_ptr<int32_t>();
  at::parallel_for(0, source.size(0), grain(count), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) pack_row(in + row * count, count, bits, out + row * width);
  });
  return words;
}

at::Tensor unpack_codes(const at::Tensor& words, int64_t count, int bits, CodeOrder order) {
  const int64_t width = packed_words(count, bits, order);
  if (words.dim() != 2 || words.scalar_type() != at::kInt || words.size(1) != width) {
    fail(ErrorKind::kCorruption, "packed codes are {} {}, expected int32 of {} columns for {} codes of {} bits",
         c10::toString(words.scalar_type()), c10::str(words.sizes()), width, count, bits);
  }
  const at::Tensor source = words.contiguous();
  at::Tensor codes = at::empty({source.size(0), count}, at::kByte);
  const auto* in = source.const_data_ptr<int32_t>();
  auto* out = codes.data_ptr<uint8_t>();
  at::parallel_for(0, source.size(0), grain(count), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      (order == CodeOrder::kDense ? unpack_row : unpack_whole)(in + row * width, count, bits, out + row * count);
    }
  });
  return codes;
}

PackQuantized pack_quantized(const QuantizedWeight& weight, int bits, bool zero_point, at::ScalarType scale_dtype) {
  check_bits(bits);
  check_codes(weight.zeros, bits, "zero points");
  if (weight.zeros.size(0) != weight.codes.size(0) || weight.scales.sizes() != weight.zeros.sizes()) {
    fail(ErrorKind::kInvalidArgument, "pack-quantized: codes {}, zero points {} and scales {} do not fit each other",
         c10::str(weight.codes.sizes()), c10::str(weight.zeros.sizes()), c10::str(weight.scales.sizes()));
  }
  PackQuantized result;
  result.packed = pack_codes_dense(weight.codes, bits);
  result.scale = weight.scales.to(scale_dtype).contiguous();
  result.shape = at::tensor({weight.codes.size(0), weight.codes.size(1)}, at::kLong);
  if (zero_point) {
    result.zero_point = pack_codes_dense(weight.zeros.t(), bits).t().contiguous();
  } else if (weight.zeros.ne(1 << (bits - 1)).any().item<bool>()) {
    fail(ErrorKind::kInvalidArgument, "pack-quantized: a symmetric weight of {} bits has a zero point other than {}", bits,
         1 << (bits - 1));
  }
  return result;
}

QuantizedWeight unpack_quantized(const PackQuantized& packed, int64_t in_features, int bits) {
  check_bits(bits);
  const at::Tensor& words = packed.packed;
  const bool shaped = words.dim() == 2 && words.scalar_type() == at::kInt && packed.scale.dim() == 2 &&
                      packed.scale.size(0) == words.size(0) && packed.scale.size(1) > 0 && in_features % packed.scale.size(1) == 0;
  const auto order = shaped && words.size(1) == packed_words(in_features, bits) ? CodeOrder::kDense : CodeOrder::kWhole;
  if (!shaped || words.size(1) != packed_words(in_features, bits, order)) {
    fail(ErrorKind::kCorruption,
         "compressed-tensors: weight_packed {} and weight_scale {} do not fit {} input channels of {} bits; expected int32 [out, "
         "{}] and [out, groups] with "
         "groups that divide the input channels",
         c10::str(words.sizes()), c10::str(packed.scale.sizes()), in_features, bits, packed_words(in_features, bits));
  }
  const int64_t out = words.size(0);
  const int64_t groups = packed.scale.size(1);
  QuantizedWeight weight{unpack_codes(words, in_features, bits, order), {}, packed.scale.to(at::kFloat).contiguous()};
  if (!packed.zero_point.defined()) {
    weight.zeros = at::full({out, groups}, 1 << (bits - 1), at::kByte);
    return weight;
  }
  if (packed.zero_point.dim() != 2 || packed.zero_point.size(1) != groups) {
    fail(ErrorKind::kCorruption, "compressed-tensors: weight_zero_point is {}, expected [{}, {}]",
         c10::str(packed.zero_point.sizes()), packed_words(out, bits, order), groups);
  }
  weight.zeros =
      with_context("weight_zero_point", [&] { return unpack_codes(packed.zero_point.t(), out, bits, order).t().contiguous(); });
  return weight;
}

}  // namespace salient::quant
