#include "models/jinja/json_text.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "models/jinja/runtime.h"
#include "models/jinja/text.h"

namespace salient::models::jinja {

namespace {

class Writer {
 public:
  Writer(Runtime& runtime, const JsonStyle& style) : runtime_(runtime), style_(style) {}

  void write(const Value& value) {
    runtime_.step();
    if (const String* string = value.string()) return write_string(string->text);
    if (const Dict* dict = value.dict()) return write_dict(*dict);
    if (const List* list = value.list(); list != nullptr && !list->is_view()) return write_list(*list);
    out_ += scalar(value);
  }

  std::string take() { return std::move(out_); }

 private:
  static std::string scalar(const Value& value) {
    if (value.is_none()) return "null";
    if (const bool* truth = value.get<bool>()) return *truth ? "true" : "false";
    if (const int64_t* integer = value.get<int64_t>()) return std::to_string(*integer);
    if (const double* number = value.get<double>()) {
      if (std::isnan(*number)) return "NaN";
      if (std::isinf(*number)) return *number < 0 ? "-Infinity" : "Infinity";
      return format_float(*number);
    }
    raise("Object of type {} is not JSON serializable", type_name(value));
  }

  void write_string(std::string_view text) {
    runtime_.produce(text.size() + 2);
    out_ += '"';
    for (size_t position = 0; position < text.size();) {
      const size_t start = position;
      const char32_t c = next_code_point(text, position);
      switch (c) {
        case '"': out_ += "\\\""; break;
        case '\\': out_ += "\\\\"; break;
        case '\n': out_ += "\\n"; break;
        case '\r': out_ += "\\r"; break;
        case '\t': out_ += "\\t"; break;
        case '\f': out_ += "\\f"; break;
        case '\b': out_ += "\\b"; break;
        default:
          if (c >= 0x20 && (c < 0x7F || !style_.ensure_ascii)) {
            out_ += text.substr(start, position - start);
          } else if (c == 0x7F) {
            out_ += '\x7F';
          } else if (c > 0xFFFF) {
            const unsigned offset = static_cast<unsigned>(c) - 0x10000;
            out_ += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (offset >> 10), 0xDC00 + (offset & 0x3FF));
          } else {
            out_ += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
          }
      }
    }
    out_ += '"';
  }

  // Between two items, before the first and after the last.
  void break_line() {
    if (!style_.indent) return;
    runtime_.produce(1 + style_.indent->size() * static_cast<size_t>(level_));
    out_ += '\n';
    for (int i = 0; i < level_; ++i) out_ += *style_.indent;
  }

  template <typename Items, typename Write>
  void write_all(char open, char close, const Items& items, Write write_one) {
    out_ += open;
    ++level_;
    bool first = true;
    for (const auto& item : items) {
      if (!first) {
        runtime_.produce(style_.item_separator.size());
        out_ += style_.item_separator;
      }
      first = false;
      break_line();
      write_one(item);
    }
    --level_;
    if (!items.empty()) break_line();
    out_ += close;
  }

  void write_list(const List& list) {
    write_all('[', ']', list.items, [&](const Value& item) { write(item); });
  }

  void write_dict(const Dict& dict) {
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict.entries) entries.push_back(&entry);
    if (style_.sort_keys) {
      for (size_t i = 1; i < entries.size(); ++i) {
        if (entries[i]->first.is_string() != entries[0]->first.is_string())
          raise("'<' not supported between instances of different kinds of keys");
      }
      std::stable_sort(entries.begin(), entries.end(),
                       [&](const auto* a, const auto* b) { return is_less(runtime_, a->first, b->first); });
    }
    write_all('{', '}', entries, [&](const std::pair<Value, Value>* entry) {
      const Value& key = entry->first;
      if (key.list() != nullptr) raise("keys must be str, int, float, bool or None, not tuple");
      write_string(key.is_string() ? key.string()->text : scalar(key));
      runtime_.produce(style_.key_separator.size());
      out_ += style_.key_separator;
      write(entry->second);
    });
  }

  Runtime& runtime_;
  const JsonStyle& style_;
  std::string out_;
  int level_ = 0;
};

Value convert(const OrderedJson& json, int depth) {
  constexpr int kMaxDepth = 300;
  if (depth > kMaxDepth) fail(ErrorKind::kUnsupported, "the JSON value is nested more than {} levels deep", kMaxDepth);
  switch (json.type()) {
    case OrderedJson::value_t::boolean: return json.get<bool>();
    case OrderedJson::value_t::number_integer: return json.get<int64_t>();
    case OrderedJson::value_t::number_unsigned: {
      const auto number = json.get<uint64_t>();
      if (number > static_cast<uint64_t>(INT64_MAX))
        fail(ErrorKind::kUnsupported, "the integer {} does not fit in 64 bits with a sign", number);
      return static_cast<int64_t>(number);
    }
    case OrderedJson::value_t::number_float: return json.get<double>();
    case OrderedJson::value_t::string: return Value(json.get_ref<const std::string&>(), false);
    case OrderedJson::value_t::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const auto& item : json) items.push_back(convert(item, depth + 1));
      return make_list(std::move(items));
    }
    case OrderedJson::value_t::object: {
      Dict dict;
      for (const auto& [key, item] : json.items()) dict.append(key, convert(item, depth + 1));
      return make_dict(std::move(dict));
    }
    default: return {};
  }
}

}  // namespace

std::string to_json(Runtime& runtime, const Value& value, const JsonStyle& style) {
  Writer writer(runtime, style);
  writer.write(value);
  return writer.take();
}

Value from_json(const OrderedJson& json) { return convert(json, 0); }

}  // namespace salient::models::jinja
