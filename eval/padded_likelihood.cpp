#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "eval/likelihood_journal.h"
#include "eval/memory_pieces.h"
#include "eval/token_scores.h"

namespace salient::eval {
namespace {

using models::TokenId;

class PaddedRun {
 public:
  PaddedRun(const LanguageModel& model, const ScoredInputs& scored, const LikelihoodOptions& options)
      : model_(model),
        scored_(scored),
        options_(options),
        journal_(options.journal, scored),
        order_(scored.inputs.size()),
        out_(scored.continuations.size()) {
    std::iota(order_.begin(), order_.end(), size_t{0});
    std::stable_sort(order_.begin(), order_.end(), [&](size_t a, size_t b) { return length(a) > length(b); });
  }

  std::vector<Likelihood> run() {
    int64_t done = 0;
    for (size_t begin = 0; begin < order_.size();) {
      const auto rows = static_cast<size_t>(std::max<int64_t>(1, options_.batch_tokens / length(order_[begin])));
      size_t end = std::min(order_.size(), begin + rows);
      if (options_.watch.wants_equal_lengths(model_.decoder.config())) {
        while (length(order_[end - 1]) != length(order_[begin])) --end;
      }
      const std::span<const size_t> inputs = std::span(order_).subspan(begin, end - begin);
      const LikelihoodUnit unit{inputs, key_of(inputs)};
      if (!journal_.read(std::span(&unit, 1), out_)) {
        pieces_.run(0, static_cast<int64_t>(inputs.size()), [&](int64_t first, int64_t count) {
          run_batch(inputs.subspan(static_cast<size_t>(first), static_cast<size_t>(count)));
        });
        journal_.write(std::span(&unit, 1), out_);
      }
      done += static_cast<int64_t>(requests_of(scored_, inputs).size());
      if (options_.progress) options_.progress(done, static_cast<int64_t>(out_.size()));
      begin = end;
    }
    return std::move(out_);
  }

 private:
  int64_t length(size_t input) const { return static_cast<int64_t>(scored_.inputs[input].ids.size()); }

  // Padding may change the last bits, so the batch is the unit.
  std::string key_of(std::span<const size_t> inputs) const {
    if (!journal_.is_there()) return {};
    JournalKey key(*options_.journal, "padded loglikelihood");
    for (const size_t input : inputs) {
      key.add(scored_.inputs[input].ids);
      journal_.add_requests(key, input);
    }
    return key.hex();
  }

  void run_batch(std::span<const size_t> inputs) {
    const int64_t longest = length(inputs.front());
    std::vector<std::vector<TokenId>> rows;
    std::vector<int64_t> positions;  // in the flattened batch
    std::vector<NextToken> next;
    std::vector<size_t> requests;  // of each of `next`
    for (const size_t input : inputs) {
      const int64_t row_end = static_cast<int64_t>(rows.size()) * longest + length(input);
      const int64_t scored = scored_.inputs[input].scored;
      const auto first = static_cast<int64_t>(positions.size());
      for (int64_t i = 0; i < scored; ++i) positions.push_back(row_end - scored + i);
      for (int64_t i = 0; i < scored; ++i) {
        for (const size_t request : scored_.requests[input]) {
          const std::vector<TokenId>& continuation = scored_.continuations[request];
          const int64_t token = i - (scored - static_cast<int64_t>(continuation.size()));
          if (token < 0) continue;
          next.push_back({first + i, continuation[static_cast<size_t>(token)]});
          requests.push_back(request);
        }
      }
      rows.push_back(scored_.inputs[input].ids);
    }
    const at::Device device = model_.decoder.options().device;
    const at::Tensor hidden =
        model_.decoder.hidden_states(pad_right(rows, 0, device), {}, nullptr, options_.watch.right_padded(rows));
    for (const auto& row : rows) options_.watch.tell(row);
    const at::Tensor wanted = hidden.flatten(0, 1).index_select(0, at::tensor(positions, at::kLong).to(device));
    const TokenScores scores = score_next(model_.decoder, wanted, next);
    std::vector<LikelihoodSum> sums(out_.size());
    for (size_t i = 0; i < next.size(); ++i) sums[requests[i]].add(scores.log_probs[i], scores.is_top[i] != 0);
    for (const size_t request : requests) {
      out_[request] = sums[request].value();
      if (!std::isfinite(out_[request].log_prob)) fail_not_finite(model_.name, "at document " + scored_.documents[request]);
    }
  }

  const LanguageModel& model_;
  const ScoredInputs& scored_;
  const LikelihoodOptions& options_;
  LikelihoodJournal journal_;
  std::vector<size_t> order_;
  MemoryPieces pieces_{options_.watch.observer == nullptr};
  std::vector<Likelihood> out_;
};

}  // namespace

std::vector<Likelihood> padded_likelihood(const LanguageModel& model, const ScoredInputs& scored,
                                          const LikelihoodOptions& options) {
  const c10::InferenceMode inference;
  return PaddedRun(model, scored, options).run();
}

}  // namespace salient::eval
