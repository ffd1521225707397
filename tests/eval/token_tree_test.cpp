// Inputs as trees: what is shared, where tokens stand, what sees what.
#include "eval/token_tree.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <random>

namespace salient::eval {
namespace {

using models::TokenId;
using Ids = std::vector<TokenId>;

Ids text_of(const TokenForest& forest, const TokenTree& tree, size_t input) {
  Ids ids;
  for (int32_t at = tree.ends[input]; at >= 0; at = tree.parents[static_cast<size_t>(at)])
    ids.insert(ids.begin(), tree.ids[static_cast<size_t>(at)]);
  ids.insert(ids.begin(), forest.prefix.begin(), forest.prefix.end());
  return ids;
}

TEST(TokenTree, ChoicesShareTheirQuestion) {
  const TokenForest forest =
      plant({{{1, 2, 3, 4, 5, 9}, 2}, {{1, 2, 3, 4, 5, 8, 7}, 3}, {{1, 2, 3, 4, 5}, 1}, {{6, 6, 6, 6, 6}, 1}});
  EXPECT_TRUE(forest.prefix.empty());
  ASSERT_EQ(forest.trees.size(), 2u);
  const TokenTree& tree = forest.trees[0];
  EXPECT_EQ(tree.ids, (Ids{1, 2, 3, 4, 5, 9, 8, 7}));
  EXPECT_EQ(tree.parents, (std::vector<int32_t>{-1, 0, 1, 2, 3, 4, 4, 6}));
  EXPECT_EQ(tree.inputs, (std::vector<size_t>{0, 1, 2}));
  EXPECT_EQ(tree.ends, (std::vector<int32_t>{5, 7, 4}));
  EXPECT_EQ(positions(tree, 10), (std::vector<int64_t>{10, 11, 12, 13, 14, 15, 15, 16}));
  EXPECT_EQ(path_end(tree, 7, 3), (std::vector<int32_t>{4, 6, 7}));
  EXPECT_FALSE(visible_tokens(forest.trees[1]).defined());  // a line
}

TEST(TokenTree, ThePrefixLeavesWhatIsScored) {
  Ids shared(40, 3);
  Ids a = shared;
  Ids b = shared;
  a.push_back(1);
  b.push_back(2);
  EXPECT_EQ(plant({{a, 1}, {b, 1}}).prefix.size(), 40u);
  EXPECT_EQ(plant({{a, 1}, {b, 5}}).prefix.size(), 36u);            // four shared tokens are scored
  EXPECT_EQ(plant({{a, 1}, {b, 30}}).prefix.size(), 0u);            // eleven are not worth a run
  EXPECT_EQ(plant({{shared, 1}, {shared, 1}}).prefix.size(), 39u);  // the last one is asked
}

TEST(TokenTree, AreBoundedAndKeepEveryInput) {
  std::mt19937 random(5);
  std::vector<TreeInput> inputs;
  for (int document = 0; document < 60; ++document) {
    Ids question(5 + random() % 40);
    for (TokenId& id : question) id = static_cast<TokenId>(random() % 50);
    for (int choice = 0; choice < 5; ++choice) {
      Ids ids = question;
      for (size_t i = random() % 12; i > 0; --i) ids.push_back(static_cast<TokenId>(random() % 3));
      inputs.push_back({ids, 1 + static_cast<int64_t>(random() % std::min<size_t>(4, ids.size()))});
    }
  }
  const TokenForest forest = plant(inputs, {.max_tree_tokens = 64});
  size_t next = 0;
  int64_t tokens = 0;
  int64_t all = 0;
  for (const TokenTree& tree : forest.trees) {
    EXPECT_LE(tree.size(), 64);
    tokens += tree.size();
    for (size_t i = 0; i < tree.inputs.size(); ++i) {
      EXPECT_EQ(tree.inputs[i], next);
      EXPECT_EQ(text_of(forest, tree, i), inputs[next].ids);
      all += static_cast<int64_t>(inputs[next].ids.size());
      ++next;
    }
    // Every token sees its text and nothing else.
    const at::Tensor visible = visible_tokens(tree);
    if (!visible.defined()) continue;
    at::Tensor expected = at::zeros_like(visible);
    for (int64_t i = 0; i < tree.size(); ++i) {
      for (auto j = static_cast<int32_t>(i); j >= 0; j = tree.parents[static_cast<size_t>(j)]) expected[i][j] = true;
    }
    EXPECT_TRUE(at::equal(visible, expected));
  }
  EXPECT_EQ(next, inputs.size());
  EXPECT_LT(tokens, all / 2);  // five choices share a question of 25 tokens on average
}

}  // namespace
}  // namespace salient::eval
