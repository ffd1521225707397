// Against llama.cpp's converter and sentencepiece (scripts/goldens/gguf_tokenizer.py), and back to a tokenizer that gives the same
// ids.
#include "models/gguf/gguf_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "common/file.h"
#include "common/hash.h"
#include "common/json.h"
#include "models/gguf/gguf_tokenizer_json.h"
#include "models/text/tokenizer.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::models {
namespace {

namespace fs = std::filesystem;
const fs::path kSource = SALIENT_SOURCE_DIR;
const fs::path kData = kSource / "tests/data/gguf_tokenizer";

DecoderConfig config_of(int64_t vocab_size) {
  DecoderConfig config;
  config.vocab_size = vocab_size;
  return config;
}

GgufHeader header_of(std::vector<GgufPair> pairs) {
  GgufHeader header;
  header.metadata = std::move(pairs);
  return header;
}

template <typename T>
std::string digest(const std::vector<T>& items) {
  std::string text;
  for (size_t i = 0; i < items.size(); ++i) text += (i == 0 ? "" : std::string(1, '\0')) + fmt::format("{}", items[i]);
  return sha256_hex(text);
}

void expect_digest(const GgufHeader& header, const std::string& key, const Json& golden) {
  const auto& array = std::get<GgufArray>(*header.find(key));
  if (const auto* texts = std::get_if<std::vector<std::string>>(&array)) {
    EXPECT_EQ(texts->size(), golden.at("count").get<size_t>()) << key;
    EXPECT_EQ(digest(*texts), golden.at("sha256").get<std::string>()) << key;
  } else {
    EXPECT_EQ(digest(std::get<std::vector<int32_t>>(array)), golden.at("sha256").get<std::string>()) << key;
  }
}

TEST(GgufTokenizerTest, ByteLevelBpeIsWhatLlamaCppsConverterWrites) {
  const GgufTokenizer tokenizer = gguf_tokenizer(kSource / "models/demo", load_decoder_config(kSource / "models/demo"));
  const GgufHeader header = header_of(tokenizer.pairs);
  const Json golden = read_json_file(kData / "demo.json");
  for (const auto& [key, value] : golden.at("scalars").items()) {
    ASSERT_NE(header.find(key), nullptr) << key;
    if (value.is_string()) {
      EXPECT_EQ(std::get<std::string>(*header.find(key)), value.get<std::string>()) << key;
    } else {
      EXPECT_EQ(std::get<uint32_t>(*header.find(key)), value.get<uint32_t>()) << key;
    }
  }
  for (const auto& [key, value] : golden.at("lists").items()) expect_digest(header, key, value);
  EXPECT_FALSE(gguf_value<bool>(header, "tokenizer.ggml.add_bos_token"));
  EXPECT_EQ(gguf_value<std::string>(header, "tokenizer.huggingface.json"), read_text_file(kSource / "models/demo/tokenizer.json"));
  EXPECT_THAT(tokenizer.notes, testing::ElementsAre(testing::HasSubstr("NFC")));
}

TEST(GgufTokenizerTest, PiecesTypesAndScoresAreSentencePieces) {
  const Json golden = read_json_file(kData / "pieces.json");
  const GgufHeader header = header_of(gguf_tokenizer(kData / "pieces", config_of(482)).pairs);
  EXPECT_EQ(gguf_value<std::string>(header, "tokenizer.ggml.model"), "llama");
  const auto& tokens = gguf_value<std::vector<std::string>>(header, "tokenizer.ggml.tokens");
  const auto& scores = gguf_value<std::vector<float>>(header, "tokenizer.ggml.scores");
  const auto& types = gguf_value<std::vector<int32_t>>(header, "tokenizer.ggml.token_type");
  ASSERT_EQ(tokens.size(), 482U);
  size_t merged = 0;
  for (size_t id = 0; id < golden.at("pieces").size(); ++id) {
    const Json& piece = golden.at("pieces")[id];
    EXPECT_EQ(tokens[id], piece.at(0).get<std::string>());
    EXPECT_EQ(types[id], piece.at(2)) << tokens[id];
    // sentencepiece counts merges from 0, and gives single characters what comes after.
    const bool several =
        types[id] == 1 && std::count_if(tokens[id].begin(), tokens[id].end(), [](char c) { return (c & 0xC0) != 0x80; }) > 1;
    if (!several) continue;
    ++merged;
    EXPECT_FLOAT_EQ(scores[id], piece.at(1).get<float>() - 1.0F) << tokens[id];
  }
  EXPECT_GT(merged, 50U);
  EXPECT_EQ(tokens[481], "[PAD481]");
  EXPECT_EQ(types[481], 5);
  EXPECT_TRUE(gguf_value<bool>(header, "tokenizer.ggml.add_space_prefix"));
  EXPECT_EQ(gguf_value<uint32_t>(header, "tokenizer.ggml.bos_token_id"), 1U);
  EXPECT_EQ(gguf_value<uint32_t>(header, "tokenizer.ggml.unknown_token_id"), 0U);
}

Tokenizer rebuilt(std::vector<GgufPair> pairs, const fs::path& folder, bool drop_original = true) {
  if (drop_original) std::erase_if(pairs, [](const GgufPair& pair) { return pair.key == "tokenizer.huggingface.json"; });
  write_file(folder / "tokenizer.json", dump_json(tokenizer_from_gguf(header_of(pairs), "test").tokenizer));
  return Tokenizer::from_folder(folder);
}

TEST(GgufTokenizerTest, RebuiltPiecesGiveSentencePiecesIds) {
  const Json golden = read_json_file(kData / "pieces.json");
  const test::TemporaryFolder folder;
  const Tokenizer tokenizer = rebuilt(gguf_tokenizer(kData / "pieces", config_of(480)).pairs, folder.path());
  for (const Json& item : golden.at("texts")) {
    if (item.at(0) == "") continue;
    EXPECT_EQ(tokenizer.encode(item.at(0).get<std::string>(), false), item.at(1).get<std::vector<TokenId>>()) << item.at(0);
  }
}

TEST(GgufTokenizerTest, RebuiltBytesGiveTheOriginalsIds) {
  const Tokenizer original = Tokenizer::from_folder(kSource / "models/demo");
  const std::vector<GgufPair> pairs = gguf_tokenizer(kSource / "models/demo", load_decoder_config(kSource / "models/demo")).pairs;
  for (const bool drop : {true, false}) {
    const test::TemporaryFolder folder;
    const Tokenizer tokenizer = rebuilt(pairs, folder.path(), drop);
    for (const std::string text : {"Hello world", "I've 123 apples\n\n  and  x=3.5!",
                                   "<|im_start|>user\nGr\xC3\xBC\xC3\x9F"
                                   "e<|im_end|>",
                                   "\xE6\x9D\xB1\xE4\xBA\xAC"}) {
      EXPECT_EQ(tokenizer.encode(text, true), original.encode(text, true)) << text;
    }
  }
}

TEST(GgufTokenizerTest, SettingsComeBack) {
  const std::vector<GgufPair> pairs = gguf_tokenizer(kSource / "models/demo", load_decoder_config(kSource / "models/demo")).pairs;
  const Json settings = tokenizer_from_gguf(header_of(pairs), "test").tokenizer_config;
  EXPECT_EQ(settings.at("eos_token"), "<|im_end|>");
  EXPECT_EQ(settings.at("pad_token"), "<|endoftext|>");
  EXPECT_EQ(settings.at("chat_template"), read_json_file(kSource / "models/demo/tokenizer_config.json").at("chat_template"));
}

// The demo's tokenizer.json with one thing changed.
std::string refusal(const std::function<void(Json&)>& change, ErrorKind kind, const fs::path& source = kSource / "models/demo") {
  const test::TemporaryFolder folder;
  Json file = read_json_file(source / "tokenizer.json");
  change(file);
  write_file(folder.path() / "tokenizer.json", dump_json(file));
  return test::message_of([&] { gguf_tokenizer(folder.path(), config_of(4096)); }, kind);
}

TEST(GgufTokenizerTest, WhatLlamaCppHasNotIsRefused) {
  EXPECT_THAT(refusal([](Json& file) { file["model"]["type"] = "Unigram"; }, ErrorKind::kUnsupported),
              testing::HasSubstr("'Unigram'"));
  EXPECT_THAT(refusal(
                  [](Json& file) {
                    file["normalizer"] = {{"type", "Lowercase"}};
                  },
                  ErrorKind::kUnsupported),
              testing::HasSubstr("'Lowercase'"));
  EXPECT_THAT(
      refusal([](Json& file) { file["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "\\w+"; }, ErrorKind::kUnsupported),
      testing::AllOf(testing::HasSubstr("\\w+"), testing::HasSubstr("qwen2")));
  EXPECT_THAT(refusal(
                  [](Json& file) {
                    file["pre_tokenizer"] = {{"type", "Whitespace"}};
                  },
                  ErrorKind::kUnsupported),
              testing::HasSubstr("Whitespace"));
  EXPECT_THAT(refusal([](Json& file) { file["model"]["vocab"]["zzzz"] = 5000; }, ErrorKind::kCorruption),
              testing::HasSubstr("5000"));
  EXPECT_THAT(refusal([](Json& file) { file["added_tokens"][0]["content"] = "!"; }, ErrorKind::kUnsupported),
              testing::HasSubstr("several ids"));
  const test::TemporaryFolder empty;
  test::error_of([&] { gguf_tokenizer(empty.path(), config_of(8)); }, ErrorKind::kNotFound);
}

TEST(GgufTokenizerTest, MergesWithoutScoresAreRefused) {
  const auto refuse = [](const std::function<void(Json&)>& change) {
    return refusal(change, ErrorKind::kUnsupported, kData / "pieces");
  };
  EXPECT_THAT(refuse([](Json& file) { file["model"]["merges"].erase(3); }), testing::HasSubstr("no merge says so"));
  EXPECT_THAT(refuse([](Json& file) { file["model"]["merges"].push_back(file["model"]["merges"][0]); }),
              testing::HasSubstr("several places"));
}

TEST(GgufTokenizerTest, BrokenMetadataAreRefused) {
  const auto read = [](std::vector<GgufPair> pairs, ErrorKind kind) {
    return test::message_of([&] { tokenizer_from_gguf(header_of(std::move(pairs)), "file.gguf"); }, kind);
  };
  using Texts = std::vector<std::string>;
  const GgufPair tokens{"tokenizer.ggml.tokens", GgufArray(Texts{"a", "b"})};
  EXPECT_THAT(read({}, ErrorKind::kNotFound), testing::HasSubstr("file.gguf"));
  read(gguf_no_tokenizer(), ErrorKind::kNotFound);
  read({{"tokenizer.ggml.model", std::string("gpt2")}}, ErrorKind::kCorruption);
  EXPECT_THAT(read({{"tokenizer.ggml.model", std::string("bert")}, tokens}, ErrorKind::kUnsupported), testing::HasSubstr("'bert'"));
  EXPECT_THAT(read({{"tokenizer.ggml.model", std::string("gpt2")}, {"tokenizer.ggml.pre", std::string("odd")}, tokens},
                   ErrorKind::kUnsupported),
              testing::HasSubstr("'odd'"));
  read({{"tokenizer.ggml.model", std::string("llama")}, tokens, {"tokenizer.ggml.scores", GgufArray(std::vector<float>{1.0F})}},
       ErrorKind::kCorruption);
  read({{"tokenizer.ggml.model", std::string("llama")}, tokens, {"tokenizer.ggml.token_type", GgufArray(std::vector<int32_t>{1})}},
       ErrorKind::kCorruption);
  EXPECT_THAT(read({{"tokenizer.ggml.model", std::string("llama")},
                    {"tokenizer.ggml.tokens", GgufArray(Texts{"a", "b", "ab"})},
                    {"tokenizer.ggml.scores", GgufArray(std::vector<float>{0.0F, 0.0F, std::nanf("")})}},
                   ErrorKind::kCorruption),
              testing::HasSubstr("file.gguf: the score of token 2 is no number"));
}

TEST(GgufTokenizerTest, TextsThatAreNoneAreRefused) {
  using Texts = std::vector<std::string>;
  const auto read = [](const std::string& model, Texts texts, Texts merges, ErrorKind kind = ErrorKind::kCorruption) {
    std::vector<float> scores(texts.size(), 0.0F);
    std::vector<GgufPair> pairs = {{"tokenizer.ggml.model", model},
                                   {"tokenizer.ggml.pre", std::string("qwen2")},
                                   {"tokenizer.ggml.tokens", GgufArray(std::move(texts))},
                                   {"tokenizer.ggml.scores", GgufArray(std::move(scores))},
                                   {"tokenizer.ggml.merges", GgufArray(std::move(merges))}};
    return test::message_of([&] { tokenizer_from_gguf(header_of(std::move(pairs)), "file.gguf"); }, kind);
  };
  for (const std::string model : {"gpt2", "llama"}) {
    EXPECT_THAT(read(model, {"a", "b\xF0"}, {}), testing::HasSubstr("tokens: number 1 is no valid UTF-8"));
    EXPECT_THAT(read(model, {std::string(100'000, 'a')}, {}), testing::HasSubstr("tokens: number 0 has 100000 bytes"));
  }
  EXPECT_THAT(read("gpt2", {"a", "b"}, {"a b", "a \xE2\x96"}), testing::HasSubstr("merges: number 1 is no valid UTF-8"));
  // Every cut of a token is looked up.
  EXPECT_THAT(read("llama", {"a", std::string(5000, 'a')}, {}, ErrorKind::kUnsupported), testing::HasSubstr("5000 bytes"));
}

}  // namespace
}  // namespace salient::models
