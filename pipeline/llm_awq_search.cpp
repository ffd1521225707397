#include "pipeline/llm_awq_search.h"

#include <ATen/TensorOperators.h>
#include <torch/csrc/jit/serialization/pickle.h>

#include "common/error.h"
#include "common/file.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

using c10::IValue;

constexpr std::string_view kZip = "PK\x03\x04";

IValue unpickle(const fs::path& path) {
  const MappedFile file(path);
  const auto* const begin = reinterpret_cast<const char*>(file.bytes().data());
  try {
    return torch::jit::pickle_load(std::vector<char>(begin, begin + file.bytes().size()));
  } catch (const std::exception& error) {
    const std::string text = error.what();
    throw Error(ErrorKind::kCorruption,
                fmt::format("{}: cannot be read as a file of torch.save: {}", path.string(), text.substr(0, text.find('\n'))))
        .with_hint("expected is what llm-awq's --dump_awq writes");
  }
}

// The elements of a list or a tuple. `where` opens the error text.
std::vector<IValue> elements(const IValue& value, const std::string& where) {
  if (value.isTuple()) return value.toTupleRef().elements().vec();
  if (!value.isList()) fail(ErrorKind::kCorruption, "{}: found {}, expected a list or a tuple", where, value.tagKind());
  const auto list = value.toListRef();
  return std::vector<IValue>(list.begin(), list.end());  // braces would make two booleans of the pointers
}

std::string text_of(const IValue& value, const std::string& where) {
  if (!value.isString()) fail(ErrorKind::kCorruption, "{}: found {}, expected a name", where, value.tagKind());
  return value.toStringRef();
}

at::Tensor tensor_of(const IValue& value, const std::string& where) {
  if (!value.isTensor() || !value.toTensor().is_floating_point())
    fail(ErrorKind::kCorruption, "{}: found {}, expected a tensor of floats", where, value.tagKind());
  return value.toTensor().to(at::kCPU, at::kFloat).contiguous();
}

// The list under `key`; nothing where there is no such key.
std::vector<IValue> section(const IValue& root, const std::string& key, const std::string& where) {
  if (!root.isGenericDict())
    fail(ErrorKind::kCorruption, "{}: found {}, expected a dictionary with 'scale' and 'clip'", where, root.tagKind());
  for (const auto& entry : root.toGenericDict()) {
    if (entry.key().isString() && entry.key().toStringRef() == key)
      return elements(entry.value(), fmt::format("{}: '{}'", where, key));
  }
  return {};
}

}  // namespace

bool is_llm_awq_search(const fs::path& path) {
  const MappedFile file(path);
  const std::string_view bytes(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  return bytes.starts_with(kZip);
}

SearchResult read_llm_awq_search(const fs::path& path) {
  const IValue root = unpickle(path);
  SearchResult search;
  search.settings = {{"program", "llm-awq"}};
  int64_t index = 0;
  for (const IValue& value : section(root, "scale", path.string())) {
    const std::string where = fmt::format("{}: 'scale' {}", path.string(), index++);
    const std::vector<IValue> entry = elements(value, where);
    if (entry.size() != 3)
      fail(ErrorKind::kCorruption, "{}: found {} parts, expected (module, modules, scales)", where, entry.size());
    FoundScales found;
    found.kind = "given";
    for (const IValue& module : elements(entry[1], where)) found.balance.push_back(text_of(module, where));
    found.scales = tensor_of(entry[2], where).flatten();
    const std::string smooth = text_of(entry[0], where);
    if (!search.scales.emplace(smooth, std::move(found)).second)
      fail(ErrorKind::kCorruption, "{}: '{}' is there twice", where, smooth);
  }
  index = 0;
  for (const IValue& value : section(root, "clip", path.string())) {
    const std::string where = fmt::format("{}: 'clip' {}", path.string(), index++);
    const std::vector<IValue> entry = elements(value, where);
    if (entry.size() != 2) fail(ErrorKind::kCorruption, "{}: found {} parts, expected (module, limits)", where, entry.size());
    const std::string module = text_of(entry[0], where);
    const at::Tensor limit = tensor_of(entry[1], where);
    if (limit.dim() < 2 || limit.numel() != limit.size(0) * limit.size(1))
      fail(ErrorKind::kCorruption, "{}: '{}' has limits of {} dimensions, expected [out_features, groups, 1]", where, module,
           limit.dim());
    if (!(limit >= 0).all().item<bool>()) fail(ErrorKind::kCorruption, "{}: '{}' has limits that are not 0 or more", where, module);
    if (!search.clips.emplace(module, FoundClip{{}, {}, {}, limit.flatten(1)}).second)
      fail(ErrorKind::kCorruption, "{}: '{}' is there twice", where, module);
  }
  if (search.scales.empty() && search.clips.empty())
    fail(ErrorKind::kCorruption, "{}: has neither 'scale' nor 'clip': not what llm-awq's --dump_awq writes", path.string());
  return search;
}

}  // namespace salient::pipeline
