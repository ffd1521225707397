// Rows side by side without padding against each row on its own: every architecture of the goldens, trees, prefixes, pasts.
#include "models/decoder/ragged_batch.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "models/decoder/decoder.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"
#include "support/wide_model.h"

namespace salient::models {
namespace {

using Ids = std::vector<int64_t>;

at::Tensor row_of(const Ids& ids) { return at::tensor(ids, at::kLong); }

Ids numbers(int64_t from, int64_t count, int64_t vocab_size) {
  Ids ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back((from + 7 * i) % vocab_size);
  return ids;
}

Ids joined(Ids a, const Ids& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

at::Tensor alone(const Decoder& decoder, const Ids& ids) { return decoder.hidden_states(row_of(ids).unsqueeze(0)).squeeze(0); }

// Of plain rows without a past.
RaggedBatch batch_of(const std::vector<Ids>& rows) {
  RaggedBatch batch;
  Ids ids;
  Ids positions;
  for (const Ids& row : rows) {
    ids = joined(ids, row);
    for (size_t i = 0; i < row.size(); ++i) positions.push_back(static_cast<int64_t>(i));
    batch.rows.push_back({static_cast<int64_t>(row.size()), -1, 0, {}});
  }
  batch.ids = row_of(ids);
  batch.positions = row_of(positions);
  return batch;
}

// A row's tokens behind `past` of its slot.
RaggedBatch continuation(const Ids& ids, int64_t slot, int64_t past, KvCache& cache) {
  RaggedBatch batch = batch_of({ids});
  batch.rows[0].slot = slot;
  batch.rows[0].past = past;
  batch.positions += past;
  batch.cache = &cache;
  return batch;
}

Decoder load(const Json& golden, const std::filesystem::path& folder, int kv_bits = 16) {
  test::write_golden_checkpoint(golden, folder);
  DecoderOptions options;
  options.kv_bits = kv_bits;
  return Decoder::load(Checkpoint(folder), options);
}

void expect_close(const at::Tensor& found, const at::Tensor& expected, const std::string& what) {
  ASSERT_EQ(found.sizes(), expected.sizes()) << what;
  const double bound = 2e-5 * std::max(1.0, expected.abs().max().item<double>());
  EXPECT_LE((found - expected).abs().max().item<double>(), bound) << what;
}

class RaggedBatchTest : public testing::TestWithParam<test::GoldenCase> {};

TEST_P(RaggedBatchTest, RowsAsAlone) {
  const test::TemporaryFolder folder;
  const Decoder decoder = load(GetParam().golden, folder.path());
  const int64_t vocab = decoder.config().vocab_size;
  const int64_t longest = std::min<int64_t>(24, decoder.config().max_position_embeddings);
  if (!decoder.runs_ragged(std::max<int64_t>(longest, 15))) {
    const std::string error =
        test::error_of([&] { decoder.hidden_states(batch_of({numbers(1, std::max<int64_t>(longest, 15), vocab)})); }).message();
    EXPECT_NE(error.find("side by side"), std::string::npos) << error;
    return;
  }

  // Plain rows.
  const std::vector<Ids> rows = {numbers(1, longest, vocab), numbers(3, 5, vocab), numbers(2, 1, vocab),
                                 numbers(4, longest / 2, vocab)};
  const at::Tensor hidden = decoder.hidden_states(batch_of(rows));
  int64_t begin = 0;
  for (const Ids& row : rows) {
    const at::Tensor found = hidden.narrow(0, begin, static_cast<int64_t>(row.size()));
    expect_close(found, alone(decoder, row), fmt::format("row of {}", row.size()));
    // Mixtures too, whose experts read other tokens then.
    EXPECT_TRUE(at::equal(found, decoder.hidden_states(batch_of({row})))) << "row of " << row.size();
    begin += static_cast<int64_t>(row.size());
  }
  EXPECT_TRUE(decoder.rows_are_independent());

  RaggedBatch some = batch_of(rows);
  some.wanted = row_of({longest - 1, 2, longest + 5});
  expect_close(decoder.hidden_states(some), hidden.index_select(0, some.wanted), "some tokens");

  // A text with two continuations, behind a prefix: 6 tokens, 4, then 3 and 5.
  const Ids prefix = numbers(5, 6, vocab);
  const Ids text = numbers(2, 4, vocab);
  const std::vector<Ids> ends = {numbers(1, 3, vocab), numbers(6, 5, vocab)};
  KvCache kept = decoder.make_cache(1, 6);
  decoder.hidden_states(continuation(prefix, 0, 0, kept));
  RaggedBatch tree;
  tree.ids = row_of(joined(joined(text, ends[0]), ends[1]));
  tree.positions = row_of({6, 7, 8, 9, 10, 11, 12, 10, 11, 12, 13, 14});
  tree.prefix = &kept;
  tree.prefix_tokens = 6;
  const at::Tensor visible = at::ones({12, 12}, at::kBool).tril();
  visible.narrow(0, 7, 5).narrow(1, 4, 3).fill_(false);
  tree.rows = {{12, -1, 0, visible}};
  const at::Tensor branches = decoder.hidden_states(tree);
  const Ids whole = joined(prefix, text);
  expect_close(branches.narrow(0, 0, 7), alone(decoder, joined(whole, ends[0])).narrow(0, 6, 7), "first branch");
  expect_close(branches.narrow(0, 7, 5), alone(decoder, joined(whole, ends[1])).narrow(0, 10, 5), "second branch");

  // A cache's slots: a prompt in two parts beside a row that has a token more, in slots that are not in the batch's order.
  KvCache cache = decoder.make_cache(3, longest);
  const Ids first = numbers(1, longest - 1, vocab);
  const Ids second = numbers(8, 7, vocab);
  RaggedBatch both = batch_of({first, second});
  both.rows[0].slot = 2;
  both.rows[1].slot = 0;
  both.cache = &cache;
  decoder.hidden_states(both);
  RaggedBatch next = batch_of({{1}, {2, 3}});
  next.rows = {{1, 2, longest - 1, {}}, {2, 0, 7, {}}};
  next.positions = row_of({longest - 1, 7, 8});
  next.cache = &cache;
  const at::Tensor after = decoder.hidden_states(next);
  expect_close(after.narrow(0, 0, 1), alone(decoder, joined(first, {1})).narrow(0, longest - 1, 1), "a token more");
  expect_close(after.narrow(0, 1, 2), alone(decoder, joined(second, {2, 3})).narrow(0, 7, 2), "two tokens more");
}

INSTANTIATE_TEST_SUITE_P(Architectures, RaggedBatchTest, testing::ValuesIn(test::golden_cases()),
                         [](const auto& value) { return test::golden_test_name(value.param); });

// To the bit: whatever runs beside a row, however its text was split at the bounds of blocks, and with any number of threads.
TEST(RaggedBatchBits, DependOnTheRowAlone) {
  for (const int kv_bits : {16, 8}) {
    for (const Json& changes :
         {Json::object(), Json({{"use_sliding_window", true}, {"sliding_window", 40}, {"max_window_layers", 0}})}) {
      const test::TemporaryFolder folder;
      const Decoder decoder = load(test::wide_model(changes), folder.path(), kv_bits);
      const Ids prompt = numbers(3, 150, 512);
      const auto read = [&](const std::vector<int64_t>& bounds, const std::vector<Ids>& others, int64_t slot) {
        KvCache cache = decoder.make_cache(8, 160);
        at::Tensor last;
        int64_t past = 0;
        for (const int64_t bound : bounds) {
          std::vector<Ids> rows = others;
          rows.insert(rows.begin() + static_cast<std::ptrdiff_t>(others.size() / 2),
                      Ids(prompt.begin() + past, prompt.begin() + bound));
          RaggedBatch batch = batch_of(rows);
          RaggedRow& own = batch.rows[others.size() / 2];
          own.slot = slot;
          own.past = past;
          int64_t begin = 0;
          for (size_t i = 0; i < others.size() / 2; ++i) begin += static_cast<int64_t>(others[i].size());
          batch.positions.narrow(0, begin, bound - past).add_(past);
          batch.cache = &cache;
          last = decoder.hidden_states(batch).narrow(0, begin + bound - past - 1, 1);
          past = bound;
        }
        return decoder.row_logits(last);
      };
      const at::Tensor expected = read({150}, {}, 0);
      const std::vector<Ids> others = {numbers(1, 9, 512), numbers(2, 33, 512), numbers(9, 1, 512), numbers(4, 70, 512)};
      EXPECT_TRUE(at::equal(read({150}, others, 5), expected)) << kv_bits;
      EXPECT_TRUE(at::equal(read({64, 128, 150}, others, 1), expected)) << kv_bits;
      EXPECT_TRUE(at::equal(read({128, 150}, {}, 2), expected)) << kv_bits;
      const int threads = at::get_num_threads();
      at::set_num_threads(threads == 1 ? 3 : 1);
      EXPECT_TRUE(at::equal(read({64, 150}, others, 3), expected)) << kv_bits;
      at::set_num_threads(threads);
      if (kv_bits == 16)
        expect_close(expected, decoder.row_logits(alone(decoder, prompt).narrow(0, 149, 1)), "against the general way");
    }
  }
}

TEST(RaggedBatchErrors, NameWhatDoesNotFit) {
  const test::TemporaryFolder folder;
  const Decoder decoder = load(test::wide_model(), folder.path());
  KvCache cache = decoder.make_cache(1, 4);
  EXPECT_NE(test::error_of([&] {
              decoder.hidden_states(continuation({1, 2, 3}, 0, 2, cache));
            })
                .message()
                .find("does not fit slot 0"),
            std::string::npos);
  EXPECT_NE(test::error_of([&] { decoder.hidden_states(continuation({1}, 1, 0, cache)); }).message().find("does not fit slot 1"),
            std::string::npos);
  EXPECT_NE(test::error_of([&] {
              decoder.hidden_states(batch_of({{1, 512}}));
            })
                .message()
                .find("outside the vocabulary"),
            std::string::npos);
}

}  // namespace
}  // namespace salient::models
