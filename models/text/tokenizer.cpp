#include "models/text/tokenizer.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "common/error.h"
#include "models/gguf/gguf_summary.h"
#include "models/gguf/gguf_tokenizer_json.h"
#include "models/io/model_files.h"
#include "models/text/added_tokens.h"
#include "models/text/bpe.h"
#include "models/text/normalizer.h"
#include "models/text/post_processor.h"
#include "models/text/pre_tokenizer.h"
#include "models/text/token_decoder.h"
#include "models/text/utf8.h"

namespace salient::models {
namespace {

// Ids of the words of one text, so that frequent words are merged once. Lives for one call: no state is shared between threads.
class WordCache {
 public:
  explicit WordCache(const Bpe& bpe) : bpe_(bpe) {}

  void encode(const std::string& word, std::vector<TokenId>& ids) {
    if (word.size() > kLongestWord) return bpe_.encode(word, ids);
    const auto it = places_.find(word);
    Place place{};
    if (it != places_.end()) {
      place = it->second;
    } else {
      place.begin = stored_.size();
      bpe_.encode(word, stored_);
      place.end = stored_.size();
      if (places_.size() < kMostWords) places_.emplace(word, place);
    }
    ids.insert(ids.end(), stored_.begin() + static_cast<std::ptrdiff_t>(place.begin),
               stored_.begin() + static_cast<std::ptrdiff_t>(place.end));
    if (places_.size() >= kMostWords && it == places_.end()) stored_.resize(place.begin);
  }

 private:
  static constexpr size_t kLongestWord = 256;  // bytes
  static constexpr size_t kMostWords = 10000;
  struct Place {
    size_t begin, end;
  };

  const Bpe& bpe_;
  std::unordered_map<std::string, Place> places_;
  std::vector<TokenId> stored_;
};

bool deeper_than(const Json& value, int levels) {
  if (!value.is_structured()) return false;
  if (levels == 0) return true;
  return std::any_of(value.begin(), value.end(), [levels](const Json& inner) { return deeper_than(inner, levels - 1); });
}

// Parts nest, and are read by functions that call each other; a hostile file must not exhaust the stack.
Json part_or_null(const Json& file, const char* key, const std::string& where) {
  constexpr int kMostLevels = 64;
  const auto it = file.find(key);
  if (it == file.end()) return Json();
  if (deeper_than(*it, kMostLevels)) fail(ErrorKind::kCorruption, "{}: {}: nested deeper than {} levels", where, key, kMostLevels);
  return *it;
}

}  // namespace

struct Tokenizer::Parts {
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  Bpe bpe;
  AddedTokens added;
  PostProcessor post_processor;
  TokenDecoder decoder;
};

Tokenizer::Tokenizer(std::unique_ptr<const Parts> parts) : parts_(std::move(parts)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::from_folder(const std::filesystem::path& folder) {
  if (const auto file = find_gguf_model(folder))
    return from_json(read_gguf_tokenizer(*file).tokenizer, file->string() + ": tokenizer");
  return from_file(model_file(folder, "tokenizer.json"));
}

Tokenizer Tokenizer::from_file(const std::filesystem::path& tokenizer_json) {
  std::error_code ignored;  // a file that cannot be looked at is reported when it is read
  if (!std::filesystem::exists(tokenizer_json, ignored) && !ignored) {
    throw Error(ErrorKind::kNotFound, fmt::format("{}: no such file", tokenizer_json.string()))
        .with_hint(
            "A model folder needs its tokenizer.json. Where there is only tokenizer.model or vocab.json, load the model once with "
            "transformers' AutoTokenizer and save_pretrained() it.");
  }
  return from_json(read_json_file(tokenizer_json), tokenizer_json.string());
}

Tokenizer Tokenizer::from_json(const Json& file, const std::string& where) {
  if (!file.is_object()) fail(ErrorKind::kCorruption, "{}: found {}, expected a JSON object", where, file.type_name());
  if (const auto version = value_or<std::string>(file, "version", "1.0", where); version != "1.0") {
    fail(ErrorKind::kUnsupported, "{}: key 'version': found '{}', expected '1.0'", where, version);
  }
  const auto model = file.find("model");
  if (model == file.end() || !model->is_object()) fail(ErrorKind::kCorruption, "{}: key 'model' is missing or no object", where);

  auto parts = std::make_unique<Parts>(Parts{
      .normalizer = Normalizer::from_json(part_or_null(file, "normalizer", where), where + ": normalizer"),
      .pre_tokenizer = PreTokenizer::from_json(part_or_null(file, "pre_tokenizer", where), where + ": pre_tokenizer"),
      .bpe = Bpe::from_json(*model, where + ": model"),
      .added = {},
      .post_processor = PostProcessor::from_json(part_or_null(file, "post_processor", where), where + ": post_processor"),
      .decoder = TokenDecoder::from_json(part_or_null(file, "decoder", where), where + ": decoder"),
  });
  parts->added =
      AddedTokens::from_json(part_or_null(file, "added_tokens", where), where + ": added_tokens", parts->bpe, parts->normalizer);
  return Tokenizer(std::move(parts));
}

std::vector<TokenId> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  std::string repaired;
  if (!is_valid_utf8(text)) {
    repaired = repair_utf8(text);
    text = repaired;
  }
  std::vector<Piece> pieces = parts_->added.split(text, parts_->normalizer);
  parts_->pre_tokenizer.apply(pieces);
  std::vector<TokenId> ids;
  WordCache cache(parts_->bpe);
  for (const Piece& piece : pieces) {
    if (piece.id) {
      ids.push_back(*piece.id);
    } else {
      cache.encode(piece.text, ids);
    }
  }
  return parts_->post_processor.apply(std::move(ids), add_special_tokens);
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool skip_special_tokens) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const TokenId id : ids) {
    const std::string* token = parts_->added.id_to_token(id);
    if (token == nullptr) token = parts_->bpe.id_to_token(id);
    if (token == nullptr || (skip_special_tokens && parts_->added.is_special(*token))) continue;
    tokens.push_back(*token);
  }
  return parts_->decoder.decode(std::move(tokens));
}

std::optional<TokenId> Tokenizer::token_to_id(std::string_view token) const {
  const auto id = parts_->added.token_to_id(token);
  return id ? id : parts_->bpe.token_to_id(token);
}

std::optional<std::string> Tokenizer::id_to_token(TokenId id) const {
  const std::string* token = parts_->added.id_to_token(id);
  if (token == nullptr) token = parts_->bpe.id_to_token(id);
  return token != nullptr ? std::optional(*token) : std::nullopt;
}

int64_t Tokenizer::vocab_size() const { return int64_t{std::max(parts_->bpe.largest_id(), parts_->added.largest_id())} + 1; }

}  // namespace salient::models
