#include "models/text/text_stream.h"

#include <gtest/gtest.h>

namespace salient::models {
namespace {

const Tokenizer& demo() {
  static const Tokenizer tokenizer = Tokenizer::from_folder(std::string(SALIENT_SOURCE_DIR) + "/models/demo");
  return tokenizer;
}

std::vector<std::string> pieces_of(const std::vector<TokenId>& ids) {
  TextStream stream(demo());
  std::vector<std::string> pieces;
  for (const TokenId id : ids) pieces.push_back(stream.push(id));
  pieces.push_back(stream.finish());
  return pieces;
}

std::string joined(const std::vector<std::string>& pieces) {
  std::string text;
  for (const std::string& piece : pieces) text += piece;
  return text;
}

TEST(TextStream, PiecesJoinToTheDecodedText) {
  for (const std::string text : {"There are three planets.\n\nNext:  5 + 5 = 10", "caf\u00e9 \u4e2d\u6587 \U0001F600\U0001F680!",
                                 " leading", "", "\u00e9"}) {
    const std::vector<TokenId> ids = demo().encode(text, false);
    EXPECT_EQ(joined(pieces_of(ids)), demo().decode(ids, true)) << text;
    EXPECT_EQ(joined(pieces_of(ids)), text);
  }
}

TEST(TextStream, HoldsACharacterUntilItIsWhole) {
  const std::vector<TokenId> ids = demo().encode("a\U0001F680b", false);
  ASSERT_GE(ids.size(), 4u) << "the demo tokenizer has become too good for this test";
  size_t with_text = 0;
  for (const std::string& piece : pieces_of(ids)) {
    EXPECT_EQ(piece.find("\uFFFD"), std::string::npos);
    with_text += piece.empty() ? 0 : 1;
  }
  EXPECT_LT(with_text, ids.size());
}

TEST(TextStream, AnEndInsideACharacterIsToldAtTheEnd) {
  std::vector<TokenId> ids = demo().encode("a\U0001F680", false);
  ids.pop_back();
  const auto pieces = pieces_of(ids);
  EXPECT_EQ(joined(pieces), demo().decode(ids, true));
  EXPECT_NE(pieces.back().find("\uFFFD"), std::string::npos);
}

TEST(TextStream, LeavesSpecialTokensOut) {
  std::vector<TokenId> ids = demo().encode("one", false);
  TokenId special = -1;
  for (TokenId id = 0; id < demo().vocab_size() && special < 0; ++id) {
    if (demo().decode(std::vector<TokenId>{id}, true).empty() && !demo().decode(std::vector<TokenId>{id}, false).empty())
      special = id;
  }
  ASSERT_GE(special, 0);
  ids.push_back(special);
  for (const TokenId id : demo().encode(" two", false)) ids.push_back(id);
  EXPECT_EQ(joined(pieces_of(ids)), "one two");
}

}  // namespace
}  // namespace salient::models
