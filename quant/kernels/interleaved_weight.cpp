#include "quant/kernels/interleaved_weight.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "common/error.h"
#include "quant/clones.h"
#include "quant/gemm_pieces.h"
#include "quant/kernels/tile_kernels.h"

namespace salient::quant {
namespace {

constexpr int64_t kHighestHalf = 15;  // code in half a byte

int64_t tiles_of(int64_t out_features) { return (out_features + kTileChannels - 1) / kTileChannels; }

bool fits_half(const at::Tensor& values) { return values.numel() == 0 || values.max().item<int64_t>() <= kHighestHalf; }

void check(const at::Tensor& codes, const at::Tensor& zeros, const at::Tensor& scales, int64_t group_size) {
  if (codes.dim() != 2 || codes.scalar_type() != at::kByte || zeros.scalar_type() != at::kByte || !codes.is_cpu()) {
    fail(ErrorKind::kInvalidArgument,
         "integer weight: codes and zeros must be uint8 on the CPU, codes of two dimensions, found {} dimensions", codes.dim());
  }
  if (group_size < 1 || codes.size(1) % group_size != 0) {
    fail(ErrorKind::kInvalidArgument, "integer weight: group_size {} does not divide the {} input features", group_size,
         codes.size(1));
  }
  if (group_size > kMaxIntegerGroup) {
    fail(ErrorKind::kInvalidArgument,
         "integer weight: groups of {} channels are too large for sums in 32 bits, expected at most {}", group_size,
         kMaxIntegerGroup);
  }
  const std::vector<int64_t> expected = {codes.size(0), codes.size(1) / group_size};
  if (zeros.sizes() != expected || scales.sizes() != expected) {
    fail(ErrorKind::kInvalidArgument,
         "integer weight: zeros are [{}] and scales [{}], expected [{}] for {} input features in groups of {}",
         fmt::join(zeros.sizes(), ", "), fmt::join(scales.sizes(), ", "), fmt::join(expected, ", "), codes.size(1), group_size);
  }
}

// Position of input channel k of a group for channel c of a tile, and how far its bits are shifted.
struct Place {
  int64_t byte;
  int shift;
};
Place place_of(int64_t c, int64_t k, int bits) {
  if (bits == 4) return {k / 8 * kLineBytes + c * 4 + k % 4, k % 8 < 4 ? 0 : 4};
  return {k / 4 * kLineBytes + c * 4 + k % 4, 0};
}

// of(bytes of the group, tile's channel, output channel, group) for everything that exists
template <typename Of>
void each_group(const InterleavedWeight& weight, Of of) {
  const int64_t groups = weight.in_features / weight.group_size;
  auto* bytes = weight.codes.data_ptr<uint8_t>();
  const int64_t group_bytes = weight.codes.size(2);
  at::parallel_for(0, tiles_of(weight.out_features), 1, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t channels = std::min(kTileChannels, weight.out_features - tile * kTileChannels);
      for (int64_t g = 0; g < groups; ++g) {
        for (int64_t c = 0; c < channels; ++c) of(bytes + (tile * groups + g) * group_bytes, c, tile * kTileChannels + c, g);
      }
    }
  });
}

// [out, groups] -> [tiles, groups, 16] and back
at::Tensor to_tiles(const at::Tensor& values) {
  at::Tensor filled = at::zeros({tiles_of(values.size(0)) * kTileChannels, values.size(1)}, values.options());
  filled.narrow(0, 0, values.size(0)).copy_(values);
  return filled.view({-1, kTileChannels, values.size(1)}).transpose(1, 2).contiguous();
}
at::Tensor from_tiles(const at::Tensor& tiles, int64_t out_features) {
  return tiles.transpose(1, 2).reshape({-1, tiles.size(1)}).narrow(0, 0, out_features).contiguous();
}

