#include "models/text/bpe.h"

#include <limits>
#include <queue>
#include <utility>

#include "common/error.h"
#include "models/text/utf8.h"

namespace salient::models {
namespace {

constexpr char32_t kShortCharacters = 0x3100;  // Latin ... kana, and GPT-2's byte alphabet

struct Candidate {
  uint32_t rank;
  uint32_t position;
  TokenId merged;
  bool operator>(const Candidate& other) const { return std::pair(rank, position) > std::pair(other.rank, other.position); }
};

std::string optional_text(const Json& model, std::string_view key, std::string_view where) {
  return value_or<std::string>(model, key, "", where);
}

// Both spellings of a merge: "a b" and ["a", "b"].
std::pair<std::string, std::string> read_merge(const Json& merge, std::string_view where, size_t index) {
  if (merge.is_string()) {
    const auto& text = merge.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos)
      return {text.substr(0, space), text.substr(space + 1)};
  } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return {merge[0].get<std::string>(), merge[1].get<std::string>()};
  }
  fail(ErrorKind::kCorruption, "{}.merges[{}]: found {}, expected two tokens, as \"a b\" or [\"a\", \"b\"]", where, index,
       dump_json(merge).substr(0, 60));
}

}  // namespace

struct Bpe::Symbol {
  TokenId id;
  int32_t previous;  // -1: none
  int32_t next;
  bool removed = false;
};

Bpe Bpe::from_json(const Json& model, std::string_view where) {
  if (const auto type = value_or<std::string>(model, "type", "BPE", where); type != "BPE") {
    throw Error(ErrorKind::kUnsupported, fmt::format("{}: tokenizer model '{}' is not supported; supported is BPE", where, type))
        .with_hint(
            "Salient reads byte-pair tokenizers (Llama, Mistral, Qwen, Gemma, Phi, GPT-2 and their kin), not Unigram, WordPiece or "
            "WordLevel.");
  }
  if (value_or<double>(model, "dropout", 0.0, where) != 0.0) {
    fail(ErrorKind::kUnsupported, "{}: key 'dropout': random merges are for training; expected null or 0", where);
  }
  Bpe bpe;
  if (const auto it = model.find("unk_token"); it != model.end() && !it->is_null())
    bpe.unk_token_ = require<std::string>(model, "unk_token", where);
  bpe.continuing_subword_prefix_ = optional_text(model, "continuing_subword_prefix", where);
  bpe.end_of_word_suffix_ = optional_text(model, "end_of_word_suffix", where);
  bpe.fuse_unk_ = value_or<bool>(model, "fuse_unk", false, where);
  bpe.byte_fallback_ = value_or<bool>(model, "byte_fallback", false, where);
  bpe.ignore_merges_ = value_or<bool>(model, "ignore_merges", false, where);
  bpe.read_vocabulary(model, where);
  bpe.read_merges(model, where);
  return bpe;
}

void Bpe::read_vocabulary(const Json& model, std::string_view where) {
  const auto vocabulary = model.find("vocab");
  if (vocabulary == model.end() || !vocabulary->is_object()) {
    fail(ErrorKind::kCorruption, "{}: key 'vocab' is missing or no object, expected {{token: id}}", where);
  }
  ids_.reserve(vocabulary->size());
  tokens_.reserve(vocabulary->size());
  for (const auto& [token, value] : vocabulary->items()) {
    const bool fits =
        value.is_number_integer() && value.get<int64_t>() >= 0 && value.get<int64_t>() < std::numeric_limits<TokenId>::max();
    if (!fits) {
      fail(ErrorKind::kCorruption, "{}.vocab: token '{}': found {}, expected an id from 0 to {}", where, token,
           dump_json(value).substr(0, 60), std::numeric_limits<TokenId>::max() - 1);
    }
    const auto id = value.get<TokenId>();
    const auto it = ids_.emplace(token, id).first;
    tokens_.emplace(id, &it->first);
    largest_id_ = std::max(largest_id_, id);
  }
  for (int byte = 0; byte < 256; ++byte) byte_tokens_.push_back(token_to_id(fmt::format("<0x{:02X}>", byte)));
  std::string character;
  for (char32_t code = 0; code < kShortCharacters; ++code) {
    character.clear();
    append_utf8(character, code);
    short_characters_.push_back(token_to_id(character).value_or(-1));
  }
}

