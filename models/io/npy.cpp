#include "models/io/npy.h"

#include <ATen/ops/empty.h>
#include <c10/core/ScalarType.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <set>

#include "common/error.h"
#include "common/file.h"
#include "common/text.h"

namespace salient::models {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr size_t kDataAlignment = 64;
constexpr size_t kMaxDimensions = 32;

struct DtypeRow {
  std::string_view descr;  // without the byte order
  at::ScalarType dtype;
};
constexpr DtypeRow kDtypes[] = {
    {"f4", at::kFloat}, {"f2", at::kHalf}, {"f8", at::kDouble}, {"i1", at::kChar},   {"i2", at::kShort},  {"i4", at::kInt},
    {"i8", at::kLong},  {"u1", at::kByte}, {"u2", at::kUInt16}, {"u4", at::kUInt32}, {"u8", at::kUInt64}, {"b1", at::kBool},
};
constexpr std::string_view kSupported = "float16, float32, float64, int8 to int64, uint8 to uint64 and bool";

// Reads the one form of Python literal that a header may have.
class HeaderReader {
 public:
  HeaderReader(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  NpyHeader read() {
    NpyHeader header;
    std::set<std::string> keys;
    expect('{');
    while (!accept('}')) {
      const std::string key = string();
      if (!keys.insert(key).second) broken(fmt::format("the key '{}' twice", one_line(key)));
      expect(':');
      if (key == "descr") {
        read_descr(header);
      } else if (key == "fortran_order") {
        header.fortran_order = boolean();
      } else if (key == "shape") {
        header.shape = shape();
      } else {
        broken(fmt::format("the key '{}'", shorten(one_line(key), 40)));
      }
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    skip_space();
    if (at_ != text_.size()) broken("more text after the dict");
    if (keys.size() != 3) broken(fmt::format("only {} keys", keys.size()));
    return header;
  }

 private:
  [[noreturn]] void broken(const std::string& found) const {
    fail(ErrorKind::kCorruption, "{}: the array's header has {} near byte {}, expected a dict with descr, fortran_order and shape",
         where_, found, at_);
  }
  void skip_space() {
    while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos) ++at_;
  }
  bool accept(char wanted) {
    skip_space();
    if (at_ >= text_.size() || text_[at_] != wanted) return false;
    ++at_;
    return true;
  }
  void expect(char wanted) {
    if (!accept(wanted))
      broken(at_ >= text_.size() ? std::string("its end")
                                 : fmt::format("'{}' instead of '{}'", one_line(text_.substr(at_, 1)), wanted));
  }
  bool accept_word(std::string_view word) {
    skip_space();
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }
  std::string string() {
    skip_space();
    const char quote = at_ < text_.size() ? text_[at_] : '\0';
    if (quote != '\'' && quote != '"') broken("no quoted text");
    const size_t end = text_.find(quote, at_ + 1);
    if (end == std::string_view::npos) broken("a quote that does not end");
    std::string value(text_.substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
    return value;
  }
  bool boolean() {
    if (accept_word("True")) return true;
    if (accept_word("False")) return false;
    broken("neither True nor False");
  }
  void read_descr(NpyHeader& header) {
    skip_space();
    if (at_ < text_.size() && text_[at_] == '[') unsupported("structured");
    const std::string descr = string();
    const char order = descr.empty() ? '\0' : descr.front();
    const bool has_order = order == '<' || order == '>' || order == '|' || order == '=';
    const std::string_view type = std::string_view(descr).substr(has_order ? 1 : 0);
    const auto row = std::find_if(std::begin(kDtypes), std::end(kDtypes), [&](const DtypeRow& each) { return each.descr == type; });
    if (row == std::end(kDtypes)) unsupported(descr);
    header.dtype = row->dtype;
    header.big_endian = order == '>';
  }
  [[noreturn]] void unsupported(std::string_view descr) const {
    const bool object = descr.find('O') != std::string_view::npos;
    throw Error(ErrorKind::kUnsupported,
                fmt::format("{}: an array of dtype '{}', supported are {}", where_, shorten(one_line(descr), 40), kSupported))
        .with_hint(
            object
                ? "object arrays are pickles, which can run any program and are never read; save numbers: np.asarray(x, np.float32)"
                : "convert it in NumPy: array.astype(np.float32)");
  }
  std::vector<int64_t> shape() {
    std::vector<int64_t> sizes;
    expect('(');
    while (!accept(')')) {
      skip_space();
      size_t digits = 0;
      int64_t size = 0;
      for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_, ++digits) {
        if (__builtin_mul_overflow(size, int64_t{10}, &size) || __builtin_add_overflow(size, int64_t{text_[at_] - '0'}, &size))
          broken("a dimension above 2^63");
      }
      if (digits == 0) broken("a dimension that is no number from 0");
      sizes.push_back(size);
      if (sizes.size() > kMaxDimensions) broken(fmt::format("more than {} dimensions", kMaxDimensions));
      if (!accept(',')) {
        expect(')');
        break;
      }
    }
    return sizes;
  }

  std::string_view text_;
  const std::string& where_;
  size_t at_ = 0;
};

uint64_t checked_bytes(const NpyHeader& header, const std::string& where) {
  // Dimensions of 0 count as 1 for the overflow check: strides are computed from them too.
  int64_t bound = static_cast<int64_t>(c10::elementSize(header.dtype));
  bool empty = false;
  for (const int64_t size : header.shape) {
    empty = empty || size == 0;
    if (__builtin_mul_overflow(bound, std::max<int64_t>(size, 1), &bound)) {
      fail(ErrorKind::kCorruption, "{}: the shape ({}) has more than 2^63 bytes", where, fmt::join(header.shape, ", "));
    }
  }
  return empty ? 0 : static_cast<uint64_t>(bound);
}

void swap_bytes(std::byte* data, uint64_t bytes, size_t width) {
  for (uint64_t i = 0; i < bytes; i += width) std::reverse(data + i, data + i + width);
}

}  // namespace

NpyHeader parse_npy_header(std::span<const std::byte> bytes, const std::string& where) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.substr(0, kMagic.size()) != kMagic)
    fail(ErrorKind::kCorruption, "{}: not a NumPy array: it does not begin with \\x93NUMPY", where);
  const auto byte = [&](size_t i) {
    if (i >= bytes.size())
      fail(ErrorKind::kCorruption, "{}: {} bytes, shorter than an array's header: truncated", where, bytes.size());
    return std::to_integer<uint64_t>(bytes[i]);
  };
  const uint64_t major = byte(6);
  if (major < 1 || major > 3 || byte(7) != 0) {
    fail(ErrorKind::kUnsupported, "{}: version {}.{} of the .npy format, supported are 1.0, 2.0 and 3.0", where, major, byte(7));
  }
  const size_t begin = major == 1 ? 10 : 12;
  uint64_t length = 0;
  for (size_t i = 8; i < begin; ++i) length |= byte(i) << (8 * (i - 8));
  if (length > kMaxNpyHeaderBytes - begin) {
    fail(ErrorKind::kCorruption, "{}: an array's header of {} bytes, expected at most {}", where, length,
         kMaxNpyHeaderBytes - begin);
  }
  if (length > bytes.size() - begin) {
    fail(ErrorKind::kCorruption, "{}: the array's header should have {} bytes, but only {} follow: truncated", where, length,
         bytes.size() - begin);
  }
  NpyHeader header = HeaderReader(text.substr(begin, length), where).read();
  header.header_bytes = begin + length;
  header.data_bytes = checked_bytes(header, where);
  return header;
}

