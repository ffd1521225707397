#include "models/gguf/gguf_tokenizer_json.h"

#include "common/error.h"
#include "common/file.h"
#include "models/gguf/gguf_pre_tokenizers.h"
#include "models/gguf/gguf_tokenizer.h"
#include "models/gguf/spm_scores.h"
#include "models/text/utf8.h"

namespace salient::models {
namespace {

using Texts = std::vector<std::string>;

constexpr size_t kMostTokenBytes = size_t{1} << 16;
constexpr const char* kSentencePieceSpace = "\xE2\x96\x81";  // U+2581

class TokenizerReader {
 public:
  TokenizerReader(const GgufHeader& header, const std::string& where) : header_(header), where_(where) {
    if (const auto* const tokens = find_gguf_value<Texts>(header_, "tokenizer.ggml.tokens")) tokens_ = *tokens;
  }

  GgufTokenizerFiles read() {
    const auto* const original = find_gguf_value<std::string>(header_, "tokenizer.huggingface.json");
    const auto* const model = find_gguf_value<std::string>(header_, "tokenizer.ggml.model");
    if (original == nullptr && (model == nullptr || *model == "none" || *model == "no_vocab"))
      fail(ErrorKind::kNotFound, "{}: has no tokenizer (tokenizer.ggml.model)", where_);
    GgufTokenizerFiles files{original != nullptr ? parse_json(*original, where_ + ": tokenizer.huggingface.json") : rebuild(*model),
                             settings()};
    return files;
  }

  Json settings() const {
    Json result{{"bos_token", special("bos")},
                {"eos_token", special("eos")},
                {"unk_token", special("unknown")},
                {"pad_token", special("padding")}};
    if (Json templates = chat_templates(); !templates.is_null()) result["chat_template"] = std::move(templates);
    return result;
  }

 private:
  bool flag(std::string_view key, bool fallback) const {
    const bool* const found = find_gguf_value<bool>(header_, key);
    return found != nullptr ? *found : fallback;
  }

  GgufTokenType type(size_t id) const { return types_.empty() ? GgufTokenType::kNormal : static_cast<GgufTokenType>(types_[id]); }
  bool added(size_t id) const { return type(id) == GgufTokenType::kControl || type(id) == GgufTokenType::kUserDefined; }

  // What reads the tokens relies on well-formed text of a sensible length.
  void check_text(std::string_view text, std::string_view list, size_t number) const {
    if (text.size() > kMostTokenBytes) {
      fail(ErrorKind::kCorruption, "{}: tokenizer.ggml.{}: number {} has {} bytes, expected at most {}", where_, list, number,
           text.size(), kMostTokenBytes);
    }
    if (!is_valid_utf8(text))
      fail(ErrorKind::kCorruption, "{}: tokenizer.ggml.{}: number {} is no valid UTF-8", where_, list, number);
  }
  void check_tokens() const {
    for (size_t id = 0; id < tokens_.size(); ++id) check_text(tokens_[id], "tokens", id);
  }

  // The text of tokenizer.ggml.<name>_token_id.
  Json special(const std::string& name) const {
    const auto* const id = find_gguf_value<uint32_t>(header_, "tokenizer.ggml." + name + "_token_id");
    if (id == nullptr || *id >= tokens_.size()) return {};
    check_text(tokens_[*id], "tokens", *id);
    return tokens_[*id];
  }

  // A text, or [{"name", "template"}, ...] where others stand beside the default one.
  Json chat_templates() const {
    constexpr std::string_view kKey = "tokenizer.chat_template";
    const auto* const text = find_gguf_value<std::string>(header_, kKey);
    Json named = Json::array();
    for (const GgufPair& pair : header_.metadata) {
      const auto* const other = std::get_if<std::string>(&pair.value);
      if (other == nullptr || !pair.key.starts_with(kKey) || pair.key.size() < kKey.size() + 2 || pair.key[kKey.size()] != '.')
        continue;
      named.push_back({{"name", pair.key.substr(kKey.size() + 1)}, {"template", *other}});
    }
    if (named.empty()) return text != nullptr ? Json(*text) : Json();
    if (text != nullptr) named.push_back({{"name", "default"}, {"template", *text}});
    return named;
  }

  Json rebuild(const std::string& model) {
    if (tokens_.empty()) fail(ErrorKind::kCorruption, "{}: tokenizer.ggml.tokens is missing", where_);
    if (const auto* const types = find_gguf_value<std::vector<int32_t>>(header_, "tokenizer.ggml.token_type")) types_ = *types;
    if (!types_.empty() && types_.size() != tokens_.size())
      fail(ErrorKind::kCorruption, "{}: {} tokens and {} types", where_, tokens_.size(), types_.size());
    Json result{{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}, {"added_tokens", added_tokens()}};
    if (model == "gpt2") {
      check_tokens();
      add_bytes(result);
    } else if (model == "llama") {
      check_tokens();
      add_pieces(result);
    } else {
      fail(ErrorKind::kUnsupported, "{}: tokenizer.ggml.model '{}' cannot be read, only gpt2 and llama", where_, model);
    }
    return result;
  }

  Json added_tokens() const {
    Json list = Json::array();
    for (size_t id = 0; id < tokens_.size(); ++id) {
      if (!added(id)) continue;
      list.push_back({{"id", id},
                      {"content", tokens_[id]},
                      {"single_word", false},
                      {"lstrip", false},
                      {"rstrip", false},
                      {"normalized", false},
                      {"special", type(id) == GgufTokenType::kControl}});
    }
    return list;
  }

