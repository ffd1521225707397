#include "models/gguf/gguf_tokenizer.h"

#include <functional>
#include <map>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include "common/error.h"
#include "common/file.h"
#include "common/json.h"
#include "models/gguf/gguf_pre_tokenizers.h"
#include "models/gguf/spm_scores.h"
#include "models/io/model_files.h"

namespace salient::models {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581, SentencePiece's space
constexpr float kAddedScore = -1000.0F;
constexpr float kUnusedScore = -10000.0F;

struct Token {
  std::string text;
  GgufTokenType type = GgufTokenType::kUnused;
  float score = kUnusedScore;
};

bool is_byte(std::string_view text) {
  return text.size() == 6 && text.starts_with("<0x") && text.ends_with(">") &&
         text.substr(3, 2).find_first_not_of("0123456789ABCDEFabcdef") == std::string_view::npos;
}

// Control tokens that some published files do not call special.
bool looks_special(std::string_view text) {
  return text == "<pad>" || text == "<mask>" || text == "<2mass>" || text == "[@BOS@]" ||
         (text.starts_with("<|") && text.ends_with("|>")) ||
         (text.starts_with("<\xEF\xBD\x9C") && text.ends_with("\xEF\xBD\x9C>")) ||
         (text.starts_with("<unused") && text.ends_with(">"));
}

std::string replace_all(std::string text, std::string_view from, std::string_view to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
  return text;
}

// "a b" or ["a", "b"].
TokenPair read_merge(const Json& merge, std::string_view where) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string())
    return {merge[0].get<std::string>(), merge[1].get<std::string>()};
  if (merge.is_string()) {
    const auto text = merge.get<std::string>();
    if (const size_t space = text.find(' ', 1); space != std::string::npos) return {text.substr(0, space), text.substr(space + 1)};
  }
  fail(ErrorKind::kCorruption, "{}: key 'merges': found {}, expected two tokens", where, dump_json(merge).substr(0, 60));
}

struct SpaceRule {
  bool prefix = false;      // a space before the text
  bool once = false;        // but not where it begins with one
  bool understood = false;  // SentencePiece's spaces, and nothing else
};

// "normalizer": Prepend and Replace; or "pre_tokenizer": Metaspace.
SpaceRule read_spaces(const Json& normalizer, const Json& pre_tokenizer, std::string_view where) {
  SpaceRule rule;
  bool replaces = false;
  bool other = false;
  const std::function<void(const Json&)> read = [&](const Json& part) {
    if (!part.is_object()) return;
    const auto type = require<std::string>(part, "type", where);
    if (type == "Sequence") {
      for (const Json& inner : require<Json>(part, "normalizers", where)) read(inner);
    } else if (type == "Prepend" && value_or<std::string>(part, "prepend", "", where) == kSpace) {
      rule.prefix = true;
    } else if (type == "Replace" && value_or<std::string>(part, "content", "", where) == kSpace &&
               part.value("pattern", Json()) == Json{{"String", " "}}) {
      replaces = true;
    } else {
      other = true;
    }
  };
  read(normalizer);
  if (pre_tokenizer.is_object()) {
    const auto type = require<std::string>(pre_tokenizer, "type", where);
    if (type == "Metaspace") {
      const bool older = value_or<bool>(pre_tokenizer, "add_prefix_space", true, where);
      rule.prefix =
          rule.prefix || value_or<std::string>(pre_tokenizer, "prepend_scheme", older ? "always" : "never", where) != "never";
      rule.once = rule.prefix;
      replaces = true;
    } else if (type != "Split" ||
               pre_tokenizer.value("pattern", Json()) != Json{{"String", " "}}) {  // Gemma's splits by what is no longer there
      other = true;
    }
  }
  rule.understood = replaces && !other;
  return rule;
}

class TokenizerWriter {
 public:
  TokenizerWriter(const fs::path& folder, const DecoderConfig& config)
      : config_(config), folder_(folder), where_(model_file(folder, "tokenizer.json").string()) {
    if (!fs::exists(where_)) {
      throw Error(ErrorKind::kNotFound, fmt::format("{}: no such file", where_))
          .with_hint(
              "llama.cpp needs the tokenizer inside of the file. Load the model once with transformers' AutoTokenizer and "
              "save_pretrained() it.");
    }
    text_ = read_text_file(where_);
    file_ = parse_json(text_, where_);
    model_ = require<Json>(file_, "model", where_);
    if (const fs::path settings = model_file(folder, "tokenizer_config.json"); fs::exists(settings))
      settings_ = read_json_file(settings);
  }