// The smallest type that holds every scale exactly.
at::Tensor narrowed(const at::Tensor& scales) {
  at::Tensor exact = scales.to(at::kFloat);
  for (const at::ScalarType type : {at::kHalf, at::kBFloat16}) {
    const at::Tensor narrow = exact.to(type);
    if (at::equal(narrow.to(at::kFloat), exact)) return narrow;
  }
  return exact;
}

static_assert(std::endian::native == std::endian::little, "words of four codes are moved as one");

// Codes of one output channel in a group, to its words in the group's lines.
void place_codes(const uint8_t* row, int64_t count, int bits, uint8_t* words) {
  int64_t k = 0;
  for (; k + 8 <= count; k += 8) {
    uint64_t eight = 0;
    std::memcpy(&eight, row + k, sizeof eight);
    if (bits == 4) {
      const auto word = static_cast<uint32_t>(eight | eight >> 28);
      std::memcpy(words + k / 8 * kLineBytes, &word, sizeof word);
    } else {
      for (int64_t half = 0; half < 2; ++half) std::memcpy(words + (k / 4 + half) * kLineBytes, row + k + 4 * half, 4);
    }
  }
  for (; k < count; ++k) {
    const Place place = place_of(0, k, bits);
    words[place.byte] = static_cast<uint8_t>(words[place.byte] | row[k] << place.shift);
  }
}

// Positions [0, 8 * lines) of a tile, `codes` [position][kPieceChannels], as lines of 4 bits.
SALIENT_CLONES void place_piece(const uint8_t* __restrict codes, int64_t lines, uint32_t* __restrict words) {
  for (int64_t line = 0; line < lines; ++line) {
    const uint8_t* at = codes + line * kGroupAlign * kPieceChannels;
    for (int64_t c = 0; c < kTileChannels; ++c) {
      uint32_t word = 0;
      for (int64_t i = 0; i < 4; ++i)
        word |= static_cast<uint32_t>(at[i * kPieceChannels + c] | at[(4 + i) * kPieceChannels + c] << 4) << (8 * i);
      words[line * kTileChannels + c] = word;
    }
  }
}

}  // namespace

int64_t padded_group(int64_t group_size) { return (group_size + kGroupAlign - 1) / kGroupAlign * kGroupAlign; }

InterleavedWeight interleave(const at::Tensor& codes, const at::Tensor& zeros, const at::Tensor& scales, int64_t group_size) {
  const at::NoGradGuard no_grad;
  check(codes, zeros, scales, group_size);
  InterleavedWeight weight{codes.size(1),
                           codes.size(0),
                           group_size,
                           fits_half(codes) && fits_half(zeros) ? 4 : 8,
                           {},
                           to_tiles(zeros),
                           to_tiles(narrowed(scales))};
  weight.codes = at::zeros(
      {tiles_of(weight.out_features), codes.size(1) / group_size, padded_group(group_size) * kTileChannels * weight.bits / 8},
      at::kByte);
  const at::Tensor source = codes.contiguous();
  const auto* from = source.const_data_ptr<uint8_t>();
  each_group(weight, [&](uint8_t* bytes, int64_t c, int64_t n, int64_t g) {
    place_codes(from + n * weight.in_features + g * group_size, group_size, weight.bits, bytes + 4 * c);
  });
  return weight;
}

