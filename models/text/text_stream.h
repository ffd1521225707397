// Text of ids that come one at a time: each piece as soon as it is certain.
#pragma once

#include <string>
#include <vector>

#include "models/text/tokenizer.h"

namespace salient::models {

// The pieces joined are Tokenizer::decode of all ids, special tokens left out. A piece ends with a whole character: ids that hold
// the first bytes of one give nothing until the rest is there. The work for an id does not grow with the text.
class TextStream {
 public:
  // `tokenizer` must outlive the stream.
  explicit TextStream(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  // What this id adds; may be empty.
  std::string push(TokenId id);
  // What was held back: bytes that never became a character are U+FFFD each. Call once, at the end.
  std::string finish();

 private:
  std::string rest() const;

  const Tokenizer& tokenizer_;
  std::vector<TokenId> ids_;  // from the piece before the last one on: a decoder may look at what stands before an id
  size_t told_ = 0;           // ids_ whose text has been given
};

}  // namespace salient::models
