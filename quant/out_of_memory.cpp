#include "quant/out_of_memory.h"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

namespace salient::quant {

bool is_out_of_memory(const c10::Error& error) {
  if (dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr) return true;
  constexpr std::array<std::string_view, 3> kTexts = {"out of memory", "CUBLAS_STATUS_ALLOC_FAILED",
                                                      "CUSOLVER_STATUS_ALLOC_FAILED"};
  const std::string found = error.what_without_backtrace();
  return std::any_of(kTexts.begin(), kTexts.end(), [&](std::string_view text) { return found.find(text) != std::string::npos; });
}

}  // namespace salient::quant