void Bpe::read_merges(const Json& model, std::string_view where) {
  const auto merges = model.find("merges");
  if (merges == model.end() || !merges->is_array()) {
    fail(ErrorKind::kCorruption, "{}: key 'merges' is missing or no list, expected a list of pairs of tokens", where);
  }
  merges_.reserve(merges->size());
  uint32_t rank = 0;
  for (size_t i = 0; i < merges->size(); ++i) {
    const Json& item = (*merges)[i];
    if (item.is_string() && item.get_ref<const std::string&>().starts_with("#version")) continue;
    const auto [left, right] = read_merge(item, where, i);
    const std::string joined = left + right.substr(std::min(continuing_subword_prefix_.size(), right.size()));
    const auto id_of = [&](const std::string& token) {
      const auto id = token_to_id(token);
      if (!id)
        fail(ErrorKind::kCorruption, "{}.merges[{}]: '{}' + '{}': token '{}' is not in the vocabulary", where, i, left, right,
             token);
      return *id;
    };
    const TokenId left_id = id_of(left);
    const TokenId right_id = id_of(right);
    merges_.insert(left_id, right_id, {rank++, id_of(joined)});
  }
}

std::optional<TokenId> Bpe::token_to_id(std::string_view token) const {
  const auto it = ids_.find(token);
  return it != ids_.end() ? std::optional(it->second) : std::nullopt;
}

const std::string* Bpe::id_to_token(TokenId id) const {
  const auto it = tokens_.find(id);
  return it != tokens_.end() ? it->second : nullptr;
}

std::vector<Bpe::Symbol> Bpe::start_symbols(std::string_view word) const {
  std::vector<Symbol> symbols;
  symbols.reserve(word.size());
  const auto add = [&](TokenId id) {
    const auto place = static_cast<int32_t>(symbols.size());
    if (place > 0) symbols.back().next = place;
    symbols.push_back({id, place - 1, -1});
  };
  // An unknown token waits until the next known one, so that unknown neighbours can fuse. Bytes do not release it.
  std::optional<TokenId> pending_unknown;
  const auto release = [&] {
    if (pending_unknown) add(*pending_unknown);
    pending_unknown.reset();
  };
  const bool plain = continuing_subword_prefix_.empty() && end_of_word_suffix_.empty();
  std::string decorated;
  for (size_t i = 0; i < word.size();) {
    const size_t start = i;
    const char32_t code = next_code_point(word, i);
    std::string_view character = word.substr(start, i - start);
    std::optional<TokenId> id;
    if (plain && code < kShortCharacters) {
      if (short_characters_[code] >= 0) id = short_characters_[code];
    } else {
      if (!plain) {
        decorated =
            (start > 0 ? continuing_subword_prefix_ : "") + std::string(character) + (i == word.size() ? end_of_word_suffix_ : "");
        character = decorated;
      }
      id = token_to_id(character);
    }
    if (id) {
      release();
      add(*id);
      continue;
    }
    if (byte_fallback_) {
      bool all = true;
      for (const char c : character) all = all && byte_tokens_[static_cast<uint8_t>(c)].has_value();
      if (all) {
        for (const char c : character) add(*byte_tokens_[static_cast<uint8_t>(c)]);
        continue;
      }
    }
    if (unk_token_) {
      if (!fuse_unk_) release();
      if (!pending_unknown) {
        pending_unknown = token_to_id(*unk_token_);
        if (!pending_unknown) {
          fail(ErrorKind::kCorruption, "tokenizer: character '{}' is unknown and the unknown token '{}' is not in the vocabulary",
               character, *unk_token_);
        }
      }
    }
  }
  release();
  return symbols;
}

void Bpe::merge_all(std::vector<Symbol>& symbols) const {
  std::vector<Candidate> start;
  const auto candidate = [&](int32_t left, int32_t right, auto&& push) {
    if (const Merge* merge = merges_.find(symbols[left].id, symbols[right].id)) {
      push(Candidate{merge->rank, static_cast<uint32_t>(left), merge->merged});
    }
  };
  for (size_t i = 0; i + 1 < symbols.size(); ++i) {
    candidate(static_cast<int32_t>(i), static_cast<int32_t>(i + 1), [&](Candidate c) { start.push_back(c); });
  }
  std::priority_queue queue(std::greater<>(), std::move(start));
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    const auto place = static_cast<int32_t>(top.position);
    Symbol& left = symbols[place];
    if (left.removed || left.next < 0) continue;
    Symbol& right = symbols[left.next];
    // The pair may have changed since it was queued.
    const Merge* merge = merges_.find(left.id, right.id);
    if (merge == nullptr || merge->merged != top.merged) continue;
    left.id = top.merged;
    right.removed = true;
    left.next = right.next;
    if (left.next >= 0) symbols[left.next].previous = place;
    if (left.previous >= 0) candidate(left.previous, place, [&](Candidate c) { queue.push(c); });
    if (left.next >= 0) candidate(place, left.next, [&](Candidate c) { queue.push(c); });
  }
}

void Bpe::encode(std::string_view word, std::vector<TokenId>& ids) const {
  if (ignore_merges_) {
    if (const auto id = token_to_id(word)) {
      ids.push_back(*id);
      return;
    }
  }
  std::vector<Symbol> symbols = start_symbols(word);
  merge_all(symbols);
  for (const Symbol& symbol : symbols) {
    if (!symbol.removed) ids.push_back(symbol.id);
  }
}

}  // namespace salient::models
