#include "models/io/gguf.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include "common/error.h"

namespace salient::models {
namespace {

std::string where(const GgufFile& file, const std::string& name) {
  return fmt::format("{}: tensor '{}'", file.path().string(), name);
}

// Every tensor must begin where the padded one before it ends, and the last one must end with the file, its padding present or not.
void check_layout(const GgufHeader& header, const std::string& path, uint64_t file_bytes) {
  uint64_t expected = 0;
  uint64_t end = header.data_begin;
  for (const GgufTensor& tensor : header.tensors) {
    const uint64_t bytes = with_context(path, [&] { return gguf_data_bytes(tensor); });
    if (tensor.offset != expected) {
      fail(ErrorKind::kCorruption, "{}: tensor '{}' is at byte {} of the data, expected {}, right after the tensor before it", path,
           tensor.name, tensor.offset, expected);
    }
    if (__builtin_add_overflow(header.data_begin + expected, bytes, &end) || end > file_bytes) {
      fail(ErrorKind::kCorruption, "{}: tensor '{}' needs {} bytes from byte {} on, the file has {}: it is truncated", path,
           tensor.name, bytes, header.data_begin + expected, file_bytes);
    }
    expected += (bytes + header.alignment - 1) / header.alignment * header.alignment;
  }
  if (header.tensors.empty()) return;  // a vocabulary alone: nothing follows the head, not even its padding
  if (file_bytes > header.data_begin + expected) {
    fail(ErrorKind::kCorruption,
         "{}: {} bytes follow the last tensor, expected the end of the file: it is damaged or its header is wrong", path,
         file_bytes - header.data_begin - expected);
  }
}

}  // namespace

GgufFile::GgufFile(const std::filesystem::path& path)
    : file_(std::make_shared<const MappedFile>(path)), header_(parse_gguf_header(file_->bytes(), path.string())) {
  check_layout(header_, path.string(), file_->bytes().size());
  for (size_t i = 0; i < header_.tensors.size(); ++i) index_.emplace(header_.tensors[i].name, i);
}

const GgufTensor* GgufFile::find(const std::string& name) const {
  const auto it = index_.find(name);
  return it != index_.end() ? &header_.tensors[it->second] : nullptr;
}

const GgufTensor& GgufFile::tensor(const std::string& name) const {
  const GgufTensor* found = find(name);
  if (found == nullptr)
    fail(ErrorKind::kNotFound, "{}: is not among the {} tensors of the file", where(*this, name), header_.tensors.size());
  return *found;
}

at::Tensor GgufFile::view(const std::string& name) const {
  const GgufTensor& info = tensor(name);
  const quant::GgmlTypeInfo& type = quant::ggml_type_info(info.type);
  const int64_t row = type.row_bytes(info.shape.empty() ? 1 : info.shape.back());
  int64_t rows = 1;
  for (size_t d = 0; d + 1 < info.shape.size(); ++d) rows *= info.shape[d];
  if (rows * row == 0) return at::empty({rows, row}, at::kByte);
  void* data = const_cast<std::byte*>(file_->bytes().data()) + header_.data_begin + info.offset;
  return at::from_blob(
      data, {rows, row}, [file = file_](void*) {}, at::kByte);
}

at::Tensor GgufFile::read(const std::string& name) const {
  const GgufTensor& info = tensor(name);
  return with_context(where(*this, name), [&] { return quant::dequantize_ggml(view(name), info.type).view(info.shape); });
}

void GgufFile::release(const std::string& name) const {
  const GgufTensor& info = tensor(name);
  file_->release(header_.data_begin + info.offset, gguf_data_bytes(info));
}

}  // namespace salient::models
