#include "quant/kernels/instruction_set.h"

#include "common/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace salient::quant {
namespace {

#if defined(__x86_64__)
// __builtin_cpu_supports knows no AVX-VNNI in GCC 12: leaf 7, subleaf 1, bit 4 of eax.
bool has_avx_vnni() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0 || eax < 1) return false;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & 1U << 4) != 0;
}

// The same for F16C: leaf 1, bit 29 of ecx. Whether the system saves the registers is part of __builtin_cpu_supports("avx2").
bool has_f16c() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & 1U << 29) != 0;
}
#endif

}  // namespace

std::string_view name(InstructionSet set) {
  switch (set) {
    case InstructionSet::kPortable: return "portable";
    case InstructionSet::kAvx2: return "avx2";
    case InstructionSet::kAvxVnni: return "avx-vnni";
    case InstructionSet::kAvx512Vnni: return "avx512-vnni";
  }
  return "unknown";
}

std::vector<InstructionSet> available_instruction_sets() {
  std::vector<InstructionSet> found = {InstructionSet::kPortable};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c()) {
    found.push_back(InstructionSet::kAvx2);
    if (has_avx_vnni()) found.push_back(InstructionSet::kAvxVnni);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512vnni")) {
      found.push_back(InstructionSet::kAvx512Vnni);
    }
  }
#endif
  return found;
}

InstructionSet best_instruction_set() {
  static const InstructionSet best = available_instruction_sets().back();
  return best;
}

const TileKernels& tile_kernels(InstructionSet set) {
  switch (set) {
    case InstructionSet::kPortable: return kPortableTiles;
#if defined(__x86_64__)
    case InstructionSet::kAvx2: return kAvx2Tiles;
    case InstructionSet::kAvxVnni: return kAvxVnniTiles;
    case InstructionSet::kAvx512Vnni: return kAvx512VnniTiles;
#endif
    default: fail(ErrorKind::kInternal, "integer kernels: {} was not built for this processor", name(set));
  }
}

}  // namespace salient::quant