InterleavedWeight interleave(const PackedGemm& packed) {
  const at::NoGradGuard no_grad;
  check_packed_gemm(packed);
  const int64_t in = packed.qweight.size(0);
  const int64_t groups = packed.scales.size(0);
  const int64_t out = packed.scales.size(1);
  // Groups that are filled up are no single run of lines, and scales of another type may fit into a smaller one.
  if (in / groups % kGroupAlign != 0 || packed.scales.scalar_type() != at::kHalf) {
    const QuantizedWeight natural = unpack_awq_gemm(packed.qweight, packed.qzeros, packed.scales);
    return interleave(natural.codes, natural.zeros, natural.scales, in / groups);
  }
  const int64_t tiles = tiles_of(out);
  InterleavedWeight weight{in,
                           out,
                           in / groups,
                           4,
                           at::empty({tiles, groups, in / groups * kTileChannels / 2}, at::kByte),
                           at::empty({tiles, groups, kTileChannels}, at::kByte),
                           at::zeros({tiles, groups, kTileChannels}, at::kHalf)};
  auto* const words = reinterpret_cast<uint32_t*>(weight.codes.data_ptr<uint8_t>());
  each_gemm_piece(packed.qweight, [&](const GemmPiece& piece) {
    for (int64_t c = 0; c < piece.channels; c += kTileChannels) {
      const int64_t line = (piece.channel + c) / kTileChannels * (in / kGroupAlign) + piece.position / kGroupAlign;
      place_piece(piece.codes + c, piece.positions / kGroupAlign, words + line * kTileChannels);
    }
  });
  auto* const zeros = weight.zeros.data_ptr<uint8_t>();
  each_gemm_piece(packed.qzeros, [&](const GemmPiece& piece) {
    for (int64_t c = 0; c < piece.channels; c += kTileChannels) {
      for (int64_t g = 0; g < piece.positions; ++g) {
        uint8_t* const to = zeros + ((piece.channel + c) / kTileChannels * groups + piece.position + g) * kTileChannels;
        std::memcpy(to, piece.codes + g * kPieceChannels + c, kTileChannels);
      }
    }
  });
  const at::Tensor stored = packed.scales.contiguous();
  const auto* const from = static_cast<const uint16_t*>(stored.const_data_ptr());
  auto* const scales = static_cast<uint16_t*>(weight.scales.data_ptr());
  at::parallel_for(0, tiles, 1, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      const auto channels = static_cast<size_t>(std::min(kTileChannels, out - tile * kTileChannels));
      for (int64_t g = 0; g < groups; ++g)
        std::memcpy(scales + (tile * groups + g) * kTileChannels, from + g * out + tile * kTileChannels,
                    channels * sizeof(uint16_t));
    }
  });
  return weight;
}

at::Tensor natural_codes(const InterleavedWeight& weight) {
  at::Tensor codes = at::empty({weight.out_features, weight.in_features}, at::kByte);
  auto* to = codes.data_ptr<uint8_t>();
  const int mask = weight.bits == 4 ? 15 : 255;
  each_group(weight, [&](const uint8_t* bytes, int64_t c, int64_t n, int64_t g) {
    uint8_t* row = to + n * weight.in_features + g * weight.group_size;
    for (int64_t k = 0; k < weight.group_size; ++k) {
      const Place place = place_of(c, k, weight.bits);
      row[k] = static_cast<uint8_t>(bytes[place.byte] >> place.shift & mask);
    }
  });
  return codes;
}

at::Tensor natural_zeros(const InterleavedWeight& weight) { return from_tiles(weight.zeros, weight.out_features); }
at::Tensor natural_scales(const InterleavedWeight& weight) { return from_tiles(weight.scales, weight.out_features).to(at::kFloat); }

uint64_t memory_bytes(const InterleavedWeight& weight) {
  return weight.codes.nbytes() + weight.zeros.nbytes() + weight.scales.nbytes();
}

WeightView view_of(const InterleavedWeight& weight) {
  WeightView view;
  view.out_features = weight.out_features;
  view.groups = weight.in_features / weight.group_size;
  view.padded_group = padded_group(weight.group_size);
  view.bits = weight.bits;
  view.codes = weight.codes.const_data_ptr<uint8_t>();
  view.zeros = weight.zeros.const_data_ptr<uint8_t>();
  view.scales = weight.scales.const_data_ptr();
  view.scale_type = weight.scales.scalar_type() == at::kHalf       ? ScaleType::kFloat16
                    : weight.scales.scalar_type() == at::kBFloat16 ? ScaleType::kBfloat16
                                                                   : ScaleType::kFloat32;
  return view;
}

}  // namespace salient::quant
