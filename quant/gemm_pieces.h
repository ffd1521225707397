// AutoAWQ's GEMM layout (quant/awq_gemm.h) read in pieces that fit into a core's first cache, so that a weight is brought into
// another order in one pass and its codes are never in memory as a whole.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

namespace salient::quant {

inline constexpr int64_t kPieceChannels = 128;   // output channels: a cache line of words
inline constexpr int64_t kPiecePositions = 128;  // input channels, or groups of them

// codes[i * kPieceChannels + c] is the code of output channel `channel + c` at position `position + i`; 0 for channels beyond the
// last one.
struct GemmPiece {
  int64_t position = 0;   // a multiple of kPiecePositions
  int64_t positions = 0;  // at most kPiecePositions
  int64_t channel = 0;    // a multiple of kPieceChannels
  int64_t channels = 0;   // that exist
  const uint8_t* codes = nullptr;
};

// Calls `use` for every piece of packed words, int32 [positions, out / 8] on the CPU and contiguous, from several threads at once.
// A channel's pieces come in order, from one thread.
void each_gemm_piece(const at::Tensor& packed, const std::function<void(const GemmPiece& piece)>& use);

}  // namespace salient::quant
