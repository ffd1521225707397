#include "eval/token_tree.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <unordered_map>

namespace salient::eval {
namespace {

using models::TokenId;
constexpr size_t kLeastShared = 4;
constexpr size_t kLeastSharedPart = 4;  // a quarter

size_t common_prefix(const std::vector<TreeInput>& inputs) {
  if (inputs.empty()) return 0;
  size_t shared = inputs.front().ids.size();
  for (const TreeInput& input : inputs) {
    shared = std::min(shared, input.ids.size() - static_cast<size_t>(input.scored));
    const auto [mine, its] = std::mismatch(inputs.front().ids.begin(),
                                           inputs.front().ids.begin() + static_cast<std::ptrdiff_t>(shared), input.ids.begin());
    shared = static_cast<size_t>(mine - inputs.front().ids.begin());
  }
  return shared;
}

// A tree that grows.
class Planter {
 public:
  // How many of the input's tokens are there.
  size_t shared(std::span<const TokenId> ids) const {
    int32_t at = -1;
    size_t count = 0;
    for (const TokenId id : ids) {
      const auto found = children_.find(key(at, id));
      if (found == children_.end()) break;
      at = found->second;
      ++count;
    }
    return count;
  }

  void add(std::span<const TokenId> ids, size_t input) {
    int32_t at = -1;
    for (const TokenId id : ids) {
      const auto [found, is_new] = children_.try_emplace(key(at, id), static_cast<int32_t>(tree_.ids.size()));
      if (is_new) {
        tree_.ids.push_back(id);
        tree_.parents.push_back(at);
      }
      at = found->second;
    }
    tree_.inputs.push_back(input);
    tree_.ends.push_back(at);
  }

  const TokenTree& tree() const { return tree_; }
  TokenTree take() {
    children_.clear();
    return std::exchange(tree_, {});
  }

 private:
  static uint64_t key(int32_t parent, TokenId id) {
    return (static_cast<uint64_t>(static_cast<uint32_t>(parent)) << 32) | static_cast<uint32_t>(id);
  }

  TokenTree tree_;
  std::unordered_map<uint64_t, int32_t> children_;
};

}  // namespace

TokenForest plant(const std::vector<TreeInput>& inputs, const ForestOptions& options) {
  TokenForest forest;
  if (inputs.empty()) return forest;
  const size_t prefix = common_prefix(inputs);
  if (static_cast<int64_t>(prefix) >= options.least_prefix) {
    forest.prefix.assign(inputs.front().ids.begin(), inputs.front().ids.begin() + static_cast<std::ptrdiff_t>(prefix));
  }
  Planter planter;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const std::span<const TokenId> ids = std::span(inputs[i].ids).subspan(forest.prefix.size());
    const size_t shared = planter.shared(ids);
    const bool joins = shared >= kLeastShared && shared * kLeastSharedPart >= ids.size() &&
                       planter.tree().size() + static_cast<int64_t>(ids.size() - shared) <= options.max_tree_tokens;
    const bool is_there = shared == ids.size() && i > 0;
    if (!planter.tree().ids.empty() && !joins && !is_there) forest.trees.push_back(planter.take());
    planter.add(ids, i);
  }
  forest.trees.push_back(planter.take());
  return forest;
}

at::Tensor visible_tokens(const TokenTree& tree) {
  bool line = true;
  for (size_t i = 0; i < tree.parents.size(); ++i) line = line && tree.parents[i] == static_cast<int32_t>(i) - 1;
  if (line) return {};
  const int64_t size = tree.size();
  const at::Tensor visible = at::zeros({size, size}, at::kBool);
  bool* rows = visible.mutable_data_ptr<bool>();
  for (int64_t i = 0; i < size; ++i) {
    const int32_t parent = tree.parents[static_cast<size_t>(i)];
    if (parent >= 0) std::copy_n(rows + parent * size, parent + 1, rows + i * size);
    rows[i * size + i] = true;
  }
  return visible;
}

std::vector<int64_t> positions(const TokenTree& tree, int64_t prefix_tokens) {
  std::vector<int64_t> out;
  out.reserve(tree.ids.size());
  for (const int32_t parent : tree.parents) out.push_back(parent < 0 ? prefix_tokens : out[static_cast<size_t>(parent)] + 1);
  return out;
}

std::vector<int32_t> path_end(const TokenTree& tree, int32_t end, int64_t count) {
  std::vector<int32_t> path(static_cast<size_t>(count));
  for (auto at = path.rbegin(); at != path.rend(); ++at) {
    *at = end;
    end = tree.parents[static_cast<size_t>(end)];
  }
  return path;
}

}  // namespace salient::eval
