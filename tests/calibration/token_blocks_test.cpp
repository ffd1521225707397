#include "calibration/token_blocks.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <numeric>

#include "common/error.h"
#include "common/file.h"
#include "common/hash.h"

namespace salient::calibration {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const fs::path kRoot = SALIENT_SOURCE_DIR;

Json golden(const std::string& name) { return read_json_file(kRoot / "tests/data/calibration" / name); }

const models::Tokenizer& tokenizer() {
  static const models::Tokenizer demo = models::Tokenizer::from_folder(kRoot / "models/demo");
  return demo;
}

std::vector<std::string> demo_texts(size_t count) {
  auto texts = read_calibration_set(kRoot / "models/demo/data/calib_mixed.jsonl").texts;
  texts.resize(std::min(count, texts.size()));
  return texts;
}

std::vector<int64_t> row(const TokenBlocks& blocks, int64_t index) {
  const at::Tensor ids = blocks.ids[index].slice(0, 0, blocks.lengths[index].item<int64_t>()).contiguous();
  return {ids.data_ptr<int64_t>(), ids.data_ptr<int64_t>() + ids.numel()};
}

std::vector<int64_t> stream(const TokenBlocks& blocks) {
  std::vector<int64_t> all;
  for (int64_t i = 0; i < blocks.ids.size(0); ++i) {
    const auto ids = row(blocks, i);
    all.insert(all.end(), ids.begin(), ids.end());
  }
  return all;
}

template <typename Body>
Error error_of(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "no error";
  return Error(ErrorKind::kInternal, "");
}

TEST(TokenBlocks, DiscardingLongRowsGivesAutoAwqsBlocks) {
  auto texts = demo_texts(1200);
  texts[3] = "  \u3000\n" + texts[3] + "\u2003\n";
  texts[5] = " \n";
  const Json reference = golden("autoawq.json");
  ASSERT_EQ(reference["cases"].size(), 3u);
  for (const Json& item : reference["cases"]) {
    TokenBlockOptions options;
    options.rows.max_seq_len = item["max_seq_len"];
    options.rows.max_rows = item["samples"];
    options.rows.long_rows = LongRows::kDiscard;
    options.min_tokens = 1;
    const TokenBlocks blocks = make_token_blocks(texts, tokenizer(), options);
    EXPECT_EQ(blocks.statistics.blocks, item["blocks"].get<int64_t>());
    EXPECT_EQ(blocks.ids.size(1), options.rows.max_seq_len);
    EXPECT_TRUE(blocks.lengths.eq(options.rows.max_seq_len).all().item<bool>());
    std::string joined;
    for (const int64_t id : stream(blocks)) joined += (joined.empty() ? "" : " ") + std::to_string(id);
    EXPECT_EQ(sha256_hex(joined), item["sha256"].get<std::string>());
  }
}

TEST(TokenBlocks, ConcatKeepsEveryTokenOfShortRows) {
  const Json reference = golden("tokens.json");
  TokenBlockOptions options;
  options.rows.max_seq_len = 256;
  const TokenBlocks blocks = make_token_blocks(demo_texts(40), tokenizer(), options);
  int64_t total = 0;
  for (const Json& length : reference["lengths"]) total += length.get<int64_t>();
  ASSERT_GE(total % 256, kMinimumTail);
  EXPECT_EQ(blocks.ids.scalar_type(), at::kLong);
  EXPECT_EQ(blocks.lengths.scalar_type(), at::kLong);
  EXPECT_EQ(blocks.statistics.tokens, total);
  EXPECT_EQ(blocks.statistics.blocks, (total + 255) / 256);
  EXPECT_EQ(blocks.ids.sizes(), (std::vector<int64_t>{blocks.statistics.blocks, 256}));
  EXPECT_EQ(blocks.lengths[-1].item<int64_t>(), total % 256);
  EXPECT_EQ(blocks.ids[-1].slice(0, total % 256).abs().sum().item<int64_t>(), 0);
  const auto all = stream(blocks);
  const auto first = reference["first_row"].get<std::vector<int64_t>>();
  const auto last = reference["last_row"].get<std::vector<int64_t>>();
  EXPECT_TRUE(std::equal(first.begin(), first.end(), all.begin()));
  EXPECT_TRUE(std::equal(last.rbegin(), last.rend(), all.rbegin()));
  EXPECT_EQ(blocks.statistics.row_tokens.max, *std::max_element(reference["lengths"].begin(), reference["lengths"].end()));
  EXPECT_EQ(blocks.statistics.row_tokens.total, total);
  EXPECT_EQ(blocks.statistics.truncated + blocks.statistics.dropped + blocks.statistics.dropped_tokens, 0);
}

TEST(TokenBlocks, LongRowsAreCutAndCounted) {
  const auto lengths = golden("tokens.json")["lengths"].get<std::vector<int64_t>>();
  int64_t expected = 0, truncated = 0, cut = 0;
  for (const int64_t length : lengths) {
    expected += std::min<int64_t>(length, 64);
    truncated += length > 64 ? 1 : 0;
    cut += std::max<int64_t>(length - 64, 0);
  }
  ASSERT_GT(truncated, 0);
  TokenBlockOptions options;
  options.rows.max_seq_len = 64;
  options.rows.long_rows = LongRows::kCut;
  const TokenStatistics s = make_token_blocks(demo_texts(40), tokenizer(), options).statistics;
  const int64_t tail = expected % 64 < kMinimumTail ? expected % 64 : 0;
  EXPECT_EQ(s.truncated, truncated);
  EXPECT_EQ(s.tokens, expected - tail);
  EXPECT_EQ(s.dropped_tokens, cut + tail);
  EXPECT_EQ(s.rows, 40);
}

TEST(TokenBlocks, LongRowsAreSplitAndNothingIsLost) {
  const auto lengths = golden("tokens.json")["lengths"].get<std::vector<int64_t>>();
  TokenBlockOptions options;
  options.rows.max_seq_len = 1 << 16;
  const auto whole = tokenize_rows(demo_texts(40), tokenizer(), options.rows);
  options.rows.max_seq_len = 64;
  ASSERT_EQ(options.rows.long_rows, LongRows::kSplit);
  const auto split = tokenize_rows(demo_texts(40), tokenizer(), options.rows);
  EXPECT_EQ(split.tokens, std::accumulate(lengths.begin(), lengths.end(), int64_t{0}));
  EXPECT_EQ(split.kept, 40);
  std::vector<models::TokenId> expected, found;
  size_t piece = 0;
  int64_t long_rows = 0;
  for (const auto& row : whole.rows) {
    expected.insert(expected.end(), row.begin(), row.end());
    const size_t count = (row.size() + 63) / 64;
    long_rows += count > 1 ? 1 : 0;
    for (size_t i = 0; i < count; ++i, ++piece) {
      ASSERT_LT(piece, split.rows.size());
      EXPECT_LE(split.rows[piece].size(), 64u);
      EXPECT_GE(split.rows[piece].size(), row.size() / count);  // no crumbs
      found.insert(found.end(), split.rows[piece].begin(), split.rows[piece].end());
    }
  }
  EXPECT_EQ(piece, split.rows.size());
  EXPECT_EQ(split.split, long_rows);
  EXPECT_GT(long_rows, 0);
  EXPECT_EQ(found, expected);

  options.packing = Packing::kRows;
  const TokenBlocks blocks = pack_blocks(split, options);
  EXPECT_EQ(blocks.statistics.tokens, split.tokens);
  EXPECT_EQ(blocks.statistics.split, long_rows);
  EXPECT_EQ(blocks.statistics.dropped_tokens, 0);
  EXPECT_EQ(blocks.ids.size(0), static_cast<int64_t>(split.rows.size()));
}

// A row of one token more than a block: two halves, not 512 and 1.
TEST(TokenBlocks, SplitPiecesAreNearlyEqual) {
  CalibrationRow row;
  row.ids.assign(513, 7);
  TokenRowOptions options;
  TokenRowCollector collector(nullptr, options);
  EXPECT_EQ(collector.add(row, "d"), 513);
  const TokenRows rows = collector.take();
  ASSERT_EQ(rows.rows.size(), 2u);
  EXPECT_EQ(rows.rows[0].size(), 257u);
  EXPECT_EQ(rows.rows[1].size(), 256u);
}

TEST(TokenBlocks, MaskAndDomainsStayWithTheirTokens) {
  CalibrationRows rows;
  rows.domains = {"even", "odd"};
  // Each id says its own domain and whether it counts: id = 4 * number + 2 * domain + counts.
  for (int32_t i = 0; i < 30; ++i) {
    CalibrationRow row;
    row.domain = i % 2;
    for (int32_t t = 0; t < 5 + i; ++t) {
      const bool counts = (i + t) % 3 == 0;
      row.ids.push_back(4 * t + 2 * row.domain + (counts ? 1 : 0));
      row.loss_mask.push_back(counts);
    }
    rows.rows.push_back(row);
  }
  for (const Packing packing : {Packing::kConcat, Packing::kRows}) {
    TokenBlockOptions options;
    options.rows.max_seq_len = 16;
    options.rows.loss_mask = LossMask::kResponse;
    options.packing = packing;
    options.min_tokens = 1;
    const TokenBlocks blocks = pack_blocks(tokenize_rows(rows, tokenizer(), options.rows), options);
    ASSERT_TRUE(blocks.mask.defined());
    ASSERT_EQ(blocks.mask.scalar_type(), at::kBool);
    ASSERT_EQ(blocks.mask.sizes(), blocks.ids.sizes());
    EXPECT_EQ(blocks.domain_names, rows.domains);
    const at::Tensor real = at::arange(blocks.ids.size(1)).unsqueeze(0) < blocks.lengths.unsqueeze(1);
    EXPECT_TRUE(blocks.mask.equal(blocks.ids.remainder(2).eq(1).logical_and(real)));
    EXPECT_TRUE(
        blocks.domains.masked_select(real).eq(blocks.ids.div(2, "floor").remainder(2).masked_select(real)).all().item<bool>());
    EXPECT_EQ(blocks.mask.sum().item<int64_t>(), blocks.statistics.counted_tokens);
    EXPECT_LT(blocks.statistics.counted_tokens, blocks.statistics.tokens);
    options.rows.loss_mask = LossMask::kAll;
    EXPECT_FALSE(pack_blocks(tokenize_rows(rows, tokenizer(), options.rows), options).mask.defined());
  }
}

TEST(TokenBlocks, RowsWithoutAnAnswerAreLeftOutOfResponseStatistics) {
  CalibrationRows rows;
  rows.domains = {"d"};
  CalibrationRow row;
  row.ids.assign(20, 3);
  rows.rows.push_back(row);
  row.loss_mask.assign(20, 1);
  rows.rows.push_back(row);
  TokenBlockOptions options;
  options.rows.loss_mask = LossMask::kResponse;
  options.min_tokens = 20;
  const TokenStatistics s = pack_blocks(tokenize_rows(rows, tokenizer(), options.rows), options).statistics;
  EXPECT_EQ(s.dropped, 1);
  EXPECT_EQ(s.dropped_tokens, 20);
  EXPECT_EQ(s.counted_tokens, 20);
  rows.rows.pop_back();
  EXPECT_THAT(error_of([&] { pack_blocks(tokenize_rows(rows, tokenizer(), options.rows), options); }).message(),
              HasSubstr("1 hold no answer and were left out"));
}

TEST(TokenBlocks, AShortTailIsDropped) {
  const auto lengths = golden("tokens.json")["lengths"].get<std::vector<int64_t>>();
  TokenBlockOptions options;
  options.min_tokens = 1;
  for (const int64_t tail : {kMinimumTail - 1, kMinimumTail}) {
    options.rows.max_seq_len = lengths[0] + lengths[1] - tail;
    ASSERT_GE(options.rows.max_seq_len, std::max(lengths[0], lengths[1]));
    const TokenBlocks blocks = make_token_blocks(demo_texts(2), tokenizer(), options);
    EXPECT_EQ(blocks.statistics.blocks, tail < kMinimumTail ? 1 : 2);
    EXPECT_EQ(blocks.statistics.dropped_tokens, tail < kMinimumTail ? tail : 0);
  }
}

TEST(TokenBlocks, RowsAreLongestFirstAndStable) {
  const Json reference = golden("tokens.json");
  auto lengths = reference["lengths"].get<std::vector<int64_t>>();
  TokenBlockOptions options;
  options.packing = Packing::kRows;
  const TokenBlocks blocks = make_token_blocks(demo_texts(40), tokenizer(), options);
  std::sort(lengths.begin(), lengths.end(), std::greater<>());
  ASSERT_EQ(blocks.ids.size(0), 40);
  EXPECT_EQ(blocks.ids.size(1), lengths.front());
  EXPECT_TRUE(blocks.lengths.equal(at::tensor(lengths)));
  const auto first = reference["first_row"].get<std::vector<int64_t>>();
  int64_t found = 0;
  for (int64_t i = 0; i < 40; ++i) found += row(blocks, i) == first ? 1 : 0;
  EXPECT_EQ(found, 1);
  EXPECT_TRUE(blocks.ids.equal(make_token_blocks(demo_texts(40), tokenizer(), options).ids));
}

TEST(TokenBlocks, DuplicatesAndEmptyTextsAreCounted) {
  auto texts = demo_texts(40);
  texts.push_back(texts[0]);
  texts.push_back("");
  const TokenStatistics s = make_token_blocks(texts, tokenizer(), {}).statistics;
  EXPECT_EQ(s.duplicates, 1);
  EXPECT_EQ(s.dropped, 1);
  EXPECT_EQ(s.rows, 42);
  EXPECT_EQ(to_json(s)["duplicates"], 1);
}

TEST(TokenBlocks, TooLittleDataSaysHowMuchThereIs) {
  const auto lengths = golden("tokens.json")["lengths"].get<std::vector<int64_t>>();
  const Error few = error_of([] { make_token_blocks(demo_texts(2), tokenizer(), {}); });
  EXPECT_EQ(few.kind(), ErrorKind::kInvalidArgument);
  EXPECT_EQ(few.code(), "CALIBRATION_TOO_SHORT");
  EXPECT_THAT(few.message(), HasSubstr("2 texts give " + std::to_string(lengths[0] + lengths[1]) + " usable tokens"));
  EXPECT_THAT(few.message(), HasSubstr("at least 512 tokens are needed"));
  EXPECT_THAT(error_of([] { make_token_blocks({}, tokenizer(), {}); }).message(), HasSubstr("0 texts give 0 usable tokens"));

  TokenBlockOptions options;
  options.rows.max_seq_len = 4;
  options.rows.long_rows = LongRows::kDiscard;
  options.min_tokens = 0;
  const Error long_rows = error_of([&] { make_token_blocks(demo_texts(5), tokenizer(), options); });
  EXPECT_THAT(long_rows.message(), HasSubstr("5 are too long and were left out"));
  EXPECT_THAT(long_rows.message(), HasSubstr("at least 1 tokens"));
  options.rows.max_seq_len = 0;
  EXPECT_THAT(error_of([&] { make_token_blocks(demo_texts(5), tokenizer(), options); }).message(), HasSubstr("max_seq_len is 0"));
}

// Rows that the model writes stand among the others, so that a smaller set is the beginning of a larger one.
TEST(TokenBlocks, WovenRowsOfASmallerSetAreTheFirstOfALargerOnes) {
  const auto set_of = [](int64_t texts) {
    TokenRows rows;
    for (int64_t i = 0; i < texts; ++i) {
      rows.rows.push_back(std::vector<models::TokenId>(10, static_cast<models::TokenId>(i + 1)));
      rows.lengths.push_back(10);
      rows.tokens += 10;
    }
    rows.texts = texts;
    TokenBlockOptions options;
    options.rows.max_seq_len = 10;
    options.min_tokens = 1;
    TokenBlocks blocks = pack_blocks(rows, options);
    // Seven tokens a row, three rows for four texts or so: 0.5 of their tokens.
    std::vector<std::vector<models::TokenId>> own;
    for (int64_t i = 0; i * 7 < texts * 5; ++i)
      own.push_back(std::vector<models::TokenId>(7, static_cast<models::TokenId>(100 + i)));
    weave_blocks(blocks, own, "own", 0.5);
    return blocks;
  };
  const TokenBlocks small = set_of(8);
  const TokenBlocks large = set_of(20);
  const int64_t whole = small.ids.size(0) - 1;  // the last own block is padded
  ASSERT_EQ(small.ids.size(0), 8 + 5);
  EXPECT_TRUE(large.ids.narrow(0, 0, whole).equal(small.ids.narrow(0, 0, whole)));
  EXPECT_TRUE(large.lengths.narrow(0, 0, whole).equal(small.lengths.narrow(0, 0, whole)));
  EXPECT_TRUE(large.domains.narrow(0, 0, whole).equal(small.domains.narrow(0, 0, whole)));
  // Two texts, one of its own; every token is there once.
  EXPECT_EQ(large.domains[0][0].item<int>(), 0);
  EXPECT_EQ(large.domains[1][0].item<int>(), 0);
  EXPECT_EQ(large.domains[2][0].item<int>(), 1);
  EXPECT_EQ(large.domains[3][0].item<int>(), 0);
  EXPECT_EQ((small.domains == 1).sum().item<int64_t>(), 6 * 7);
  EXPECT_EQ(small.lengths.sum().item<int64_t>(), 8 * 10 + 6 * 7);
  EXPECT_EQ(small.statistics.tokens, 8 * 10 + 6 * 7);
}

TEST(TokenBlocks, PackingNames) {
  EXPECT_EQ(parse_packing("concat"), Packing::kConcat);
  EXPECT_EQ(parse_packing("rows"), Packing::kRows);
  EXPECT_THROW(parse_packing("pad"), Error);
  for (const LongRows kind : {LongRows::kCut, LongRows::kDiscard, LongRows::kSplit})
    EXPECT_EQ(parse_long_rows(to_string(kind)), kind);
  EXPECT_THROW(parse_long_rows("truncate"), Error);
  for (const LossMask kind : {LossMask::kAll, LossMask::kResponse}) EXPECT_EQ(parse_loss_mask(to_string(kind)), kind);
  EXPECT_THROW(parse_loss_mask("answers"), Error);
}

// The demo tokenizer with a post-processor that puts <|endoftext|> in front, as Llama's puts its BOS.
TEST(TokenRows, SpecialTokensAreAddedOnceAndNotToTemplateText) {
  Json json = read_json_file(kRoot / "models/demo/tokenizer.json");
  const std::string bos = "<|endoftext|>";
  int64_t id = -1;
  for (const Json& token : json["added_tokens"])
    if (token["content"] == bos) id = token["id"];
  ASSERT_GE(id, 0);
  const auto special = Json::parse(R"({"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}})");
  const auto first = Json::parse(R"({"Sequence": {"id": "A", "type_id": 0}})"),
             second = Json::parse(R"({"Sequence": {"id": "B", "type_id": 1}})");
  json["post_processor"] = {{"type", "TemplateProcessing"},
                            {"single", Json::array({special, first})},
                            {"pair", Json::array({special, first, second})},
                            {"special_tokens", {{bos, {{"id", bos}, {"ids", Json::array({id})}, {"tokens", Json::array({bos})}}}}}};
  const fs::path folder = fs::temp_directory_path() / ("salient_token_rows_" + std::to_string(::getpid()));
  write_file(folder / "tokenizer.json", json.dump());
  const auto with_bos = models::Tokenizer::from_folder(folder);

  const auto plain = tokenize_rows({"Hello there", bos + "Hello there"}, with_bos, {});
  ASSERT_EQ(plain.rows.size(), 2u);
  EXPECT_EQ(plain.rows[0], plain.rows[1]);
  EXPECT_EQ(plain.rows[0][0], id);
  EXPECT_NE(plain.rows[0][1], id);
  TokenRowOptions rendered;
  rendered.from_chat_template = true;
  EXPECT_NE(tokenize_rows({"Hello there"}, with_bos, rendered).rows[0][0], id);
  fs::remove_all(folder);
}

}  // namespace
}  // namespace salient::calibration
