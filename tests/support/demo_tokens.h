// Calibration tokens of the demo model's own texts.
#pragma once

#include "calibration/token_blocks.h"
#include "models/text/dataset.h"
#include "models/text/tokenizer.h"
#include "support/demo_job.h"

namespace salient::test {

inline calibration::TokenBlocks demo_tokens(int64_t rows, int64_t max_seq_len) {
  const auto tokenizer = models::Tokenizer::from_folder(kDemo);
  std::vector<std::string> texts;
  for (const Json& row : models::read_dataset(kDemo / "data/calib_mixed.jsonl").rows) texts.push_back(row["text"]);
  texts.resize(static_cast<size_t>(rows));
  calibration::TokenBlockOptions options;
  options.rows.max_seq_len = max_seq_len;
  options.rows.from_chat_template = true;
  return calibration::make_token_blocks(texts, tokenizer, options);
}

}  // namespace salient::test
