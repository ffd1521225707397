// Words and bytes of a text, the units of rolling log-likelihoods.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "eval/document_record.h"

namespace salient::eval {

// Pieces of re.split(r"\s+", text): an empty first or last one counts.
int64_t count_words(std::string_view text);

// word_perplexity, byte_perplexity and bits_per_byte of a text with this log-likelihood, weighted by its words or bytes of UTF-8.
std::vector<Score> weighted_scores(double log_prob, std::string_view text);

}  // namespace salient::eval
