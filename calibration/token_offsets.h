// Which bytes of a text each of its tokens stands for.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "calibration/response_spans.h"
#include "models/text/tokenizer.h"

namespace salient::calibration {

// For each id its bytes of `text`, found by decoding the ids piece by piece and comparing. Tokens that share a character (bytes of
// an emoji) have the same span; those that stand for nothing in the text (a BOS that was added) an empty one. Nothing where the
// decoded text is not the given one: the tokenizer changes it (Unicode normalization).
std::optional<std::vector<TextSpan>> token_spans(std::string_view text, std::span<const models::TokenId> ids,
                                                 const models::Tokenizer& tokenizer);

// 1 for every token that holds a byte of one of the `spans` (in order, not overlapping), 0 for the others: transformers' rule for
// its assistant mask. A text that the tokenizer normalizes is handled where the ids of the text up to a span's ends are a beginning
// of `ids`. `add_special_tokens`: as `ids` were made. Errors: unsupported, with `where`: neither way works.
std::vector<uint8_t> mask_tokens(std::string_view text, std::span<const models::TokenId> ids, const std::vector<TextSpan>& spans,
                                 const models::Tokenizer& tokenizer, bool add_special_tokens, std::string_view where);

}  // namespace salient::calibration
