#include "models/text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "common/error.h"
#include "common/file.h"
#include "common/json.h"

namespace salient::models {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Ids = std::vector<TokenId>;

const std::filesystem::path kSource = SALIENT_SOURCE_DIR;

std::filesystem::path scratch(const std::string& name) {
  const auto folder = std::filesystem::path(testing::TempDir()) / "salient_tokenizer_test";
  std::filesystem::create_directories(folder);
  return folder / name;
}

Tokenizer load(const Json& file, const std::string& name = "tokenizer.json") {
  const auto path = scratch(name);
  write_file(path, dump_json(file));
  return Tokenizer::from_file(path);
}

const Json& golden() {
  static const Json value = read_json_file(kSource / "tests/data/tokenizer/golden.json");
  return value;
}

Json golden_file(const std::string& name) {
  Json file = golden()["tokenizers"][name]["file"];
  Json& model = file["model"];
  if (model.contains("base")) {
    const Json base = golden()["models"][model["base"].get<std::string>()];
    model["vocab"] = base["vocab"];
    model["merges"] = base["merges"];
  }
  return file;
}

void expect_golden(const Tokenizer& tokenizer, const Json& expected) {
  const auto texts = golden()["texts"].get<std::vector<std::string>>();
  ASSERT_EQ(expected["ids"].size(), texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    SCOPED_TRACE(dump_json(Json(texts[i])));
    EXPECT_EQ(tokenizer.encode(texts[i], false), expected["ids"][i].get<Ids>());
    const Ids special = tokenizer.encode(texts[i], true);
    if (expected["with_special"].is_null()) {
      EXPECT_EQ(special, expected["ids"][i].get<Ids>());
    } else if (i < expected["with_special"].size()) {
      EXPECT_EQ(special, expected["with_special"][i].get<Ids>());
    }
    const Json& plain = expected["decoded"][i];
    const Json& skipped = expected["skipped"][i];
    const std::string decoded = plain.is_null() ? texts[i] : plain.get<std::string>();
    EXPECT_EQ(tokenizer.decode(special, false), decoded);
    EXPECT_EQ(tokenizer.decode(special, true), skipped.is_null() ? decoded : skipped.get<std::string>());
  }
}

TEST(Tokenizer, EqualsTheLibraryOnTheDemoModel) {
  expect_golden(Tokenizer::from_folder(kSource / "models/demo"), golden()["demo"]);
}

class Configurations : public testing::TestWithParam<const char*> {};

TEST_P(Configurations, EqualTheLibrary) { expect_golden(load(golden_file(GetParam())), golden()["tokenizers"][GetParam()]); }

INSTANTIATE_TEST_SUITE_P(Golden, Configurations,
                         testing::Values("llama3", "qwen", "roberta", "phi", "cl100k", "deepseek", "falcon", "han", "words",
                                         "llama2", "llama2_normalized", "mistral", "metaspace", "gemma", "spaces"));

TEST(Tokenizer, AllGoldenConfigurationsAreTested) { EXPECT_EQ(golden()["tokenizers"].size(), 15u); }

TEST(Tokenizer, LooksUpTokensAndIds) {
  const Tokenizer tokenizer = Tokenizer::from_folder(kSource / "models/demo");
  EXPECT_EQ(tokenizer.vocab_size(), 4096);
  EXPECT_EQ(tokenizer.token_to_id("<|im_start|>"), 4094);
  EXPECT_EQ(tokenizer.id_to_token(4094), "<|im_start|>");
  EXPECT_EQ(tokenizer.token_to_id("no such token"), std::nullopt);
  EXPECT_EQ(tokenizer.id_to_token(4096), std::nullopt);
  EXPECT_EQ(tokenizer.id_to_token(-1), std::nullopt);
  const Ids with_strangers = {-5, 1 << 30, 4094};
  EXPECT_EQ(tokenizer.decode(with_strangers, false), "<|im_start|>");
  EXPECT_EQ(tokenizer.decode(with_strangers, true), "");
}

TEST(Tokenizer, ReplacesInvalidUtf8) {
  const Tokenizer tokenizer = Tokenizer::from_folder(kSource / "models/demo");
  const std::string broken = "a\xF0\x9F\x98 b\xED\xA0\x80\xC0\xAF\xFF";
  const std::string repaired = "a\uFFFD b\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD";
  EXPECT_EQ(tokenizer.encode(broken, false), tokenizer.encode(repaired, false));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(broken, false), false), repaired);
  // Half of a character is no text either.
  const Ids ids = tokenizer.encode("é", false);
  ASSERT_GE(ids.size(), 1u);
  const auto half = tokenizer.token_to_id("Ã");
  ASSERT_TRUE(half.has_value());
  EXPECT_EQ(tokenizer.decode(std::vector<TokenId>{*half}, false), "\uFFFD");
}

