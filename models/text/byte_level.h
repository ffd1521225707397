// GPT-2's byte alphabet: the 188 printable bytes of Latin-1 stand for themselves, the other 68 for U+0100 ... U+0143 in order, so that every byte string
// is visible text. Example: " é" (20 C3 A9) is "ĠÃ©" (U+0120 U+00C3 U+00A9). https://github.com/openai/gpt-2/blob/master/src/encoder.py
#pragma once

#include <cstdint>
#include <optional>

namespace salient::models {

constexpr bool is_visible_byte(uint8_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr char32_t byte_to_character(uint8_t byte) {
  if (is_visible_byte(byte)) return byte;
  char32_t hidden_before = 0;
  for (uint8_t b = 0; b < byte; ++b) hidden_before += is_visible_byte(b) ? 0 : 1;
  return 0x100 + hidden_before;
}

constexpr std::optional<uint8_t> character_to_byte(char32_t code) {
  if (code < 0x100) return is_visible_byte(static_cast<uint8_t>(code)) ? std::optional(static_cast<uint8_t>(code)) : std::nullopt;
  if (code > 0x143) return std::nullopt;
  for (int byte = 0; byte < 256; ++byte) {
    if (byte_to_character(static_cast<uint8_t>(byte)) == code) return static_cast<uint8_t>(byte);
  }
  return std::nullopt;
}

}  // namespace salient::models
