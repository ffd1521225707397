#include "models/jinja/arguments.h"

#include "models/jinja/operators.h"
#include "models/jinja/runtime.h"

namespace salient::models::jinja {

Bound::Bound(const Arguments& arguments, std::string_view function, std::string_view parameters) {
  struct Slot {
    std::string_view name;
    bool optional, positional_only;
  };
  std::vector<Slot> slots;
  bool optional = false;
  while (!parameters.empty()) {
    const size_t end = std::min(parameters.find(' '), parameters.size());
    std::string_view name = parameters.substr(0, end);
    parameters.remove_prefix(std::min(end + 1, parameters.size()));
    if (name.ends_with('=')) {
      optional = true;
      name.remove_suffix(1);
    }
    const bool positional_only = name.ends_with('/');
    if (positional_only) name.remove_suffix(1);
    slots.push_back({name, optional, positional_only});
  }
  if (arguments.positional.size() > slots.size()) {
    raise("{}() takes at most {} argument(s), {} given", function, slots.size(), arguments.positional.size());
  }
  values_.resize(slots.size(), nullptr);
  for (size_t i = 0; i < arguments.positional.size(); ++i) values_[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.keyword) {
    size_t slot = 0;
    while (slot < slots.size() && (slots[slot].positional_only || slots[slot].name != name)) ++slot;
    if (slot == slots.size()) raise("{}() got an unexpected keyword argument '{}'", function, name);
    if (values_[slot] != nullptr) raise("{}() got multiple values for argument '{}'", function, name);
    values_[slot] = &value;
  }
  for (size_t i = 0; i < slots.size(); ++i) {
    if (values_[i] == nullptr && !slots[i].optional) raise("{}() misses the argument '{}'", function, slots[i].name);
  }
}

bool Bound::flag(size_t index, bool fallback) const { return values_[index] == nullptr ? fallback : is_true(*values_[index]); }

int64_t Bound::integer(size_t index, std::string_view what, int64_t fallback) const {
  return values_[index] == nullptr ? fallback : require_integer(*values_[index], what);
}

const Value* Bound::unless_none(size_t index) const {
  return values_[index] == nullptr || values_[index]->is_none() ? nullptr : values_[index];
}

}  // namespace salient::models::jinja
