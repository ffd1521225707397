// Inputs of a model as trees: a beginning that several have in common is one branch, run once. Choices share their question,
// questions their passage, all rows of a task the examples in front of them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "models/text/tokenizer.h"

namespace salient::eval {

struct TreeInput {
  std::vector<models::TokenId> ids;
  int64_t scored = 1;  // tokens at its end whose next token is asked for: they lie in a tree, never in the prefix
};

struct TokenTree {
  std::vector<models::TokenId> ids;
  std::vector<int32_t> parents;  // of each token the index of the one before it in its text; -1: the prefix, or nothing
  // Inputs in order: which they are, and their last token. The ones before it follow from `parents`.
  std::vector<size_t> inputs;
  std::vector<int32_t> ends;

  int64_t size() const { return static_cast<int64_t>(ids.size()); }
};

struct TokenForest {
  std::vector<models::TokenId> prefix;  // in front of every tree; empty where that is not worth a run of its own
  std::vector<TokenTree> trees;         // in the order of the inputs
};

struct ForestOptions {
  int64_t max_tree_tokens = 1024;  // where an input alone is not longer: a tree's attention costs the square of it
  int64_t least_prefix = 16;
};

// An input joins the tree of the one before where at least 4 of its tokens, and a quarter, are there already.
TokenForest plant(const std::vector<TreeInput>& inputs, const ForestOptions& options = {});

// bool [tokens, tokens]: visible[i][j] = j stands before i in a text, or is i. Undefined where the tree is one line.
at::Tensor visible_tokens(const TokenTree& tree);
// Places in the text of each token, the prefix's length for the first.
std::vector<int64_t> positions(const TokenTree& tree, int64_t prefix_tokens);
// The last `count` tokens up to `end`, in order.
std::vector<int32_t> path_end(const TokenTree& tree, int32_t end, int64_t count);

}  // namespace salient::eval
