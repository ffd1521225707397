// Which instructions the products of quant/kernels use.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "quant/kernels/tile_kernels.h"

namespace salient::quant {

// Slowest first. kAvx2 also needs FMA and F16C, kAvx512Vnni the F, BW and VL parts.
enum class InstructionSet : uint8_t { kPortable, kAvx2, kAvxVnni, kAvx512Vnni };

std::string_view name(InstructionSet set);  // "portable", "avx2", "avx-vnni", "avx512-vnni"

// Those that this processor runs, slowest first; kPortable is always there.
std::vector<InstructionSet> available_instruction_sets();
// The last of them. Found once.
InstructionSet best_instruction_set();

const TileKernels& tile_kernels(InstructionSet set);

}  // namespace salient::quant
