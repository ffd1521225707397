// Pieces of Markdown for model cards.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"

namespace salient::pipeline {

// Names of others: nothing of them is markup.
std::string markdown_text(std::string_view text);
// Text as above, numbers with four digits, "yes" and "no".
std::string markdown_value(const Json& value);
std::string markdown_table(const std::vector<std::string>& head, const std::vector<std::vector<std::string>>& rows);

}  // namespace salient::pipeline
