#include "eval/row_order.h"

#include <algorithm>

#include "common/file.h"
#include "common/json_depth.h"
#include "common/text.h"

namespace salient::eval {
namespace {

void add(RowOrder& order, const OrderedJson& value) {
  if (value.is_array()) {
    for (const OrderedJson& item : value) add(order, item);
  }
  if (!value.is_object()) return;
  for (const auto& [name, inner] : value.items()) {
    auto column =
        std::find_if(order.columns.begin(), order.columns.end(), [&](const RowOrder::Column& c) { return c.name == name; });
    if (column == order.columns.end()) column = order.columns.insert(order.columns.end(), {name, {}});
    add(column->inner, inner);
  }
}

OrderedJson ordered(const Json& value, const RowOrder& order) {
  if (value.is_array()) {
    OrderedJson out = OrderedJson::array();
    for (const Json& item : value) out.push_back(ordered(item, order));
    return out;
  }
  if (value.is_object()) return ordered_row(value, order);
  return OrderedJson::parse(dump_json(value));
}

}  // namespace

RowOrder read_row_order(const std::filesystem::path& file) {
  RowOrder order;
  const std::string text = read_text_file(file);
  const std::string extension = file.extension().string();
  if (extension == ".csv" || extension == ".tsv") {
    const std::string header = text.substr(0, std::min(text.find_first_of("\r\n"), text.size()));
    for (std::string name : split(header, extension == ".csv" ? ',' : '\t')) {
      if (name.size() >= 2 && name.front() == '"' && name.back() == '"') name = name.substr(1, name.size() - 2);
      order.columns.push_back({name, {}});
    }
    return order;
  }
  const auto parse = [](std::string_view part) {
    return is_too_deep_json(part) ? OrderedJson(OrderedJson::value_t::discarded)
                                  : OrderedJson::parse(part.begin(), part.end(), nullptr, /*allow_exceptions=*/false);
  };
  const OrderedJson whole = parse(text);
  if (!whole.is_discarded()) {
    add(order, whole.is_object() && whole.contains("data") && whole["data"].is_array() ? whole["data"] : whole);
    return order;
  }
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const OrderedJson row = parse(std::string_view(text).substr(at, end - at));
    if (!row.is_discarded()) add(order, row);
    at = end + 1;
  }
  return order;
}

OrderedJson ordered_row(const Json& row, const RowOrder& order, const std::vector<std::string>& last) {
  OrderedJson out = OrderedJson::object();
  for (const RowOrder::Column& column : order.columns) {
    const auto it = row.find(column.name);
    out[column.name] = it == row.end() ? OrderedJson() : ordered(*it, column.inner);
  }
  const auto is_late = [&](const std::string& name) { return std::find(last.begin(), last.end(), name) != last.end(); };
  for (const auto& [name, value] : row.items()) {
    if (!out.contains(name) && !is_late(name)) out[name] = ordered(value, {});
  }
  for (const std::string& name : last) {
    if (row.contains(name) && !out.contains(name)) out[name] = ordered(row.at(name), {});
  }
  return out;
}

}  // namespace salient::eval
