#include "common/table.h"

#include <algorithm>
#include <cctype>
#include <numeric>

#include "common/error.h"
#include "common/text.h"

namespace salient {
namespace {

constexpr size_t kGap = 2;
constexpr size_t kNarrowest = 8;

// Starts with a digit, perhaps behind a sign, and has no letter words longer than a unit.
bool looks_numeric(std::string_view cell) {
  for (const std::string_view sign : {"+", "-", "±", "~", "<", ">"}) {
    if (cell.starts_with(sign)) {
      cell.remove_prefix(sign.size());
      break;
    }
  }
  if (cell == "nan" || cell == "inf") return true;
  if (cell.empty() || !std::isdigit(static_cast<unsigned char>(cell.front()))) return false;
  size_t letters = 0;
  for (const char c : cell) {
    letters = std::isalpha(static_cast<unsigned char>(c)) ? letters + 1 : 0;
    if (letters > 3 || c == '_' || c == ':' || c == '\\') return false;
  }
  return std::count(cell.begin(), cell.end(), '-') <= 1 && cell.find("..") == std::string_view::npos;
}

bool is_filled(const std::string& cell) { return !cell.empty() && cell != "-"; }

}  // namespace

std::string format_table(const std::vector<std::string>& titles, const std::vector<std::vector<std::string>>& rows,
                         const TableOptions& options) {
  const size_t count = titles.size();
  std::vector<std::vector<std::string>> lines{titles};
  for (const auto& row : rows) {
    if (row.size() > count) fail(ErrorKind::kInternal, "table: a row has {} cells, the titles are {}", row.size(), count);
    lines.push_back(row);
    lines.back().resize(count);
  }
  std::vector<size_t> widths(count, 0);
  std::vector<bool> numeric(count, !rows.empty());
  for (size_t i = 0; i < lines.size(); ++i) {
    for (size_t column = 0; column < count; ++column) {
      std::string& cell = lines[i][column];
      cell = one_line(cell);
      widths[column] = std::max(widths[column], display_width(cell));
      if (i > 0 && is_filled(cell) && !looks_numeric(cell)) numeric[column] = false;
    }
  }

  const auto total = [&] {
    return options.indent + std::accumulate(widths.begin(), widths.end(), kGap * (count > 0 ? count - 1 : 0));
  };
  while (options.max_width > 0 && total() > options.max_width) {
    size_t widest = count;
    for (size_t column = 0; column < count; ++column) {
      const size_t least = std::max(kNarrowest, display_width(lines[0][column]));
      if (!numeric[column] && widths[column] > least && (widest == count || widths[column] > widths[widest])) widest = column;
    }
    if (widest == count) break;
    --widths[widest];
  }

  std::string text;
  const auto append_line = [&](const std::vector<std::string>& cells) {
    std::string line(options.indent, ' ');
    for (size_t column = 0; column < count; ++column) {
      const std::string cell = shorten(cells[column], widths[column]);
      const std::string padding(widths[column] - display_width(cell), ' ');
      if (column > 0) line.append(kGap, ' ');
      line += numeric[column] ? padding + cell : cell + padding;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  };
  append_line(lines[0]);
  std::vector<std::string> rule;
  for (const size_t width : widths) rule.emplace_back(width, '-');
  append_line(rule);
  for (size_t i = 1; i < lines.size(); ++i) append_line(lines[i]);
  return text;
}

}  // namespace salient
