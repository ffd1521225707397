#include "calibration/token_offsets.h"

#include <algorithm>

#include "common/error.h"

namespace salient::calibration {
namespace {

using Ids = std::vector<models::TokenId>;

// A character has at most four bytes, each of which may be a token; a few more for tokens that decode to nothing.
constexpr size_t kMostPending = 12;

// Where `piece` stands at or right behind `at`, as {begin, end}; a tokenizer may put a blank in front of a word or take white space
// away at special tokens.
std::optional<TextSpan> match(std::string_view text, size_t at, std::string_view piece) {
  const std::string_view rest = text.substr(at);
  if (rest.starts_with(piece)) return TextSpan{at, at + piece.size()};
  if (piece.starts_with(' ') && rest.starts_with(piece.substr(1))) return TextSpan{at, at + piece.size() - 1};
  const size_t blanks = std::min(rest.find_first_not_of(" \t\r\n"), rest.size());
  const std::string_view bare = piece.substr(std::min(piece.find_first_not_of(' '), piece.size()));
  if (blanks > 0 && !bare.empty() && rest.substr(blanks).starts_with(bare)) return TextSpan{at + blanks, at + blanks + bare.size()};
  return std::nullopt;
}

}  // namespace

std::optional<std::vector<TextSpan>> token_spans(std::string_view text, std::span<const models::TokenId> ids,
                                                 const models::Tokenizer& tokenizer) {
  std::vector<TextSpan> spans;
  Ids context;  // the tokens before, since a decoder treats the first one in its own way
  Ids pending;
  std::string before;
  size_t at = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    pending.push_back(ids[i]);
    Ids joined = context;
    joined.insert(joined.end(), pending.begin(), pending.end());
    const std::string decoded = tokenizer.decode(joined, false);
    std::optional<TextSpan> found;
    if (decoded.starts_with(before)) found = match(text, at, std::string_view(decoded).substr(before.size()));
    const bool at_an_end = i == 0 || (i + 1 == ids.size() && at == text.size());
    if (!found && pending.size() == 1 && at_an_end && tokenizer.id_to_token(ids[i]) == tokenizer.decode(pending, false)) {
      found = TextSpan{at, at};  // added by the post-processor
    }
    if (!found) {
      if (pending.size() >= kMostPending) return std::nullopt;
      continue;
    }
    spans.insert(spans.end(), pending.size(), *found);
    at = found->end;
    context = std::move(pending);
    pending.clear();
    before = tokenizer.decode(context, false);
  }
  if (!pending.empty() || at != text.size()) {
    const bool blank = text.find_first_not_of(" \t\r\n", at) == std::string_view::npos;
    if (!pending.empty() || !blank) return std::nullopt;
  }
  return spans;
}

std::vector<uint8_t> mask_tokens(std::string_view text, std::span<const models::TokenId> ids, const std::vector<TextSpan>& spans,
                                 const models::Tokenizer& tokenizer, bool add_special_tokens, std::string_view where) {
  std::vector<uint8_t> mask(ids.size(), 0);
  if (spans.empty()) return mask;
  if (const auto offsets = token_spans(text, ids, tokenizer)) {
    size_t next = 0;
    for (size_t i = 0; i < ids.size(); ++i) {
      const TextSpan& token = (*offsets)[i];
      while (next < spans.size() && spans[next].end <= token.begin) ++next;
      mask[i] = next < spans.size() && token.begin < token.end && spans[next].begin < token.end;
    }
    return mask;
  }
  const auto tokens_before = [&](size_t byte) {
    const Ids part = tokenizer.encode(text.substr(0, byte), add_special_tokens);
    if (part.size() > ids.size() || !std::equal(part.begin(), part.end(), ids.begin())) {
      throw Error(
          ErrorKind::kUnsupported,
          fmt::format(
              "{}: the tokenizer changes the text, so that the token at byte {} where an answer begins or ends cannot be told",
              where, byte))
          .with_hint("take loss_mask 'all', or rows of tokens with a loss_mask");
    }
    return part.size();
  };
  for (const TextSpan& span : spans) {
    const size_t begin = tokens_before(span.begin);
    const size_t end = tokens_before(span.end);
    std::fill(mask.begin() + static_cast<std::ptrdiff_t>(begin), mask.begin() + static_cast<std::ptrdiff_t>(end), uint8_t{1});
  }
  return mask;
}

}  // namespace salient::calibration
