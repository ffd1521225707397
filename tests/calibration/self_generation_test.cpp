#include "calibration/self_generation.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "common/json.h"
#include "models/decoder/decoder.h"
#include "models/decoder/decoder_config.h"
#include "support/counting_allocator.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"

namespace salient::calibration {
namespace {

using models::TokenId;
using Rows = std::vector<std::vector<TokenId>>;

const std::string kModel = std::string(SALIENT_SOURCE_DIR) + "/tests/data/decoder/llama";  // 64 tokens
constexpr uint64_t kPlenty = uint64_t{1} << 28;

// Counted from the start: no tensor may come from another allocator.
test::CountingAllocator& counter = test::CountingAllocator::install();

SelfGenerationOptions rows_of(int64_t rows, int64_t row_tokens, uint64_t seed = 1) {
  SelfGenerationOptions options;
  options.tokens = rows * row_tokens;
  options.row_tokens = row_tokens;
  options.seed = seed;
  options.memory_bytes = kPlenty;
  return options;
}

struct Model {
  explicit Model(const std::filesystem::path& folder) : checkpoint(folder), config(models::load_decoder_config(checkpoint)) {
    at::set_num_threads(1);  // the models are so small that threads cost more than they bring
  }
  Rows generate(const SelfGenerationOptions& options) const { return generate_rows(checkpoint, config, options); }

