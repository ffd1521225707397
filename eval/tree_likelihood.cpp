#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <span>

#include "eval/likelihood_journal.h"
#include "eval/token_scores.h"

namespace salient::eval {
namespace {

using models::TokenId;

// A next token that a request asks for behind a token of the batch.
struct Asked {
  int64_t behind = 0;
  TokenId id = 0;
  size_t request = 0;
};

class TreeRun {
 public:
  TreeRun(const LanguageModel& model, const ScoredInputs& scored, const LikelihoodOptions& options)
      : model_(model),
        scored_(scored),
        options_(options),
        journal_(options.journal, scored),
        forest_(plant(scored.inputs)),
        out_(scored.continuations.size()) {}

  std::vector<Likelihood> run() {
    int64_t done = 0;
    for (size_t begin = 0; begin < forest_.trees.size();) {
      size_t end = begin;
      int64_t tokens = 0;
      for (; end < forest_.trees.size() && (end == begin || tokens + forest_.trees[end].size() <= options_.batch_tokens); ++end) {
        tokens += forest_.trees[end].size();
      }
      const std::span<const TokenTree> trees = std::span(forest_.trees).subspan(begin, end - begin);
      std::vector<LikelihoodUnit> units;
      for (const TokenTree& tree : trees) units.push_back({tree.inputs, key_of(tree)});
      if (!journal_.read(units, out_)) {
        run_batch(trees);
        journal_.write(units, out_);
      }
      for (const TokenTree& tree : trees) done += static_cast<int64_t>(requests_of(scored_, tree.inputs).size());
      if (options_.progress) options_.progress(done, static_cast<int64_t>(out_.size()));
      begin = end;
    }
    return std::move(out_);
  }

 private:
  // A tree is computed alike in every batch, so it is the unit.
  std::string key_of(const TokenTree& tree) const {
    if (!journal_.is_there()) return {};
    JournalKey key(*options_.journal, "loglikelihood");
    key.add(forest_.prefix).add(tree.ids);
    for (const int32_t parent : tree.parents) key.add(static_cast<int64_t>(parent));
    for (size_t i = 0; i < tree.inputs.size(); ++i) {
      key.add(static_cast<int64_t>(tree.ends[i]));
      journal_.add_requests(key, tree.inputs[i]);
    }
    return key.hex();
  }

  // Keys and values of the tokens that stand in front of every tree.
  const models::KvCache& prefix() {
    if (prefix_.rows > 0) return prefix_;
    const auto length = static_cast<int64_t>(forest_.prefix.size());
    models::KvCache cache = model_.decoder.make_cache(1, length);
    const int64_t step = std::max(models::kQueryBlock, options_.batch_tokens / models::kQueryBlock * models::kQueryBlock);
    for (int64_t begin = 0; begin < length; begin += step) {
      const int64_t count = std::min(step, length - begin);
      models::RaggedBatch batch;
      batch.ids =
          at::tensor(std::vector<int64_t>(forest_.prefix.begin() + begin, forest_.prefix.begin() + begin + count), at::kLong);
      batch.positions = at::arange(begin, begin + count);
      batch.rows = {{count, 0, begin, {}}};
      batch.cache = &cache;
      model_.decoder.hidden_states(batch);
    }
    prefix_ = std::move(cache);
    return prefix_;
  }

  void run_batch(std::span<const TokenTree> trees) {
    models::RaggedBatch batch;
    batch.prefix_tokens = static_cast<int64_t>(forest_.prefix.size());
    if (batch.prefix_tokens > 0) batch.prefix = &prefix();
    std::vector<int64_t> ids;
    std::vector<int64_t> places;
    std::vector<Asked> asked;
    for (const TokenTree& tree : trees) {
      const auto offset = static_cast<int64_t>(ids.size());
      ids.insert(ids.end(), tree.ids.begin(), tree.ids.end());
      const std::vector<int64_t> own = positions(tree, batch.prefix_tokens);
      places.insert(places.end(), own.begin(), own.end());
      batch.rows.push_back({tree.size(), -1, 0, visible_tokens(tree)});
      for (size_t i = 0; i < tree.inputs.size(); ++i) {
        for (const size_t request : scored_.requests[tree.inputs[i]]) {
          const std::vector<TokenId>& continuation = scored_.continuations[request];
          const std::vector<int32_t> path = path_end(tree, tree.ends[i], static_cast<int64_t>(continuation.size()));
          for (size_t t = 0; t < path.size(); ++t) asked.push_back({offset + path[t], continuation[t], request});
        }
      }
    }
    batch.ids = at::tensor(ids, at::kLong);
    batch.positions = at::tensor(places, at::kLong);
    score(batch, std::move(asked));
  }

  // Along a path tokens stand in order, so each request's scores still do after the sort.
  void score(models::RaggedBatch& batch, std::vector<Asked> asked) {
    std::stable_sort(asked.begin(), asked.end(), [](const Asked& a, const Asked& b) { return a.behind < b.behind; });
    std::vector<int64_t> rows;
    std::vector<NextToken> next;
    for (const Asked& one : asked) {
      if (rows.empty() || rows.back() != one.behind) rows.push_back(one.behind);
      next.push_back({static_cast<int64_t>(rows.size()) - 1, one.id});
    }
    batch.wanted = at::tensor(rows, at::kLong);
    const TokenScores scores = score_next(model_.decoder, model_.decoder.hidden_states(batch), next);
    std::vector<LikelihoodSum> sums(out_.size());
    for (size_t i = 0; i < asked.size(); ++i) sums[asked[i].request].add(scores.log_probs[i], scores.is_top[i] != 0);
    for (const Asked& one : asked) {
      out_[one.request] = sums[one.request].value();
      if (!std::isfinite(out_[one.request].log_prob)) fail_not_finite(model_.name, "at document " + scored_.documents[one.request]);
    }
  }

  const LanguageModel& model_;
  const ScoredInputs& scored_;
  const LikelihoodOptions& options_;
  LikelihoodJournal journal_;
  TokenForest forest_;
  models::KvCache prefix_;
  std::vector<Likelihood> out_;
};

}  // namespace

std::vector<Likelihood> tree_likelihood(const LanguageModel& model, const ScoredInputs& scored, const LikelihoodOptions& options) {
  const c10::InferenceMode inference;
  if (scored.inputs.empty()) return {};
  return TreeRun(model, scored, options).run();
}

}  // namespace salient::eval
