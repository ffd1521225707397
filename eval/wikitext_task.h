// WikiText-2 by documents (Merity et al. 2016), as lm_eval/tasks/wikitext/preprocess_wikitext.py does it: pages are detokenised
// before they are scored, while words and bytes are counted on the page as it was.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "eval/document_record.h"

namespace salient::eval {

// Rows {"page": text} of wiki.test.raw: a page begins at each line "= Title =". As the data set EleutherAI/wikitext_document_level
// is made.
std::vector<Json> wikitext_pages(std::string_view text);

// The text that is scored, of the column page.
Json wikitext_detokenized_page(const Json& row, const std::string& where);

// word_perplexity, byte_perplexity and bits_per_byte: the text's log-likelihood, weighted by the page's words or bytes.
std::vector<Score> score_wikitext(const Json& row, const Response& response, const std::string& where);

}  // namespace salient::eval