  models::Checkpoint checkpoint;
  models::DecoderConfig config;
};

TEST(SelfGeneration, TheSeedDecides) {
  const Model model(kModel);
  const Rows rows = model.generate(rows_of(4, 24));
  EXPECT_EQ(model.generate(rows_of(4, 24)), rows);
  const Rows others = model.generate(rows_of(4, 24, 2));
  for (size_t i = 0; i < rows.size(); ++i) {
    EXPECT_NE(others[i], rows[i]) << i;
    for (size_t j = 0; j < i; ++j) EXPECT_NE(rows[i], rows[j]) << i << " " << j;
  }
  // A row does not depend on how many follow.
  const Rows more = model.generate(rows_of(7, 24));
  EXPECT_EQ(Rows(more.begin(), more.begin() + 4), rows);
}

TEST(SelfGeneration, TokensAreRoundedUpToWholeRows) {
  const Model model(kModel);
  for (const auto& [tokens, count] : std::vector<std::pair<int64_t, size_t>>{{100, 4}, {96, 3}, {97, 4}, {1, 1}, {0, 0}}) {
    SelfGenerationOptions options = rows_of(0, 32);
    options.tokens = tokens;
    const Rows rows = model.generate(options);
    EXPECT_EQ(rows.size(), count) << tokens;
    for (const auto& row : rows) {
      EXPECT_EQ(row.size(), 32u);
      for (const TokenId id : row) EXPECT_TRUE(id >= 0 && id < 64) << id;
    }
  }
  for (const auto& row : model.generate(rows_of(3, 1))) EXPECT_EQ(row.size(), 1u);
}

// Also across batches of 32, 64 and 128 rows, whose last bits hang on their size.
TEST(SelfGeneration, FewerRowsAreTheFirstOfMore) {
  const Model model(kModel);
  const Rows most = model.generate(rows_of(300, 12));
  ASSERT_EQ(most.size(), 300u);
  for (const int64_t count : {1, 31, 32, 33, 64, 130, 200, 257})
    EXPECT_EQ(model.generate(rows_of(count, 12)), Rows(most.begin(), most.begin() + count)) << count;
}

TEST(SelfGeneration, BatchesThatAreDoneAreNotWrittenAgain) {
  const Model model(kModel);
  const Rows expected = model.generate(rows_of(70, 12));
  const test::TemporaryFolder folder;
  SelfGenerationOptions options = rows_of(70, 12);
  options.cache = folder.path() / "rows";
  // Stopped in the second batch: the first is there.
  struct Stopped {};
  options.on_progress = [](int64_t done, int64_t) {
    if (done == 20) throw Stopped{};
  };
  EXPECT_THROW(model.generate(options), Stopped);
  int64_t steps = 0;
  options.on_progress = [&](int64_t, int64_t total) {
    ++steps;
    EXPECT_EQ(total, 3 * 12);
  };
  EXPECT_EQ(model.generate(options), expected);
  EXPECT_EQ(steps, 2 * 12);
  // What is there is what is used, for fewer rows too; what is damaged is written again.
  EXPECT_EQ(model.generate(options), expected);
  EXPECT_EQ(steps, 2 * 12);
  std::filesystem::resize_file(options.cache / "rows_32_32.npy", 100);
  EXPECT_EQ(model.generate(options), expected);
  EXPECT_EQ(steps, 3 * 12);
  std::filesystem::remove(options.cache / "rows_64_32.npy");
  options.tokens = 40 * 12;
  EXPECT_EQ(model.generate(options), Rows(expected.begin(), expected.begin() + 40));
  EXPECT_EQ(steps, 3 * 12);
}

TEST(SelfGeneration, OpeningsAreUsedInTurn) {
  const Model model(kModel);
  SelfGenerationOptions options = rows_of(7, 12);
  options.openings = {{5, 6, 7}, {8}, {}};
  const Rows rows = model.generate(options);
  ASSERT_EQ(rows.size(), 7u);
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto& opening = options.openings[i % 3];
    EXPECT_EQ(std::vector<TokenId>(rows[i].begin(), rows[i].begin() + static_cast<int64_t>(opening.size())), opening) << i;
  }
  // The token after the opening is the row's own.
  std::set<TokenId> own;
  options.openings = {{5, 6, 7}};
  options.tokens = 40 * options.row_tokens;
  for (const auto& row : model.generate(options)) own.insert(row[3]);
  EXPECT_GT(own.size(), 15u);
  // An opening that is longer than the row.
  options.openings = {std::vector<TokenId>(30, 9)};
  EXPECT_EQ(model.generate(options)[0], std::vector<TokenId>(12, 9));
}

TEST(SelfGeneration, EndIdsGoOnWithTheNextOpening) {
  const Model model(kModel);
  SelfGenerationOptions options = rows_of(6, 60);
  options.openings = {{1, 10, 11}, {1, 20}, {1, 30, 31, 32}};
  for (TokenId id = 40; id < 50; ++id) options.end_ids.push_back(id);
  const Rows rows = model.generate(options);
  size_t ends = 0;
  for (size_t number = 0; number < rows.size(); ++number) {
    const auto& row = rows[number];
    size_t at = 0;
    for (size_t opening = number; at < row.size(); ++opening) {
      for (const TokenId id : options.openings[opening % 3]) {
        if (at < row.size()) {
          EXPECT_EQ(row[at], id) << "row " << number << ", token " << at;
        }
        ++at;
      }
      ++at;  // the random token, which may be any
      while (at < row.size() && (row[at] < 40 || row[at] >= 50)) ++at;
      ++at;  // the end
      ends += at < row.size() ? 1 : 0;
    }
  }
  EXPECT_GT(ends, 12u);
  options.end_ids.clear();
  EXPECT_NE(model.generate(options), rows);
}

// How many rows are written at a time and what stays in memory changes the time only.
TEST(SelfGeneration, RowsDoNotDependOnTheMemory) {
  int between = 0;  // runs with some rows at a time
  for (const char* model_type : {"llama", "gemma3_text", "mixtral", "deepseek_v3", "qwen3_next"}) {
    SCOPED_TRACE(model_type);
    const test::TemporaryFolder folder;
    test::write_golden_checkpoint(read_json_file(test::golden_file(model_type)).at("cases").at(0), folder.path() / "model");
    const Model model(folder.path() / "model");
    SelfGenerationOptions options = rows_of(5, 20);
    options.openings = {{3, 4}, {5, 6, 7}};
    options.end_ids = {10, 11, 12};
    std::set<int64_t> steps;
    int64_t done = 0;
    int64_t calls = 0;
    options.on_progress = [&](int64_t now, int64_t total) {
      ++calls;
      EXPECT_EQ(now, calls);
      done = now;
      steps.insert(total);
    };
    const Rows rows = model.generate(options);
    EXPECT_EQ(steps, std::set<int64_t>({20}));  // all rows at once
    EXPECT_EQ(done, 20);
    for (const uint64_t memory : {uint64_t{0}, uint64_t{100000}, uint64_t{400000}}) {
      calls = 0;
      steps.clear();
      options.memory_bytes = memory;
      EXPECT_EQ(model.generate(options), rows) << memory;
      ASSERT_EQ(steps.size(), 1u);
      EXPECT_EQ(done, *steps.begin());
      between += *steps.begin() > 20 && *steps.begin() < 100 ? 1 : 0;
      if (memory > 0) continue;
      EXPECT_EQ(*steps.begin(), 100);  // row by row
    }
  }
  EXPECT_GE(between, 3);
}

// How far counts are from what they are expected to be, in standard deviations: chi-square, cells that expect less than 5 together.
struct ChiSquare {
  double sum = 0;
  double freedom = 0;
  void add(const std::vector<double>& expected, const std::vector<double>& found) {
    double rest_expected = 0;
    double rest_found = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      if (expected[i] < 5) {
        rest_expected += expected[i];
        rest_found += found[i];
      } else {
        cell(expected[i], found[i]);
      }
    }
    if (rest_expected > 0) cell(std::max(rest_expected, 1.0), rest_found);
    freedom -= 1;
  }
  void cell(double expected, double found) {
    sum += (found - expected) * (found - expected) / expected;
    freedom += 1;
  }
  double deviation() const { return (sum - freedom) / std::sqrt(2 * freedom); }
};

