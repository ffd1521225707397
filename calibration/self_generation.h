// Calibration rows that the model writes itself.
//
// Error-compensated rounding fits the errors to the calibration text: they are moved to where that text has no energy, and another
// kind of text pays. A fine-tuned model knows which kinds there are: a small share of rows sampled from it covers what a narrow
// calibration set leaves out (the idea of self-calibration: Williams et al., "Self-calibration for Language Model Quantization and
// Pruning", arXiv 2410.17170; how a conversation is started: Xu et al., "Magpie", arXiv 2406.08464). What this is worth is measured
// in docs/quantization.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <vector>

#include "common/ranks.h"
#include "models/decoder/decoder_config.h"
#include "models/io/checkpoint.h"
#include "models/text/tokenizer.h"

namespace salient::calibration {

struct SelfGenerationOptions {
  int64_t tokens = 1024;  // in all, rounded up to whole rows
  int64_t row_tokens = 64;
  double temperature = 1.0;
  uint64_t seed = 0;
  // What rows begin with, in turn; a random token of the vocabulary follows. Empty: only that token.
  std::vector<std::vector<models::TokenId>> openings;
  std::vector<models::TokenId> end_ids;  // end a document; the row goes on with the next opening
  uint64_t memory_bytes = 0;             // of weights that stay loaded and of the cache (see models/decoder/streamed_decoder.h)
  std::filesystem::path cache;           // a folder for this model's rows with these options, `tokens` aside; empty = none
  std::function<void(int64_t done, int64_t total)> on_progress;  // steps, of this rank where there are several
  // The processes that share the batches out among them, all of which call with the same and get the same; null = this one alone.
  Ranks* ranks = nullptr;
};

// The same model, options and machine give the same rows, and fewer tokens the first of them: rows are always written in the same
// batches, of 32 rows at first and up to 128 later, as far as the memory holds them. A batch is kept in `cache` once it is done, so
// that a stopped call goes on at the next one and other calls find it. Errors: those of loading the checkpoint; io.
std::vector<std::vector<models::TokenId>> generate_rows(const models::Checkpoint& checkpoint, const models::DecoderConfig& config,
                                                        const SelfGenerationOptions& options);

}  // namespace salient::calibration