  GgufTokenizer write() {
    if (const auto type = value_or<std::string>(model_, "type", "BPE", where_); type != "BPE")
      fail(ErrorKind::kUnsupported, "{}: model '{}' cannot be written as GGUF, only BPE", where_, type);
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      if (!value_or<std::string>(model_, key, "", where_).empty())
        fail(ErrorKind::kUnsupported, "{}: llama.cpp has no '{}'", where_, key);
    }
    const bool pieces = value_or<bool>(model_, "byte_fallback", false, where_);
    unknown_ = value_or<std::string>(model_, "unk_token", "", where_);
    if (unknown_.empty() && pieces) unknown_ = special_text("unk_token").value_or("");
    read_tokens(pieces);
    if (pieces) {
      add_pieces();
    } else {
      add_bytes();
    }
    add_special_ids();
    add_chat_template();
    add("tokenizer.huggingface.json", text_);
    return std::move(result_);
  }

 private:
  void add(std::string key, GgufValue value) { result_.pairs.push_back({std::move(key), std::move(value)}); }

  Token& token_at(int64_t id, const std::string& text) {
    if (id < 0 || id >= config_.vocab_size)
      fail(ErrorKind::kCorruption, "{}: token '{}' has the id {}, but the model has {} embeddings", where_, text, id,
           config_.vocab_size);
    return tokens_[static_cast<size_t>(id)];
  }

  void read_tokens(bool pieces) {
    tokens_.resize(static_cast<size_t>(config_.vocab_size));
    const Json vocab = require<Json>(model_, "vocab", where_);
    if (!vocab.is_object()) fail(ErrorKind::kCorruption, "{}: key 'vocab' is no object", where_);
    for (const auto& [text, id] : vocab.items()) {
      if (!id.is_number_integer()) fail(ErrorKind::kCorruption, "{}: vocab: '{}' has no whole number as id", where_, text);
      Token& token = token_at(id.get<int64_t>(), text);
      token = {text, GgufTokenType::kNormal, 0.0F};
      if (pieces && is_byte(text)) token.type = GgufTokenType::kByte;
      if (text == unknown_) token.type = GgufTokenType::kUnknown;
    }
    if (!file_.contains("added_tokens")) return add_unused();
    for (const Json& added : file_["added_tokens"]) {
      const auto text = require<std::string>(added, "content", where_);
      Token& token = token_at(require<int64_t>(added, "id", where_), text);
      added_.emplace(text, require<int64_t>(added, "id", where_));
      if (pieces && text == unknown_) continue;
      const bool control = value_or<bool>(added, "special", false, where_) || looks_special(text);
      token = control ? Token{text, GgufTokenType::kControl, kAddedScore}
                      : Token{replace_all(text, kSpace, " "), GgufTokenType::kUserDefined, kAddedScore};
      if (value_or<bool>(added, "lstrip", false, where_) || value_or<bool>(added, "rstrip", false, where_)) strips_ = true;
    }
    if (strips_) result_.notes.push_back("some added tokens take the white space around them; llama.cpp leaves it");
    add_unused();
  }

  // llama.cpp wants a text of its own for each row of the embedding.
  void add_unused() {
    std::unordered_set<std::string_view> seen;
    for (size_t id = 0; id < tokens_.size(); ++id) {
      if (tokens_[id].type == GgufTokenType::kUnused) tokens_[id].text = fmt::format("[PAD{}]", id);
      if (!seen.insert(tokens_[id].text).second)
        fail(ErrorKind::kUnsupported, "{}: the text '{}' stands for several ids, which llama.cpp refuses", where_,
             tokens_[id].text);
    }
  }

  void add_tokens(std::string model, std::string pre, bool scores) {
    add("tokenizer.ggml.model", std::move(model));
    add("tokenizer.ggml.pre", std::move(pre));
    std::vector<std::string> texts;
    std::vector<float> values;
    std::vector<int32_t> types;
    for (const Token& token : tokens_) {
      texts.push_back(token.text);
      values.push_back(token.score);
      types.push_back(static_cast<int32_t>(token.type));
    }
    add("tokenizer.ggml.tokens", GgufArray(std::move(texts)));
    if (scores) add("tokenizer.ggml.scores", GgufArray(std::move(values)));
    add("tokenizer.ggml.token_type", GgufArray(std::move(types)));
  }

  void add_bytes() {
    if (const Json normalizer = file_.value("normalizer", Json()); normalizer.is_object()) {
      const auto type = require<std::string>(normalizer, "type", where_);
      const bool empty = type == "Sequence" && normalizer.value("normalizers", Json()).empty();
      if (type != "NFC" && !empty) fail(ErrorKind::kUnsupported, "{}: llama.cpp has no normalizer '{}'", where_, type);
      if (type == "NFC") result_.notes.push_back("the tokenizer composes characters (NFC); llama.cpp takes the text as it is");
    }
    const bool ignore_merges = value_or<bool>(model_, "ignore_merges", false, where_);
    const GgufPreTokenizer& pre =
        choose_pre_tokenizer(file_.value("pre_tokenizer", Json()), ignore_merges, where_ + ": pre_tokenizer");
    add_tokens("gpt2", std::string(pre.name), false);
    std::vector<std::string> merges;
    for (const Json& merge : require<Json>(model_, "merges", where_)) {
      if (merge.is_string() && merge.get_ref<const std::string&>().starts_with("#version")) continue;
      const auto [left, right] = read_merge(merge, where_);
      // A merge is cut at its space there; U+0120 is the space of the byte alphabet.
      merges.push_back(replace_all(left, " ", "\xC4\xA0") + " " + replace_all(right, " ", "\xC4\xA0"));
    }
    add("tokenizer.ggml.merges", GgufArray(std::move(merges)));
  }

  void add_pieces() {
    const SpaceRule spaces = read_spaces(file_.value("normalizer", Json()), file_.value("pre_tokenizer", Json()), where_);
    if (!spaces.understood)
      fail(ErrorKind::kUnsupported,
           "{}: a normalizer or pre-tokenizer that llama.cpp's model 'llama' has not; it only turns spaces into U+2581", where_);
    if (spaces.once) result_.notes.push_back("llama.cpp puts a space before every text, also before one that begins with a space");
    std::unordered_map<std::string, int64_t> vocab;
    for (size_t id = 0; id < tokens_.size(); ++id) {
      if (tokens_[id].type == GgufTokenType::kNormal) vocab.emplace(tokens_[id].text, static_cast<int64_t>(id));
    }
    std::vector<TokenPair> merges;
    for (const Json& merge : require<Json>(model_, "merges", where_)) merges.push_back(read_merge(merge, where_));
    const auto scores = scores_of_merges(merges, vocab, where_);
    for (Token& token : tokens_) {
      if (token.type != GgufTokenType::kNormal) continue;
      const auto found = scores.find(token.text);
      token.score = found != scores.end() ? found->second : -static_cast<float>(scores.size() + 1);
    }
    for (Token& token : tokens_) {
      if (token.type == GgufTokenType::kByte || token.type == GgufTokenType::kUnknown) token.score = 0.0F;
    }
    add_tokens("llama", "default", true);
    add("tokenizer.ggml.add_space_prefix", spaces.prefix);
  }

  // "bos_token": a text, or an object with "content".
  std::optional<std::string> special_text(const std::string& key) const {
    const Json entry = settings_.is_object() ? settings_.value(key, Json()) : Json();
    if (entry.is_string()) return entry.get<std::string>();
    if (entry.is_object() && entry.contains("content") && entry["content"].is_string()) return entry["content"].get<std::string>();
    return std::nullopt;
  }

  std::optional<int64_t> id_of(const std::string& text) const {
    if (const auto found = added_.find(text); found != added_.end()) return found->second;
    for (size_t id = 0; id < tokens_.size(); ++id) {
      if (tokens_[id].text == text && tokens_[id].type != GgufTokenType::kUnused) return static_cast<int64_t>(id);
    }
    return std::nullopt;
  }

  // The id that is written; -1 where there is none.
  int64_t add_special_id(const std::string& key, const std::string& name, std::optional<int64_t> fallback) {
    std::optional<int64_t> id;
    if (const auto text = special_text(name)) id = id_of(*text);
    if (!id && fallback && *fallback < config_.vocab_size) id = fallback;
    if (id) add("tokenizer.ggml." + key, static_cast<uint32_t>(*id));
    return id.value_or(-1);
  }

  void add_special_ids() {
    std::optional<int64_t> eos;
    if (!config_.eos_token_ids.empty()) eos = config_.eos_token_ids.front();
    const int64_t bos_id = add_special_id("bos_token_id", "bos_token", config_.bos_token_id);
    const int64_t eos_id = add_special_id("eos_token_id", "eos_token", eos);
    add_special_id("unknown_token_id", "unk_token", unknown_.empty() ? std::nullopt : id_of(unknown_));
    add_special_id("padding_token_id", "pad_token", config_.pad_token_id);

    // What stands around the text: its place in the template, or nothing.
    const Json single = find_template(file_.value("post_processor", Json()));
    const size_t items = single.is_array() ? single.size() : 0;
    const auto special_at = [&](size_t place) -> int64_t {
      if (place >= items || !single[place].contains("SpecialToken")) return -1;
      return id_of(value_or<std::string>(single[place]["SpecialToken"], "id", "", where_)).value_or(-1);
    };
    const int64_t front = special_at(0);
    const int64_t back = items > 1 ? special_at(items - 1) : -1;
    const bool adds_bos = front >= 0 && front == bos_id;
    const bool adds_eos = back >= 0 && back == eos_id;
    if (items > 1U + (adds_bos ? 1 : 0) + (adds_eos ? 1 : 0))
      result_.notes.push_back("the tokenizer adds other tokens around a text than BOS and EOS; llama.cpp does not");
    add("tokenizer.ggml.add_bos_token", adds_bos);
    add("tokenizer.ggml.add_eos_token", adds_eos);
  }

  // "single" of a TemplateProcessing, alone or in a Sequence.
  Json find_template(const Json& processor) const {
    if (!processor.is_object()) return Json();
    const auto type = require<std::string>(processor, "type", where_);
    if (type == "TemplateProcessing") return processor.value("single", Json());
    if (type != "Sequence") return Json();
    for (const Json& inner : require<Json>(processor, "processors", where_)) {
      if (Json found = find_template(inner); found.is_array()) return found;
    }
    return Json();
  }

  void add_chat_template() {
    std::map<std::string, std::string> templates;
    if (settings_.is_object() && settings_.contains("chat_template")) {
      const Json& given = settings_["chat_template"];
      if (given.is_string()) templates["default"] = given.get<std::string>();
      if (given.is_array()) {
        for (const Json& item : given)
          templates[require<std::string>(item, "name", where_)] = require<std::string>(item, "template", where_);
      }
    }
    if (const fs::path file = model_file(folder_, "chat_template.jinja"); fs::exists(file))
      templates["default"] = read_text_file(file);
    std::vector<std::string> names;
    for (const auto& [name, text] : templates) {
      add(name == "default" ? "tokenizer.chat_template" : "tokenizer.chat_template." + name, text);
      if (name != "default") names.push_back(name);
    }
    if (!names.empty()) add("tokenizer.chat_templates", GgufArray(std::move(names)));
  }

  const DecoderConfig& config_;
  fs::path folder_;
  std::string where_;
  std::string text_;
  Json file_, model_, settings_;
  std::vector<Token> tokens_;
  std::unordered_map<std::string, int64_t> added_;
  std::string unknown_;  // text; "" = none
  bool strips_ = false;
  GgufTokenizer result_;
};

}  // namespace

GgufTokenizer gguf_tokenizer(const fs::path& folder, const DecoderConfig& config) {
  return TokenizerWriter(folder, config).write();
}

std::vector<GgufPair> gguf_no_tokenizer() { return {{"tokenizer.ggml.model", std::string("none")}}; }

}  // namespace salient::models
