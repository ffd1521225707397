#include "models/io/model_file_probe.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "common/file.h"

namespace salient::models {
namespace {

std::string_view text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

}  // namespace

bool is_torchscript(const std::filesystem::path& path) {
  // The archive's directory is at its end; the end record (22 bytes and a comment) says where it begins. With 64-bit offsets that
  // field is all ones, and the last MiB is searched instead.
  constexpr size_t kEndRecord = 22;
  constexpr size_t kSearched = size_t{1} << 20;
  const MappedFile file(path);
  const std::string_view text = text_of(file);
  if (!text.starts_with(std::string_view("PK\3\4", 4)) || text.size() < kEndRecord) return false;
  const std::string_view tail = text.substr(text.size() - std::min(text.size(), kSearched));
  const size_t end = tail.rfind(std::string_view("PK\5\6", 4));
  if (end == std::string_view::npos || tail.size() - end < kEndRecord) return false;
  uint32_t begin = 0;
  std::memcpy(&begin, tail.data() + end + 16, sizeof(begin));
  const std::string_view directory = begin < text.size() ? text.substr(begin) : tail;
  return directory.find("/constants.pkl") != std::string_view::npos;
}

}  // namespace salient::models
