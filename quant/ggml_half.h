// float16 numbers in the bytes of ggml's blocks.
#pragma once

#include <c10/util/Half.h>

#include <cstdint>
#include <cstring>

namespace salient::quant {

// Rounded to nearest, ties to even, as it will be read again.
inline float round_to_half(float value) { return static_cast<float>(static_cast<c10::Half>(value)); }

inline void store_half(float value, uint8_t* bytes) {
  const c10::Half half(value);
  std::memcpy(bytes, &half.x, sizeof(half.x));
}

inline float load_half(const uint8_t* bytes) {
  uint16_t bits = 0;
  std::memcpy(&bits, bytes, sizeof(bits));
  return static_cast<float>(c10::Half(bits, c10::Half::from_bits()));
}

}  // namespace salient::quant
