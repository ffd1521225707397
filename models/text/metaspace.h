// Metaspace, SentencePiece's way with spaces: they become a visible mark, and one is put in front. Pre-tokenizer and decoder share
// its settings.
#pragma once

#include <string_view>

#include "common/json.h"

namespace salient::models {

enum class PrependScheme { kAlways, kFirst, kNever };  // before every piece, before the start of the input only, nowhere

struct Metaspace {
  char32_t replacement = 0x2581;  // "▁"
  PrependScheme prepend = PrependScheme::kAlways;
  bool split = true;

  // Older files say add_prefix_space instead of prepend_scheme. Errors: corruption.
  static Metaspace from_json(const Json& part, std::string_view where);
};

}  // namespace salient::models