TEST(Tokenizer, LongRunsNeitherOverflowNorCrawl) {
  constexpr size_t kSize = 1'000'000;
  for (const char* name : {"qwen", "cl100k", "llama2", "words"}) {
    const Tokenizer tokenizer = load(golden_file(name));
    for (const std::string& unit :
         {std::string(" "), std::string("e"), std::string("\n"), std::string("日"), std::string("\u0301"), std::string("\xFF")}) {
      SCOPED_TRACE(name);
      std::string text;
      while (text.size() < kSize) text += unit;
      EXPECT_GT(tokenizer.encode(text, false).size(), kSize / 100);
    }
  }
}

// Equal ranks go left to right: "aaaaa" with the merge a+a is aa aa a.
TEST(Tokenizer, MergesTheLeftmostPairFirst) {
  Json file = {{"model", {{"type", "BPE"}, {"vocab", {{"a", 0}, {"aa", 1}, {"aaaa", 2}}}, {"merges", {"a a", "aa aa"}}}}};
  EXPECT_THAT(load(file).encode("aaaaa", false), ElementsAre(2, 0));
  file["model"]["merges"] = Json::array({Json::array({"a", "a"})});
  EXPECT_THAT(load(file).encode("aaaaa", false), ElementsAre(1, 1, 0));
}

TEST(Tokenizer, AddedTokensTakeTheNextFreeId) {
  const Json file = {{"added_tokens", {{{"id", 9}, {"content", "<x>"}, {"special", true}}, {{"id", 1}, {"content", "b"}}}},
                     {"model", {{"type", "BPE"}, {"vocab", {{"a", 0}, {"b", 1}}}, {"merges", Json::array()}}}};
  const Tokenizer tokenizer = load(file);
  EXPECT_THAT(tokenizer.encode("a<x>b", false), ElementsAre(0, 2, 1));
  EXPECT_EQ(tokenizer.vocab_size(), 3);
}

TEST(Tokenizer, IsTheSameFromManyThreads) {
  const Tokenizer tokenizer = Tokenizer::from_folder(kSource / "models/demo");
  const auto texts = golden()["texts"].get<std::vector<std::string>>();
  std::vector<int> wrong(4, 0);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < 20; ++round) {
        for (size_t i = 0; i < texts.size(); ++i)
          wrong[t] += tokenizer.encode(texts[i], false) != golden()["demo"]["ids"][i].get<Ids>() ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(wrong, ElementsAre(0, 0, 0, 0));
}

struct BadFile {
  const char* name;
  const char* pointer;  // JSON pointer of what is replaced in the "llama3" configuration
  const char* value;
  ErrorKind kind;
  const char* says;
};

class BadFiles : public testing::TestWithParam<BadFile> {};

TEST_P(BadFiles, AreReported) {
  const BadFile& bad = GetParam();
  Json file = golden_file("llama3");
  file[Json::json_pointer(bad.pointer)] = parse_json(bad.value, "test");
  try {
    load(file, "bad.json");
    FAIL() << "loaded";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), bad.kind) << error.what();
    EXPECT_THAT(error.what(), HasSubstr("bad.json"));
    EXPECT_THAT(error.what(), HasSubstr(bad.says));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Hostile, BadFiles,
    testing::Values(
        BadFile{"no_model", "/model", "null", ErrorKind::kCorruption, "'model' is missing"},
        BadFile{"unigram", "/model", R"({"type":"Unigram","vocab":[]})", ErrorKind::kUnsupported,
                "'Unigram' is not supported; supported is BPE"},
        BadFile{"word_piece", "/model/type", R"("WordPiece")", ErrorKind::kUnsupported, "WordPiece"},
        BadFile{"dropout", "/model/dropout", "0.1", ErrorKind::kUnsupported, "dropout"},
        BadFile{"vocabulary", "/model/vocab", "[]", ErrorKind::kCorruption, "'vocab'"},
        BadFile{"negative_id", "/model/vocab/the", "-1", ErrorKind::kCorruption, "token 'the': found -1"},
        BadFile{"huge_id", "/model/vocab/the", "18446744073709551615", ErrorKind::kCorruption, "token 'the'"},
        BadFile{"text_id", "/model/vocab/the", R"("1")", ErrorKind::kCorruption, "token 'the'"},
        BadFile{"unknown_merge", "/model/merges/3", R"(["zz","y"])", ErrorKind::kCorruption,
                "merges[3]: 'zz' + 'y': token 'zz' is not in"},
        BadFile{"three_part_merge", "/model/merges/3", R"("a b c")", ErrorKind::kCorruption, "merges[3]"},
        BadFile{"merges", "/model/merges", "7", ErrorKind::kCorruption, "'merges'"},
        BadFile{"bad_regex", "/pre_tokenizer/pretokenizers/0/pattern/Regex", R"("a(b|[c")", ErrorKind::kCorruption,
                "pretokenizers[0].pattern"},
        BadFile{"bad_regex_offset", "/pre_tokenizer/pretokenizers/0/pattern/Regex", R"x("ab)")x", ErrorKind::kCorruption,
                "unmatched closing parenthesis at byte 2"},
        BadFile{"pattern", "/pre_tokenizer/pretokenizers/0/pattern", "3", ErrorKind::kCorruption,
                "pretokenizers[0].pattern: found 3"},
        BadFile{"behavior", "/pre_tokenizer/pretokenizers/0/behavior", R"("Kept")", ErrorKind::kCorruption,
                "'Kept', expected Removed"},
        BadFile{"pre_tokenizer", "/pre_tokenizer/pretokenizers/0/type", R"("UnicodeScripts")", ErrorKind::kUnsupported,
                "pre-tokenizer 'UnicodeScripts' is not supported; supported are ByteLevel"},
        BadFile{"typeless", "/pre_tokenizer", "{}", ErrorKind::kCorruption, "key 'type' is missing"},
        BadFile{"normalizer", "/normalizer", R"({"type":"BertNormalizer"})", ErrorKind::kUnsupported,
                "normalizer 'BertNormalizer'"},
        BadFile{"prepend", "/normalizer", R"({"type":"Prepend","prepend":7})", ErrorKind::kCorruption, "key 'prepend': found 7"},
        BadFile{"decoder", "/decoder", R"({"type":"WordPiece"})", ErrorKind::kUnsupported, "decoder 'WordPiece'"},
        BadFile{
            "template_token", "/post_processor",
            R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<q>","type_id":0}}],"pair":[],"special_tokens":{}})",
            ErrorKind::kCorruption, "'<q>' is not in special_tokens"},
        BadFile{"added", "/added_tokens", "[5]", ErrorKind::kCorruption, "added_tokens[0]"},
        BadFile{"added_content", "/added_tokens/1/content", "null", ErrorKind::kCorruption, "added_tokens[1]: key 'content'"},
        BadFile{"version", "/version", R"("2.0")", ErrorKind::kUnsupported, "version"}),
    [](const auto& param) { return std::string(param.param.name); });

