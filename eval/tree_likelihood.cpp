#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <span>
#include <utility>

#include "eval/likelihood_journal.h"
#include "eval/memory_pieces.h"
#include "eval/token_scores.h"
#include "models/decoder/side_by_side.h"

namespace salient::eval {
namespace {

using models::TokenId;

constexpr int64_t kWorkerTokens = 512;  // to be worth a worker of its own
constexpr int64_t kLastTokens = 128;    // of a pass: with fewer, products are slower

// A next token that a request asks for behind a token of the batch.
struct Asked {
  int64_t behind = 0;
  TokenId id = 0;
  size_t request = 0;
};

// Whose answers are not in the journal.
struct OpenTree {
  const TokenTree* tree;
  LikelihoodUnit unit;
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
    find_open();
    tell_progress();
    if (open_.empty()) return std::move(out_);
    read_prefix();
    const int64_t workers = models::pass_workers(model_.decoder, std::min(open_tokens_, options_.batch_tokens), kWorkerTokens);
    models::run_side_by_side(workers, [&](int64_t worker, const std::atomic<bool>& failed) {
      MemoryPieces pieces(/*may_repeat=*/true);
      while (!failed) {
        const std::span<const OpenTree> trees = take_batch(workers);
        if (trees.empty()) break;
        pieces.run(0, static_cast<int64_t>(trees.size()), [&](int64_t begin, int64_t count) {
          const auto part = trees.subspan(static_cast<size_t>(begin), static_cast<size_t>(count));
          keep(part, run_batch(part));
        });
        if (worker == 0) tell_progress();
      }
    });
    tell_progress();
    return std::move(out_);
  }

 private:
  void find_open() {
    for (const TokenTree& tree : forest_.trees) {
      LikelihoodUnit unit{tree.inputs, key_of(tree)};
      if (journal_.read(std::span(&unit, 1), out_)) {
        done_ += count_requests(tree);
      } else {
        open_.push_back({&tree, std::move(unit)});
        open_tokens_ += tree.size();
      }
    }
  }

  int64_t count_requests(const TokenTree& tree) const { return static_cast<int64_t>(requests_of(scored_, tree.inputs).size()); }

  // The trees of the next pass. Workers that run side by side share batch_tokens, and towards the end take less at a time, so that
  // they end together.
  std::span<const OpenTree> take_batch(int64_t workers) {
    const std::lock_guard lock(mutex_);
    const int64_t share = workers == 1 ? options_.batch_tokens : std::max(kLastTokens, open_tokens_ / (2 * workers));
    const int64_t most = std::min(options_.batch_tokens / workers, share);
    const size_t begin = taken_;
    int64_t tokens = 0;
    for (; taken_ < open_.size() && (taken_ == begin || tokens + open_[taken_].tree->size() <= most); ++taken_)
      tokens += open_[taken_].tree->size();
    open_tokens_ -= tokens;
    return std::span(open_).subspan(begin, taken_ - begin);
  }

  void keep(std::span<const OpenTree> trees, const std::vector<std::pair<size_t, Likelihood>>& answers) {
    const std::lock_guard lock(mutex_);
    for (const auto& [request, answer] : answers) out_[request] = answer;
    std::vector<LikelihoodUnit> units;
    for (const OpenTree& open : trees) {
      units.push_back(open.unit);
      done_ += count_requests(*open.tree);
    }
    journal_.write(units, out_);
  }

  // In the thread that asked for the likelihoods.
  void tell_progress() {
    if (!options_.progress) return;
    int64_t done = 0;
    {
      const std::lock_guard lock(mutex_);
      done = done_;
    }
    if (done > told_) options_.progress(done, static_cast<int64_t>(out_.size()));
    told_ = done;
  }

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
  void read_prefix() {
    const auto length = static_cast<int64_t>(forest_.prefix.size());
    if (length == 0) return;
    prefix_ = model_.decoder.make_cache(1, length);
    const int64_t step = std::max(models::kQueryBlock, options_.batch_tokens / models::kQueryBlock * models::kQueryBlock);
    for (int64_t begin = 0; begin < length; begin += step) {
      const int64_t count = std::min(step, length - begin);
      models::RaggedBatch batch;
      batch.ids =
          at::tensor(std::vector<int64_t>(forest_.prefix.begin() + begin, forest_.prefix.begin() + begin + count), at::kLong);
      batch.positions = at::arange(begin, begin + count);
      batch.rows = {{count, 0, begin, {}}};
      batch.cache = &prefix_;
      model_.decoder.hidden_states(batch);
    }
  }

