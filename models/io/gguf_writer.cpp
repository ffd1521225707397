#include "models/io/gguf_writer.h"

#include <cerrno>
#include <optional>
#include <utility>

#include "common/error.h"
#include "common/file.h"
#include "common/text.h"
#include "models/io/gguf.h"

namespace salient::models {
namespace {

bool holds(quant::GgmlType type, at::ScalarType dtype) {
  if (dtype == at::kByte) return true;
  switch (type) {
    case quant::GgmlType::kF32: return dtype == at::kFloat;
    case quant::GgmlType::kF16: return dtype == at::kHalf;
    case quant::GgmlType::kBF16: return dtype == at::kBFloat16;
    default: return false;
  }
}

bool same_tensor(const GgufTensor& a, const GgufTensor& b) {
  return a.name == b.name && a.type == b.type && a.shape == b.shape && a.offset == b.offset;
}

}  // namespace

struct GgufWriter::State {
  std::filesystem::path path;
  GgufHeader header;
  uint64_t file_bytes = 0;
  std::optional<AtomicFile> file;
  size_t next = 0;       // the tensor whose turn it is
  uint64_t written = 0;  // bytes of it
};

GgufWriter::GgufWriter(const std::filesystem::path& path, std::vector<GgufPair> metadata, std::vector<GgufTensor> tensors)
    : state_(std::make_unique<State>()) {
  State& state = *state_;
  state.path = path;
  state.header.metadata = std::move(metadata);
  state.header.tensors = std::move(tensors);
  const std::string head = with_context(path.string(), [&] { return make_gguf_header(state.header); });
  state.file_bytes = head.size();
  if (!state.header.tensors.empty()) {
    const GgufTensor& last = state.header.tensors.back();
    const uint64_t alignment = state.header.alignment;
    state.file_bytes += last.offset + (gguf_data_bytes(last) + alignment - 1) / alignment * alignment;
  }
  if (const uint64_t free = free_disk_bytes(path); free < state.file_bytes) {
    fail_errno(path, fmt::format("write {}, {} are free", human_bytes(state.file_bytes), human_bytes(free)), ENOSPC);
  }
  state.file.emplace(path);
  state.file->write(head);
}

GgufWriter::~GgufWriter() = default;

uint64_t GgufWriter::file_bytes() const { return state_->file_bytes; }

void GgufWriter::append(const std::string& name, const at::Tensor& data) {
  State& state = *state_;
  const std::string where = fmt::format("{}: tensor '{}'", state.path.string(), name);
  if (state.next >= state.header.tensors.size()) {
    fail(ErrorKind::kInvalidArgument, "{}: all {} planned tensors are written", where, state.header.tensors.size());
  }
  const GgufTensor& planned = state.header.tensors[state.next];
  if (planned.name != name) fail(ErrorKind::kInvalidArgument, "{}: out of turn, expected '{}'", where, planned.name);
  if (!data.defined() || !holds(planned.type, data.scalar_type())) {
    fail(ErrorKind::kInvalidArgument, "{}: data of dtype {}, expected the bytes of {}", where,
         data.defined() ? c10::toString(data.scalar_type()) : "undefined", quant::ggml_type_info(planned.type).name);
  }
  const uint64_t whole = gguf_data_bytes(planned);
  if (data.nbytes() > whole - state.written) {
    fail(ErrorKind::kInvalidArgument, "{}: {} bytes after {}, expected {} in all", where, data.nbytes(), state.written, whole);
  }
  const at::Tensor bytes = data.to(at::kCPU).contiguous();
  state.file->write(std::span(static_cast<const std::byte*>(bytes.const_data_ptr()), bytes.nbytes()));
  state.written += bytes.nbytes();
  if (state.written < whole) return;
  const uint64_t alignment = state.header.alignment;
  state.file->write(std::string((alignment - whole % alignment) % alignment, '\0'));
  ++state.next;
  state.written = 0;
}

void GgufWriter::finish() {
  State& state = *state_;
  if (!state.file) fail(ErrorKind::kInternal, "{}: finish() called twice", state.path.string());
  if (state.next < state.header.tensors.size()) {
    fail(ErrorKind::kInvalidArgument, "{}: {} of {} planned tensors are missing or incomplete, the first is '{}'",
         state.path.string(), state.header.tensors.size() - state.next, state.header.tensors.size(),
         state.header.tensors[state.next].name);
  }
  state.file->commit();
  state.file.reset();
  const GgufFile read(state.path);
  const GgufHeader& found = read.header();
  bool same = found.data_begin == state.header.data_begin && found.metadata.size() == state.header.metadata.size() &&
              found.tensors.size() == state.header.tensors.size();
  for (size_t i = 0; same && i < found.tensors.size(); ++i) same = same_tensor(found.tensors[i], state.header.tensors[i]);
  for (size_t i = 0; same && i < found.metadata.size(); ++i) {
    same = found.metadata[i].key == state.header.metadata[i].key &&
           found.metadata[i].value.index() == state.header.metadata[i].value.index();
  }
  if (!same) fail(ErrorKind::kInternal, "{}: the header was not read back as it was written", state.path.string());
}

}  // namespace salient::models
