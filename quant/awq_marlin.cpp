#include "quant/awq_marlin.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/index_select.h>
#include <c10/util/StringUtil.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "common/error.h"
#include "quant/awq_layout.h"

namespace salient::quant {
namespace {

constexpr int64_t kTile = 16;   // input channels
constexpr int64_t kBlock = 64;  // output channels
constexpr int64_t kCodes = kTile * kBlock;
constexpr int64_t kWords = kCodes / 8;  // of a tile and block
constexpr uint8_t kZero = 8;
constexpr const char* kLayout = "AutoAWQ's Marlin layout";

// Where the codes of a block's words, nibble by nibble, are in a buffer uint8 [kBlock, kTile].
constexpr std::array<uint16_t, kCodes> make_places() {
  constexpr std::array<int, 8> kOutput = {0, 0, 8, 8, 0, 0, 8, 8};
  constexpr std::array<int, 8> kInput = {0, 8, 0, 8, 1, 9, 1, 9};
  std::array<uint16_t, kCodes> places{};
  for (int word = 0; word < kWords; ++word) {
    const int i = word / 4;
    for (int x = 0; x < 8; ++x) {
      const int output = 16 * (word % 4) + i / 4 + kOutput[x];
      places[8 * word + x] = static_cast<uint16_t>(kTile * output + 2 * (i % 4) + kInput[x]);
    }
  }
  return places;
}
constexpr std::array<uint16_t, kCodes> kPlace = make_places();

// codes: uint8 [out, in] -> int32 [in / 16, 2 * out]
at::Tensor pack_tiles(const at::Tensor& codes) {
  const at::Tensor source = codes.contiguous();
  const int64_t out = source.size(0);
  const int64_t in = source.size(1);
  at::Tensor words = at::empty({in / kTile, 2 * out}, at::kInt);
  const auto* from = source.const_data_ptr<uint8_t>();
  auto* to = words.data_ptr<int32_t>();
  at::parallel_for(0, out / kBlock, 1, [&](int64_t begin, int64_t end) {
    std::array<uint8_t, kCodes> buffer;
    for (int64_t block = begin; block < end; ++block) {
      for (int64_t tile = 0; tile < in / kTile; ++tile) {
        const uint8_t* code = from + block * kBlock * in + tile * kTile;
        for (int64_t n = 0; n < kBlock; ++n) std::memcpy(&buffer[n * kTile], code + n * in, kTile);
        int32_t* word = to + tile * 2 * out + block * kWords;
        for (int64_t w = 0; w < kWords; ++w) {
          const uint16_t* place = &kPlace[8 * w];
          uint32_t value = 0;
          for (int x = 0; x < 8; ++x) value |= static_cast<uint32_t>(buffer[place[x]]) << (4 * x);
          word[w] = static_cast<int32_t>(value);
        }
      }
    }
  });
  return words;
}

at::Tensor unpack_tiles(const at::Tensor& words) {
  const at::Tensor source = words.contiguous();
  const int64_t out = source.size(1) / 2;
  const int64_t in = source.size(0) * kTile;
  at::Tensor codes = at::empty({out, in}, at::kByte);
  const auto* from = source.const_data_ptr<int32_t>();
  auto* to = codes.data_ptr<uint8_t>();
  at::parallel_for(0, out / kBlock, 1, [&](int64_t begin, int64_t end) {
    std::array<uint8_t, kCodes> buffer;
    for (int64_t block = begin; block < end; ++block) {
      for (int64_t tile = 0; tile < in / kTile; ++tile) {
        const int32_t* word = from + tile * 2 * out + block * kWords;
        for (int64_t w = 0; w < kWords; ++w) {
          const uint16_t* place = &kPlace[8 * w];
          for (int x = 0; x < 8; ++x) buffer[place[x]] = static_cast<uint8_t>((static_cast<uint32_t>(word[w]) >> (4 * x)) & 15);
        }
        uint8_t* code = to + block * kBlock * in + tile * kTile;
        for (int64_t n = 0; n < kBlock; ++n) std::memcpy(code + n * in, &buffer[n * kTile], kTile);
      }
    }
  });
  return codes;
}

// int64 [out]: the output channel of each column of scales
at::Tensor scale_columns(int64_t out, bool one_group) {
  constexpr std::array<int64_t, 8> kSingle = {0, 1, 8, 9, 16, 17, 24, 25};
  at::Tensor columns = at::empty({out}, at::kLong);
  auto* channel = columns.data_ptr<int64_t>();
  for (int64_t c = 0; c < out; ++c) {
    channel[c] = one_group ? c / 32 * 32 + 2 * (c % 32 / 8) + kSingle[c % 8] : c / 64 * 64 + c % 64 / 8 + 8 * (c % 8);
  }
  return columns;
}

}  // namespace

void check_awq_marlin(int64_t out_features, int64_t in_features, int64_t group_size) {
  if (out_features < 1 || out_features % kBlock != 0) {
    fail(ErrorKind::kInvalidArgument, "{}: {} output channels, expected a multiple of {}", kLayout, out_features, kBlock);
  }
  if (in_features < 1 || in_features % kTile != 0) {
    fail(ErrorKind::kInvalidArgument, "{}: {} input channels, expected a multiple of {}", kLayout, in_features, kTile);
  }
  if (group_size != -1 && (group_size < 1 || in_features % group_size != 0)) {
    fail(ErrorKind::kInvalidArgument, "{}: a group size of {} does not divide {} input channels; expected a divisor or -1", kLayout,
         group_size, in_features);
  }
}

PackedMarlin pack_awq_marlin(const QuantizedWeight& weight) {
  check_four_bits(weight, kLayout);
  const int64_t out = weight.codes.size(0);
  const int64_t in = weight.codes.size(1);
  const int64_t groups = weight.zeros.size(1);
  check_awq_marlin(out, in, in / groups);
  const at::Tensor zeros = weight.zeros.contiguous();
  const auto* zero = zeros.const_data_ptr<uint8_t>();
  const auto* other = std::find_if(zero, zero + zeros.numel(), [](uint8_t value) { return value != kZero; });
  if (other != zero + zeros.numel()) {
    fail(ErrorKind::kInvalidArgument,
         "{} stores symmetric weights: a zero point is {}, expected {} everywhere; quantize with zero_point false", kLayout, *other,
         kZero);
  }
  const at::Tensor scales = to_stored_scales(weight.scales, at::kHalf, kLayout);
  return {pack_tiles(weight.codes), scales.t().index_select(1, scale_columns(out, groups == 1)).contiguous()};
}

QuantizedWeight unpack_awq_marlin(const at::Tensor& qweight, const at::Tensor& scales) {
  const bool fits = qweight.dim() == 2 && qweight.scalar_type() == at::kInt && qweight.numel() > 0 && scales.dim() == 2 &&
                    at::isFloatingType(scales.scalar_type()) && qweight.size(1) == 2 * scales.size(1) &&
                    scales.size(1) % kBlock == 0 && scales.size(0) > 0 && qweight.size(0) * kTile % scales.size(0) == 0;
  if (!fits) {
    fail(ErrorKind::kCorruption,
         "AutoAWQ Marlin tensors do not fit each other: qweight {} {}, scales {} {}; expected int32 [in/16, 2*out], float16 "
         "[groups, "
         "out] with out a multiple of {} and groups that divide in",
         c10::toString(qweight.scalar_type()), c10::str(qweight.sizes()), c10::toString(scales.scalar_type()),
         c10::str(scales.sizes()), kBlock);
  }
  const int64_t groups = scales.size(0);
  const int64_t out = scales.size(1);
  const at::Tensor stored = scales.to(at::kFloat);
  const at::Tensor ordered = at::empty_like(stored);
  ordered.index_copy_(1, scale_columns(out, groups == 1), stored);
  return {unpack_tiles(qweight), at::full({out, groups}, kZero, at::kByte), ordered.t().contiguous()};
}

}  // namespace salient::quant