std::string make_npy_header(at::ScalarType dtype, const std::vector<int64_t>& shape) {
  const auto row = std::find_if(std::begin(kDtypes), std::end(kDtypes), [&](const DtypeRow& each) { return each.dtype == dtype; });
  if (row == std::end(kDtypes))
    fail(ErrorKind::kUnsupported, "NumPy files cannot hold {}, only {}", c10::toString(dtype), kSupported);
  const std::string dict =
      fmt::format("{{'descr': '{}{}', 'fortran_order': False, 'shape': ({}{}), }}", c10::elementSize(dtype) == 1 ? '|' : '<',
                  row->descr, fmt::join(shape, ", "), shape.size() == 1 ? "," : "");
  constexpr size_t kPrefix = 10;
  const size_t total = (kPrefix + dict.size() + 1 + kDataAlignment - 1) / kDataAlignment * kDataAlignment;
  const size_t length = total - kPrefix;
  std::string header(kMagic);
  header += {'\x01', '\x00', static_cast<char>(length & 0xff), static_cast<char>(length >> 8)};
  header += dict;
  header.resize(total - 1, ' ');
  header += '\n';
  return header;
}

at::Tensor decode_npy_data(const NpyHeader& header, std::span<const std::byte> data) {
  if (data.size() != header.data_bytes)
    fail(ErrorKind::kInternal, "{} bytes of array data, its header says {}", data.size(), header.data_bytes);
  std::vector<int64_t> stored = header.shape;
  if (header.fortran_order) std::reverse(stored.begin(), stored.end());
  at::Tensor array = at::empty(stored, at::TensorOptions(header.dtype));
  if (!data.empty()) {
    auto* target = static_cast<std::byte*>(array.data_ptr());
    std::memcpy(target, data.data(), data.size());
    if (header.big_endian) swap_bytes(target, data.size(), c10::elementSize(header.dtype));
    // A bool is 0 or 1 to the compiler; any other byte in the file must not get that far.
    if (header.dtype == at::kBool)
      std::transform(target, target + data.size(), target, [](std::byte value) { return std::byte{value != std::byte{0}}; });
  }
  if (!header.fortran_order || stored.size() < 2) return array;
  std::vector<int64_t> order(stored.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(order.size() - 1 - i);
  return array.permute(order).contiguous();
}

at::Tensor read_npy(const std::filesystem::path& path) {
  const MappedFile file(path);
  const NpyHeader header = parse_npy_header(file.bytes(), path.string());
  const uint64_t rest = file.bytes().size() - header.header_bytes;
  if (rest != header.data_bytes) {
    fail(ErrorKind::kCorruption, "{}: {} bytes of data, but shape ({}) needs {}", path.string(), rest,
         fmt::join(header.shape, ", "), header.data_bytes);
  }
  return decode_npy_data(header, file.bytes().subspan(header.header_bytes));
}

void write_npy(const std::filesystem::path& path, const at::Tensor& array) {
  const at::Tensor data = array.cpu().contiguous();
  const std::string header = with_context(path.string(), [&] { return make_npy_header(data.scalar_type(), data.sizes().vec()); });
  AtomicFile file(path);
  file.write(header);
  file.write(std::span(static_cast<const std::byte*>(data.const_data_ptr()), data.nbytes()));
  file.commit();
}

}  // namespace salient::models
