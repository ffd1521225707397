#include "quant/gemm_pieces.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "quant/clones.h"

namespace salient::quant {
namespace {

static_assert(std::endian::native == std::endian::little, "eight codes are stored as one word of 64 bits");
constexpr int64_t kPack = 8;  // channels of a word
constexpr int64_t kPieceWords = kPieceChannels / kPack;

// Four neighbouring half bytes, each to 16 bits of its own.
inline __attribute__((always_inline)) uint64_t spread(uint64_t halves) {
  halves = (halves | halves << 24) & 0x000000ff000000ffU;
  return (halves | halves << 12) & 0x000f000f000f000fU;
}

// A word's low halves are channels 0, 2, 4, 6, its high ones 1, 3, 5, 7.
SALIENT_CLONES void read_rows(const int32_t* __restrict words, int64_t stride, int64_t count, int64_t rows,
                              uint8_t* __restrict codes) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t w = 0; w < count; ++w) {
      const auto word = static_cast<uint64_t>(static_cast<uint32_t>(words[row * stride + w]));
      const uint64_t eight = spread(word & 0xffff) | spread(word >> 16) << 8;
      std::memcpy(codes + row * kPieceChannels + w * kPack, &eight, sizeof eight);
    }
  }
}

}  // namespace

void each_gemm_piece(const at::Tensor& packed, const std::function<void(const GemmPiece& piece)>& use) {
  const int64_t positions = packed.size(0);
  const int64_t words = packed.size(1);
  const auto* const from = packed.const_data_ptr<int32_t>();
  at::parallel_for(0, (words + kPieceWords - 1) / kPieceWords, 1, [&](int64_t begin, int64_t end) {
    alignas(64) std::array<uint8_t, kPiecePositions * kPieceChannels> codes{};
    for (int64_t position = 0; position < positions; position += kPiecePositions) {
      for (int64_t column = begin; column < end; ++column) {
        const int64_t first = column * kPieceWords;
        const int64_t count = std::min(kPieceWords, words - first);
        const int64_t rows = std::min(kPiecePositions, positions - position);
        if (count < kPieceWords) codes.fill(0);
        read_rows(from + position * words + first, words, count, rows, codes.data());
        use({position, rows, first * kPack, count * kPack, codes.data()});
      }
    }
  });
}

}  // namespace salient::quant