  // The answers to the requests of these trees.
  std::vector<std::pair<size_t, Likelihood>> run_batch(std::span<const OpenTree> trees) const {
    models::RaggedBatch batch;
    batch.prefix_tokens = static_cast<int64_t>(forest_.prefix.size());
    if (batch.prefix_tokens > 0) batch.prefix = &prefix_;
    std::vector<int64_t> ids;
    std::vector<int64_t> places;
    std::vector<Asked> asked;
    for (const OpenTree& open : trees) {
      const TokenTree& tree = *open.tree;
      const auto offset = static_cast<int64_t>(ids.size());
      ids.insert(ids.end(), tree.ids.begin(), tree.ids.end());
      const std::vector<int64_t> own = positions(tree, batch.prefix_tokens);
      places.insert(places.end(), own.begin(), own.end());
      batch.rows.push_back({tree.size(), -1, 0, visible_tokens(tree)});
      for (size_t input = 0; input < tree.inputs.size(); ++input) {
        for (const size_t request : scored_.requests[tree.inputs[input]]) {
          const std::vector<TokenId>& continuation = scored_.continuations[request];
          const std::vector<int32_t> path = path_end(tree, tree.ends[input], static_cast<int64_t>(continuation.size()));
          for (size_t t = 0; t < path.size(); ++t) asked.push_back({offset + path[t], continuation[t], request});
        }
      }
    }
    batch.ids = at::tensor(ids, at::kLong);
    batch.positions = at::tensor(places, at::kLong);
    return score(batch, std::move(asked));
  }

  // Along a path tokens stand in order, so each request's scores still do after the sort.
  std::vector<std::pair<size_t, Likelihood>> score(models::RaggedBatch& batch, std::vector<Asked> asked) const {
    std::stable_sort(asked.begin(), asked.end(), [](const Asked& a, const Asked& b) { return a.behind < b.behind; });
    std::vector<int64_t> rows;
    std::vector<NextToken> next;
    for (const Asked& one : asked) {
      if (rows.empty() || rows.back() != one.behind) rows.push_back(one.behind);
      next.push_back({static_cast<int64_t>(rows.size()) - 1, one.id});
    }
    batch.wanted = at::tensor(rows, at::kLong);
    const TokenScores scores = score_next(model_.decoder, model_.decoder.hidden_states(batch), next);
    std::map<size_t, LikelihoodSum> sums;
    for (size_t i = 0; i < asked.size(); ++i) sums[asked[i].request].add(scores.log_probs[i], scores.is_top[i] != 0);
    std::vector<std::pair<size_t, Likelihood>> answers;
    for (const auto& [request, sum] : sums) {
      if (!std::isfinite(sum.value().log_prob)) fail_not_finite(model_.name, "at document " + scored_.documents[request]);
      answers.emplace_back(request, sum.value());
    }
    return answers;
  }

  const LanguageModel& model_;
  const ScoredInputs& scored_;
  const LikelihoodOptions& options_;
  LikelihoodJournal journal_;
  TokenForest forest_;
  models::KvCache prefix_;
  std::vector<OpenTree> open_;
  int64_t told_ = 0;  // requests

  std::mutex mutex_;         // of all below
  size_t taken_ = 0;         // of open_
  int64_t open_tokens_ = 0;  // that are not taken yet
  int64_t done_ = 0;         // requests
  std::vector<Likelihood> out_;
};

}  // namespace

std::vector<Likelihood> tree_likelihood(const LanguageModel& model, const ScoredInputs& scored, const LikelihoodOptions& options) {
  const c10::InferenceMode inference;
  if (scored.inputs.empty()) return {};
  return TreeRun(model, scored, options).run();
}

}  // namespace salient::eval
