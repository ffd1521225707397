#include "models/gguf/spm_scores.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <unordered_set>

#include "common/error.h"

namespace salient::models {
namespace {

// Each cut of a token is looked up, which takes the square of its length; SentencePiece's tokens have 16 characters unless asked
// for more.
constexpr size_t kMostCutBytes = 1024;

bool starts_character(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }

// Calls `take(left, right)` for each cut between two characters.
template <typename Take>
void for_each_cut(std::string_view text, std::string_view where, Take&& take) {
  if (text.size() > kMostCutBytes) {
    fail(ErrorKind::kUnsupported, "{}: found a token of {} bytes, expected at most {} for one that merges make", where, text.size(),
         kMostCutBytes);
  }
  for (size_t cut = 1; cut < text.size(); ++cut) {
    if (starts_character(text[cut])) take(text.substr(0, cut), text.substr(cut));
  }
}

}  // namespace

std::unordered_map<std::string, float> scores_of_merges(const std::vector<TokenPair>& merges,
                                                        const std::unordered_map<std::string, int64_t>& vocab,
                                                        std::string_view where) {
  std::unordered_map<std::string, float> scores;
  std::unordered_set<std::string> pairs;  // with a byte between that is in no text
  const auto key = [](std::string_view left, std::string_view right) { return std::string(left) + '\xFF' + std::string(right); };
  std::string current;
  for (const auto& [left, right] : merges) {
    pairs.insert(key(left, right));
    std::string token = left + right;
    if (token == current) continue;
    if (!scores.emplace(token, -static_cast<float>(scores.size() + 1)).second) {
      fail(ErrorKind::kUnsupported,
           "{}: merges that make '{}' stand in several places: they have no scores, and llama.cpp's model 'llama' needs them",
           where, token);
    }
    current = std::move(token);
  }
  for (const auto& [token, id] : vocab) {
    for_each_cut(token, where, [&](std::string_view left, std::string_view right) {
      if (!vocab.contains(std::string(left)) || !vocab.contains(std::string(right)) || pairs.contains(key(left, right))) return;
      fail(ErrorKind::kUnsupported,
           "{}: '{}' and '{}' make the token '{}' and no merge says so: the tokenizer is not one of SentencePiece, and llama.cpp's "
           "model 'llama' would merge them",
           where, left, right, token);
    });
  }
  return scores;
}

std::vector<TokenPair> merges_of_scores(const std::vector<std::pair<std::string, float>>& tokens, std::string_view where) {
  std::unordered_map<std::string_view, size_t> ids;
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (!tokens[id].first.empty()) ids.emplace(tokens[id].first, id);
  }
  struct Merge {
    float score;
    size_t left, right;
  };
  std::vector<Merge> merges;
  for (const auto& [token, id] : ids) {
    for_each_cut(token, where, [&](std::string_view left, std::string_view right) {
      const auto l = ids.find(left);
      const auto r = ids.find(right);
      if (l == ids.end() || r == ids.end()) return;
      if (std::isnan(tokens[id].second)) fail(ErrorKind::kCorruption, "{}: the score of token {} is no number", where, id);
      merges.push_back({tokens[id].second, l->second, r->second});
    });
  }
  std::sort(merges.begin(), merges.end(), [&](const Merge& a, const Merge& b) {
    if (a.score != b.score) return a.score > b.score;
    return std::tie(a.left, a.right) < std::tie(b.left, b.right);
  });
  std::vector<TokenPair> result;
  result.reserve(merges.size());
  for (const Merge& merge : merges) result.emplace_back(tokens[merge.left].first, tokens[merge.right].first);
  return result;
}

}  // namespace salient::models
