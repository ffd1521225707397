// The order of a data file's columns. Rows are JSON objects with sorted keys here; the hashes of lm-evaluation-harness are taken
// over rows in the order of their file.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "common/json.h"

namespace salient::eval {

// Names in the order of their first appearance, with the columns inside of objects and of lists of objects below them.
struct RowOrder {
  struct Column;
  std::vector<Column> columns;
};
struct RowOrder::Column {
  std::string name;
  RowOrder inner;
};

// Of JSON lines, a JSON list or {"data": [...]}, and the header of a CSV or TSV file; of other files none. Errors: not found, io.
RowOrder read_row_order(const std::filesystem::path& file);

// The row as Hugging Face's `datasets` gives it: columns in order, those that it lacks as null, others behind them, `last` (what a
// task adds) at the end.
OrderedJson ordered_row(const Json& row, const RowOrder& order, const std::vector<std::string>& last = {});

}  // namespace salient::eval