  Json template_of(bool bos, bool eos) const {
    Json single = Json::array();
    Json special_tokens = Json::object();
    const auto add = [&](const std::string& name) {
      const Json text = special(name);
      if (!text.is_string()) return;
      single.push_back({{"SpecialToken", {{"id", text}, {"type_id", 0}}}});
      const auto* const id = find_gguf_value<uint32_t>(header_, "tokenizer.ggml." + name + "_token_id");
      special_tokens[text.get<std::string>()] = {{"id", text}, {"ids", {*id}}, {"tokens", {text}}};
    };
    if (bos) add("bos");
    single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
    if (eos) add("eos");
    return {{"type", "TemplateProcessing"},
            {"single", single},
            {"pair", Json::array({{{"Sequence", {{"id", "A"}, {"type_id", 0}}}}, {{"Sequence", {{"id", "B"}, {"type_id", 1}}}}})},
            {"special_tokens", special_tokens}};
  }

  void add_bytes(Json& result) const {
    const GgufPreTokenizer& pre = find_pre_tokenizer(gguf_value<std::string>(header_, "tokenizer.ggml.pre"), where_);
    Json vocab = Json::object();
    for (size_t id = 0; id < tokens_.size(); ++id) {
      if (type(id) != GgufTokenType::kUnused) vocab[tokens_[id]] = id;  // added tokens, too: their ids need not follow the others
    }
    Json merges = Json::array();
    for (const std::string& merge : gguf_value<Texts>(header_, "tokenizer.ggml.merges")) {
      check_text(merge, "merges", merges.size());
      const size_t space = merge.find(' ', 1);
      if (space == std::string::npos) fail(ErrorKind::kCorruption, "{}: tokenizer.ggml.merges: '{}' is no pair", where_, merge);
      merges.push_back({merge.substr(0, space), merge.substr(space + 1)});
    }
    const bool composes = pre.name.starts_with("qwen");
    result["normalizer"] = composes ? Json{{"type", "NFC"}} : Json();
    result["pre_tokenizer"] = make_pre_tokenizer(pre);
    // llama.cpp assumes BOS with these two.
    result["post_processor"] =
        template_of(flag("tokenizer.ggml.add_bos_token", pre.ignore_merges), flag("tokenizer.ggml.add_eos_token", false));
    result["decoder"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
    result["model"] = {{"type", "BPE"},
                       {"dropout", nullptr},
                       {"unk_token", nullptr},
                       {"continuing_subword_prefix", nullptr},
                       {"end_of_word_suffix", nullptr},
                       {"fuse_unk", false},
                       {"byte_fallback", false},
                       {"ignore_merges", pre.ignore_merges},
                       {"vocab", vocab},
                       {"merges", merges}};
  }

  void add_pieces(Json& result) const {
    const auto& scores = gguf_value<std::vector<float>>(header_, "tokenizer.ggml.scores");
    if (scores.size() != tokens_.size())
      fail(ErrorKind::kCorruption, "{}: {} tokens and {} scores", where_, tokens_.size(), scores.size());
    Json vocab = Json::object();
    std::vector<std::pair<std::string, float>> pieces;
    Json unknown = special("unknown");
    for (size_t id = 0; id < tokens_.size(); ++id) {
      if (type(id) == GgufTokenType::kUnknown && unknown.is_null()) unknown = tokens_[id];
      if (type(id) != GgufTokenType::kUnused) vocab[tokens_[id]] = id;
      pieces.emplace_back(type(id) == GgufTokenType::kNormal ? tokens_[id] : "", scores[id]);
    }
    Json merges = Json::array();
    for (const auto& [left, right] : merges_of_scores(pieces, where_)) merges.push_back({left, right});

    const bool prefix = flag("tokenizer.ggml.add_space_prefix", true);
    Json normalizers = Json::array();
    if (prefix) normalizers.push_back({{"type", "Prepend"}, {"prepend", kSentencePieceSpace}});
    normalizers.push_back({{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kSentencePieceSpace}});
    Json decoders = Json::array({{{"type", "Replace"}, {"pattern", {{"String", kSentencePieceSpace}}}, {"content", " "}},
                                 {{"type", "ByteFallback"}},
                                 {{"type", "Fuse"}}});
    if (prefix) decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
    result["normalizer"] = {{"type", "Sequence"}, {"normalizers", normalizers}};
    result["pre_tokenizer"] = nullptr;
    result["post_processor"] = template_of(flag("tokenizer.ggml.add_bos_token", true), flag("tokenizer.ggml.add_eos_token", false));
    result["decoder"] = {{"type", "Sequence"}, {"decoders", decoders}};
    result["model"] = {{"type", "BPE"},
                       {"dropout", nullptr},
                       {"unk_token", unknown},
                       {"continuing_subword_prefix", nullptr},
                       {"end_of_word_suffix", nullptr},
                       {"fuse_unk", true},
                       {"byte_fallback", true},
                       {"ignore_merges", false},
                       {"vocab", vocab},
                       {"merges", merges}};
  }

  const GgufHeader& header_;
  const std::string& where_;
  Texts tokens_;
  std::vector<int32_t> types_;
};

}  // namespace

GgufTokenizerFiles tokenizer_from_gguf(const GgufHeader& header, const std::string& where) {
  return TokenizerReader(header, where).read();
}

GgufTokenizerFiles read_gguf_tokenizer(const std::filesystem::path& file) {
  const MappedFile mapped(file);
  return tokenizer_from_gguf(parse_gguf_header(mapped.bytes(), file.string()), file.string());
}

Json read_gguf_tokenizer_config(const std::filesystem::path& file) {
  const MappedFile mapped(file);
  const GgufHeader header = parse_gguf_header(mapped.bytes(), file.string());
  const std::string where = file.string();
  return TokenizerReader(header, where).settings();
}

}  // namespace salient::models
