// Generation with a full batch against generate(): the same texts, whatever runs beside them.
#include "models/decoder/continuous_generation.h"

#include <gtest/gtest.h>

#include <optional>
#include <set>

#include "models/decoder/decoder.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"
#include "support/wide_model.h"

namespace salient::models {
namespace {

std::vector<TokenId> tokens(TokenId from, size_t count) {
  std::vector<TokenId> ids;
  for (size_t i = 0; i < count; ++i) ids.push_back(static_cast<TokenId>((static_cast<size_t>(from) + 11 * i) % 512));
  return ids;
}

// Prompts of many lengths; some share beginnings of one and of several blocks.
std::vector<std::vector<TokenId>> prompts() {
  std::vector<std::vector<TokenId>> out = {tokens(1, 90), tokens(2, 5), tokens(3, 1), tokens(1, 130), tokens(4, 33)};
  for (const size_t shared : {40, 70, 100}) {
    std::vector<TokenId> prompt = tokens(1, shared);
    for (const TokenId id : tokens(7, 21)) prompt.push_back(id);
    out.push_back(prompt);
  }
  out.push_back(tokens(5, 64));
  out.push_back(tokens(1, 90));
  return out;
}

class ContinuousGenerationTest : public testing::Test {
 protected:
  ContinuousGenerationTest() {
    test::write_golden_checkpoint(test::wide_model(), folder_.path());
    decoder_.emplace(Decoder::load(Checkpoint(folder_.path()), {}));
  }
  std::vector<std::vector<TokenId>> ids_of(const std::vector<GenerationResult>& results) const {
    std::vector<std::vector<TokenId>> out;
    for (const GenerationResult& result : results) out.push_back(result.ids);
    return out;
  }

  test::TemporaryFolder folder_;
  std::optional<Decoder> decoder_;
};

TEST_F(ContinuousGenerationTest, GivesWhatGenerateGives) {
  GenerationOptions options;
  options.max_new_tokens = 20;
  // Rows end at different times: ids that some of them come to.
  const std::vector<GenerationResult> open = generate(*decoder_, prompts(), options);
  options.stop_ids = {open[0].ids[7], open[1].ids[3], open[4].ids[12]};
  const std::vector<GenerationResult> expected = generate(*decoder_, prompts(), options);
  std::set<size_t> lengths;
  for (const GenerationResult& result : expected) lengths.insert(result.ids.size());
  ASSERT_GE(lengths.size(), 3u);
  for (const int64_t rows : {1, 2, 3, 64}) {
    for (const int64_t prompt_tokens : {32, 70, 2048}) {
      std::set<size_t> told;
      ContinuousOptions continuous{.max_rows = rows, .prompt_tokens = prompt_tokens};
      continuous.on_results = [&](std::span<const size_t> which, std::span<const GenerationResult> results) {
        for (size_t i = 0; i < which.size(); ++i) {
          EXPECT_TRUE(told.insert(which[i]).second);
          EXPECT_EQ(results[i].ids, expected[which[i]].ids);
        }
      };
      const ContinuousResult found = generate_continuously(*decoder_, prompts(), options, continuous);
      ASSERT_EQ(found.rows.size(), expected.size());
      EXPECT_EQ(told.size(), expected.size());
      int64_t all = 0;
      for (size_t i = 0; i < expected.size(); ++i) {
        EXPECT_EQ(found.rows[i].ids, expected[i].ids) << rows << " rows, prompt " << i;
        EXPECT_EQ(found.rows[i].stopped, expected[i].stopped);
        EXPECT_EQ(found.rows[i].ran, expected[i].ran);
        all += static_cast<int64_t>(prompts()[i].size());
      }
      EXPECT_EQ(found.prompt_tokens + found.shared_tokens, all);
      // 64 of prompt 3's tokens, 32, 64 and 96 of those with ends of their own, 64 of the repeated one, where a slot still has
      // them.
      if (rows == 64) {
        EXPECT_EQ(found.shared_tokens, 64 + 32 + 64 + 96 + 64);
      }
    }
  }
}

TEST_F(ContinuousGenerationTest, DrawsDoNotDependOnTheBatch) {
  GenerationOptions options;
  options.max_new_tokens = 12;
  options.temperature = 1.2;
  options.seed = 3;
  const auto expected = ids_of(generate_continuously(*decoder_, prompts(), options, {.max_rows = 1}).rows);
  EXPECT_EQ(ids_of(generate_continuously(*decoder_, prompts(), options, {.max_rows = 5}).rows), expected);
  options.seed = 4;
  EXPECT_NE(ids_of(generate_continuously(*decoder_, prompts(), options, {.max_rows = 5}).rows), expected);
}

TEST_F(ContinuousGenerationTest, StopsAtTheContextsEnd) {
  GenerationOptions options;
  options.max_new_tokens = 40;
  const std::vector<std::vector<TokenId>> long_prompt = {tokens(1, 500)};
  const ContinuousResult found = generate_continuously(*decoder_, long_prompt, options);
  EXPECT_EQ(found.rows[0].ids.size(), 12u);
  EXPECT_FALSE(found.rows[0].stopped);
  EXPECT_EQ(found.rows[0].ids, generate(*decoder_, long_prompt, options)[0].ids);
}

TEST_F(ContinuousGenerationTest, ErrorsSayWhichPromptAndBrokenRowsAreTold) {
  EXPECT_TRUE(generate_continuously(*decoder_, {}, {}).rows.empty());
  EXPECT_NE(test::error_of([&] {
              generate_continuously(*decoder_, {tokens(1, 3), {}}, {});
            })
                .message()
                .find("prompt 1 is empty"),
            std::string::npos);
  EXPECT_NE(test::error_of([&] { generate_continuously(*decoder_, {tokens(1, 512)}, {}); }).message().find("leaves no room"),
            std::string::npos);

  // A norm that is not a number breaks every logit.
  const test::TemporaryFolder folder;
  Json broken = test::wide_model();
  for (Json& tensor : broken["tensors"]) {
    if (tensor[0] == "model.norm.weight") tensor[2] = 1e38;
  }
  for (Json& tensor : broken["tensors"]) {
    if (tensor[0] == "model.embed_tokens.weight") tensor[3] = 1e38;
  }
  test::write_golden_checkpoint(broken, folder.path());
  const Decoder decoder = Decoder::load(Checkpoint(folder.path()), {});
  const GenerationResult found = generate_continuously(decoder, {tokens(1, 3)}, {}).rows[0];
  EXPECT_TRUE(found.broken);
  EXPECT_TRUE(found.ids.empty());
  EXPECT_TRUE(generate(decoder, {tokens(1, 3)}, {})[0].broken);
}

}  // namespace
}  // namespace salient::models