TEST(Tokenizer, MissingAndBrokenFilesAreReported) {
  try {
    Tokenizer::from_folder(scratch("nowhere"));
    FAIL() << "loaded";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kNotFound);
    EXPECT_THAT(error.what(), HasSubstr("tokenizer.json"));
    EXPECT_THAT(error.hint(), HasSubstr("save_pretrained"));
  }
  for (const char* text : {"", "{\"model\": ", "[]", "\"x\"", "{}"}) {
    write_file(scratch("broken.json"), text);
    try {
      Tokenizer::from_file(scratch("broken.json"));
      FAIL() << "loaded " << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kCorruption) << error.what();
      EXPECT_THAT(error.what(), HasSubstr("broken.json"));
    }
  }
}

TEST(Tokenizer, DeepNestingIsReported) {
  std::string text = R"({"type":"NFC"})";
  for (int i = 0; i < 20000; ++i) text = R"({"type":"Sequence","normalizers":[)" + text + "]}";
  write_file(scratch("deep.json"), R"({"model":{"vocab":{},"merges":[]},"normalizer":)" + text + "}");
  EXPECT_THROW(Tokenizer::from_file(scratch("deep.json")), Error);
  Json file = golden_file("llama3");
  file["pre_tokenizer"] = {
      {"type", "Split"}, {"pattern", {{"Regex", std::string(100000, '[')}}}, {"behavior", "Removed"}, {"invert", false}};
  EXPECT_THROW(load(file), Error);
}

// Doubling forty times is what a file of a few kilobytes can ask for.
TEST(Tokenizer, TextThatGrowsWithoutEndIsReported) {
  const auto refuse = [](const char* part, const char* list, const Json& step) {
    Json file = golden_file("llama3");
    file["normalizer"] = file["pre_tokenizer"] = nullptr;
    file[part] = {{"type", "Sequence"}, {list, Json::array()}};
    for (int i = 0; i < 40; ++i) file[part][list].push_back(step);
    try {
      load(file).encode(std::string(1000, 'a') + "\xC3\xA9", false);
      FAIL() << "encoded";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kCorruption) << error.what();
      EXPECT_THAT(error.what(), HasSubstr("tokenizer.json"));
    }
  };
  refuse("normalizer", "normalizers", {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aa"}});
  refuse("normalizer", "normalizers", {{"type", "ByteLevel"}});
  refuse("normalizer", "normalizers", {{"type", "Prepend"}, {"prepend", std::string(100'000, 'a')}});
  refuse("pre_tokenizer", "pretokenizers", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}});
}

TEST(Tokenizer, AnUnknownTokenOutsideTheVocabularyIsAnErrorOnlyWhereItIsNeeded) {
  const Json file = {{"model", {{"type", "BPE"}, {"unk_token", "<unk>"}, {"vocab", {{"a", 0}}}, {"merges", Json::array()}}}};
  const Tokenizer tokenizer = load(file);
  EXPECT_THAT(tokenizer.encode("aa", false), ElementsAre(0, 0));
  EXPECT_THROW(tokenizer.encode("b", false), Error);
}

}  // namespace
}  // namespace salient::models
