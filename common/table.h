// Plain-text tables for the terminal.
//
//   Model            Task        Value
//   ---------------  ----------  -----
//   Qwen3-Demo       perplexity   5.31
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace salient {

struct TableOptions {
  size_t max_width =
      0;  // columns of a line; 0 = no limit. The widest text columns are cut ("…") first, none below 8 columns or its title
  size_t indent = 0;
};

// One line for the titles, one rule, one line a row, each ended by a line end. A column in which every filled cell looks like a
// number
// ("4", "-0.5", "93.1 %", "1.2 GiB", "1m 05s", "±0.3") stands right; "-" and "" count as not filled. A row shorter than the titles
// is filled up; control characters become spaces. Errors: internal, for a row longer than the titles.
std::string format_table(const std::vector<std::string>& titles, const std::vector<std::vector<std::string>>& rows,
                         const TableOptions& options = {});

}  // namespace salient
