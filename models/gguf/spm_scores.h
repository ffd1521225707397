// Scores of SentencePiece's BPE from merges, and merges from scores.
//
// SentencePiece joins the two neighbours whose joined piece has the highest score, whatever the two are; Hugging Face joins the
// pair that comes first in a list. Both are the same where the list has every pair of tokens that makes a token, sorted by the
// score of that token. https://github.com/google/sentencepiece/blob/master/src/bpe_model.cc
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace salient::models {

using TokenPair = std::pair<std::string, std::string>;

// `vocab`: the tokens that merges may read and make (no control tokens, no bytes). Gives -1, -2, ... to tokens in the order in
// which merges make them, 0 to none. Errors, with `where`: unsupported for merges that are not sorted by token or that miss a pair.
std::unordered_map<std::string, float> scores_of_merges(const std::vector<TokenPair>& merges,
                                                        const std::unordered_map<std::string, int64_t>& vocab,
                                                        std::string_view where);

// All pairs of tokens that make a token, best score first, then by the ids of the two. `tokens`: text and score by id; "" = not to
// be merged. Errors, with `where`: unsupported for a token of more than 1 KiB, also in scores_of_merges.
std::vector<TokenPair> merges_of_scores(const std::vector<std::pair<std::string, float>>& tokens, std::string_view where);

}  // namespace salient::models