// Rows of an opening, a random token and one that the model draws: how the drawn ones fit the softmax at `temperature`, given the
// random one.
double deviation(const Rows& rows, const at::Tensor& logits, double temperature) {
  const at::Tensor expected = at::softmax(logits.to(at::kDouble) / temperature, 1).contiguous();
  ChiSquare result;
  for (int64_t given = 0; given < 64; ++given) {
    std::vector<double> found(64, 0.0);
    double count = 0;
    for (const auto& row : rows) {
      if (row[2] != given) continue;
      found[static_cast<size_t>(row[3])] += 1;
      ++count;
    }
    const at::Tensor line = (expected[given] * count).contiguous();
    result.add({line.const_data_ptr<double>(), line.const_data_ptr<double>() + 64}, found);
  }
  return result.deviation();
}

TEST(SelfGeneration, DrawsFromTheModelsDistribution) {
  const Model model(kModel);
  SelfGenerationOptions options = rows_of(40000, 4);
  options.openings = {{1, 17}};
  const models::Decoder decoder = models::Decoder::load(model.checkpoint, {});
  const at::Tensor prompts = at::stack({at::full({64}, 1, at::kLong), at::full({64}, 17, at::kLong), at::arange(64, at::kLong)}, 1);
  const at::Tensor logits = decoder.logits(decoder.hidden_states(prompts).select(1, 2));
  for (const double temperature : {1.0, 0.7}) {
    options.temperature = temperature;
    const Rows rows = model.generate(options);
    std::vector<double> random(64, 0.0);
    for (const auto& row : rows) random[static_cast<size_t>(row[2])] += 1;
    ChiSquare uniform;
    uniform.add(std::vector<double>(64, 40000 / 64.0), random);
    EXPECT_LT(std::abs(uniform.deviation()), 4.0);
    EXPECT_LT(std::abs(deviation(rows, logits, temperature)), 4.0) << temperature;
    EXPECT_GT(deviation(rows, logits, 1.3 * temperature), 10.0);  // it would be noticed
    EXPECT_GT(deviation(rows, logits.roll(1, 0), temperature), 10.0);
  }
}

// Caches, states of linear attention and the probabilities of all rows that are written at a time count, too.
TEST(SelfGeneration, StaysWithinTheMemory) {
  struct Case {
    const char* model_type;
    int64_t vocabulary;
    int64_t row_tokens;
    uint64_t memory;
  };
  for (const Case& item :
       {Case{"llama", 8192, 8, 8u << 20}, Case{"llama", 96, 60, 4u << 20}, Case{"qwen3_next", 96, 4, 2u << 20}}) {
    SCOPED_TRACE(testing::Message() << item.model_type << " " << item.vocabulary);
    Json golden = read_json_file(test::golden_file(item.model_type)).at("cases").at(0);
    for (Json& tensor : golden["tensors"]) {
      if (tensor[0] == "lm_head.weight" || tensor[0] == "model.embed_tokens.weight") tensor[1][0] = item.vocabulary;
    }
    golden["config"]["vocab_size"] = item.vocabulary;
    const test::TemporaryFolder folder;
    test::write_golden_checkpoint(golden, folder.path() / "model");
    const Model model(folder.path() / "model");
    SelfGenerationOptions options = rows_of(400, item.row_tokens);
    options.memory_bytes = item.memory;
    const uint64_t before = counter.live();
    counter.reset_peak();
    model.generate(options);
    uint64_t block = 0;  // the largest is read beside what is kept
    for (int64_t i = 0; i < model.config.num_hidden_layers; ++i)
      block = std::max(block, models::memory_bytes(models::load_block(model.checkpoint, model.config, i, at::kFloat, at::kCPU)));
    const uint64_t most = counter.peak() - before;
    RecordProperty(std::string(item.model_type) + std::to_string(item.vocabulary), static_cast<int>(most));
    EXPECT_LT(most, item.memory + block + item.memory / 4);  // activations of one block
    EXPECT_EQ(counter.live(), before);
  }
}

}  // namespace
}  // namespace salient::calibration
