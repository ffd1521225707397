// GPT-2's byte alphabet: the 188 printable bytes of Latin-1 stand for themselves, the other 68 for U+0100 ... U+0143 in order, so
// that every byte string is visible text. Example: " é" (20 C3 A9) is "ĠÃ©" (U+0120 U+00C3 U+00A9).
// https://github.com/openai/gpt-2/blob/master/src/encoder.py
#pragma once

#include <array>
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

inline constexpr auto kByteCharacters = [] {
  std::array<char32_t, 256> table{};
  for (int byte = 0; byte < 256; ++byte) table[byte] = byte_to_character(static_cast<uint8_t>(byte));
  return table;
}();

// The inverse, by code point; -1 for characters outside the alphabet.
inline constexpr auto kCharacterBytes = [] {
  std::array<int16_t, 0x144> table{};
  for (int16_t& entry : table) entry = -1;
  for (int byte = 0; byte < 256; ++byte) table[kByteCharacters[byte]] = static_cast<int16_t>(byte);
  return table;
}();

constexpr std::optional<uint8_t> character_to_byte(char32_t code) {
  if (code >= kCharacterBytes.size() || kCharacterBytes[code] < 0) return std::nullopt;
  return static_cast<uint8_t>(kCharacterBytes[code]);
}

}  // namespace salient::models
