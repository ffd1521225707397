#include "models/text/text_stream.h"

namespace salient::models {

std::string TextStream::rest() const {
  const std::string before = tokenizer_.decode(std::span(ids_).first(told_), /*skip_special_tokens=*/true);
  const std::string all = tokenizer_.decode(ids_, /*skip_special_tokens=*/true);
  return all.size() > before.size() ? all.substr(before.size()) : std::string();
}

std::string TextStream::push(TokenId id) {
  ids_.push_back(id);
  std::string piece = rest();
  if (piece.empty() || piece.ends_with("\xEF\xBF\xBD")) return {};
  ids_.erase(ids_.begin(), ids_.begin() + static_cast<std::ptrdiff_t>(told_));
  told_ = ids_.size();
  return piece;
}

std::string TextStream::finish() {
  std::string piece = rest();
  ids_.clear();
  told_ = 0;
  return piece;
}

}  // namespace salient::models
