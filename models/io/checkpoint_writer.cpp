#include "models/io/checkpoint_writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <map>
#include <optional>
#include <regex>
#include <set>
#include <span>
#include <system_error>
#include <utility>

#include "common/checksum.h"
#include "common/error.h"
#include "common/file.h"
#include "common/json.h"
#include "common/text.h"
#include "models/io/gguf.h"
#include "models/io/safetensors.h"
#include "quant/ggml_types.h"

namespace salient::models {
namespace fs = std::filesystem;
namespace {

constexpr char kPartSign = '#';  // between a tensor's name and the number of a part
constexpr const char* kIndexName = "model.safetensors.index.json";
const std::map<std::string, std::string> kMetadata = {{"format", "pt"}};  // transformers refuses a file without it

std::string shape_text(at::IntArrayRef shape) { return fmt::format("[{}]", fmt::join(shape.begin(), shape.end(), ", ")); }

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int value) : value_(value) {}
  Descriptor(Descriptor&& other) noexcept : value_(std::exchange(other.value_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(value_, other.value_);
    return *this;
  }
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  int get() const { return value_; }

 private:
  int value_ = -1;
};

void write_at(int descriptor, const fs::path& path, std::span<const std::byte> bytes, uint64_t offset) {
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(descriptor, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_errno(path, fmt::format("write {} bytes", bytes.size()), errno);
    bytes = bytes.subspan(static_cast<size_t>(written));
    offset += static_cast<uint64_t>(written);
  }
}

// Reserves the blocks, so that a full disk shows now and not after hours.
void reserve(int descriptor, const fs::path& path, uint64_t size) {
  int error = 0;
  do error = ::posix_fallocate(descriptor, 0, static_cast<off_t>(size));
  while (error == EINTR);
  if (error == EOPNOTSUPP || error == EINVAL) {  // a file system that cannot reserve: let the file be sparse
    error = ::ftruncate(descriptor, static_cast<off_t>(size)) == 0 ? 0 : errno;
  }
  if (error != 0) fail_errno(path, fmt::format("reserve {}", human_bytes(size)), error);
}

// Opens `path` when it has this size and begins with `header`; nothing when it is missing or different.
Descriptor open_matching(const fs::path& path, const std::string& header, uint64_t size) {
  Descriptor file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (file.get() < 0) {
    if (errno == ENOENT) return {};
    fail_errno(path, "open", errno);
  }
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) fail_errno(path, "read", errno);
  if (!S_ISREG(status.st_mode) || static_cast<uint64_t>(status.st_size) != size) return {};
  std::string found(header.size(), '\0');
  for (size_t done = 0; done < found.size();) {
    const ssize_t count = ::pread(file.get(), found.data() + done, found.size() - done, static_cast<off_t>(done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_errno(path, "read", errno);
    if (count == 0) return {};
    done += static_cast<size_t>(count);
  }
  return found == header ? std::move(file) : Descriptor();
}

struct ShardFile {
  fs::path path;     // the final name
  fs::path partial;  // the name while it is written
  std::string header;
  uint64_t size = 0;
  Descriptor descriptor;
  bool renamed = false;  // it already stands under its final name
  bool taken_over = false;
};

// Of the shards that are GGUF files.
constexpr std::string_view kGgufExtension = ".gguf";

struct Place {
  size_t shard;
  PlannedTensor plan;
  uint64_t offset;  // from the start of the shard's file
  bool put = false;
  std::set<int64_t> parts = {};  // of one that comes in parts
};

// Names that belong to a checkpoint as this writer or transformers writes it.
bool is_checkpoint_file(const std::string& name) {
  static const std::regex pattern(R"(model(-\d+-of-\d+)?\.safetensors|model(-\w+)?\.gguf)");
  return name == kIndexName || std::regex_match(name, pattern);
}

bool is_partial_file(const std::string& name) {
  static const std::regex pattern(R"(\.model(-\d+-of-\d+)?\.safetensors\.partial|\.model(-\w+)?\.gguf\.partial)");
  return std::regex_match(name, pattern);
}

}  // namespace

ShardPlan plan_shards(const std::vector<PlannedTensor>& tensors, uint64_t max_shard_bytes) {
  if (tensors.empty()) fail(ErrorKind::kInvalidArgument, "shard plan: no tensors, expected at least one");
  if (max_shard_bytes == 0) fail(ErrorKind::kInvalidArgument, "shard plan: the size of a shard is 0 bytes, expected at least 1");
  ShardPlan plan;
  std::set<std::string_view> names;
  uint64_t shard_bytes = 0;
  for (const PlannedTensor& tensor : tensors) {
    if (!names.insert(tensor.name).second)
      fail(ErrorKind::kInvalidArgument, "shard plan: tensor '{}' is planned twice", tensor.name);
    const uint64_t bytes = data_bytes(tensor);
    if (plan.shards.empty() || (shard_bytes > 0 && (bytes > max_shard_bytes || shard_bytes > max_shard_bytes - bytes))) {
      plan.shards.emplace_back();
      shard_bytes = 0;
    }
    plan.shards.back().tensors.push_back(tensor);
    shard_bytes += bytes;
    plan.total_bytes += bytes;
  }
  const size_t count = plan.shards.size();
  for (size_t i = 0; i < count; ++i) {
    ShardPlan::Shard& shard = plan.shards[i];
    shard.file = count == 1 ? "model.safetensors" : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, count);
    shard.header = make_safetensors_header(shard.tensors, kMetadata);
    shard.file_bytes = shard.header.size();
    for (const PlannedTensor& tensor : shard.tensors) {
      shard.offsets.push_back(shard.file_bytes);
      shard.file_bytes += data_bytes(tensor);
    }
  }
  return plan;
}

ShardPlan plan_gguf_shard(const std::string& file, GgufHeader header) {
  if (header.tensors.empty()) fail(ErrorKind::kInvalidArgument, "{}: no tensors, expected at least one", file);
  ShardPlan::Shard shard;
  shard.file = file;
  shard.header = with_context(file, [&] { return make_gguf_header(header); });
  shard.file_bytes = shard.header.size();
  ShardPlan plan;
  for (const GgufTensor& tensor : header.tensors) {
    PlannedTensor planned{tensor.name, at::kByte, tensor.shape};
    switch (tensor.type) {
      case quant::GgmlType::kF32: planned.dtype = at::kFloat; break;
      case quant::GgmlType::kF16: planned.dtype = at::kHalf; break;
      case quant::GgmlType::kBF16: planned.dtype = at::kBFloat16; break;
      default: planned.shape.back() = quant::ggml_type_info(tensor.type).row_bytes(tensor.shape.back());
    }
    const uint64_t bytes = data_bytes(planned);
    shard.offsets.push_back(header.data_begin + tensor.offset);
    shard.file_bytes = shard.offsets.back() + (bytes + header.alignment - 1) / header.alignment * header.alignment;
    plan.total_bytes += bytes;
    shard.tensors.push_back(std::move(planned));
  }
  plan.shards.push_back(std::move(shard));
  return plan;
}

struct CheckpointWriter::State {
  fs::path folder;
  std::optional<FolderLock> lock;  // unless the caller holds it
  std::vector<ShardFile> shards;
  std::map<std::string, Place> places;
  uint64_t total_bytes = 0;
  bool finished = false;

  State(const fs::path& in, const ShardPlan& plan);
  void check_other_files() const;
  void open_shards();
  void write_index() const;
  void verify() const;
  Place& place(const std::string& name);
  void check(const std::string& name, const Place& to, const at::Tensor& tensor, at::IntArrayRef shape) const;
  void write(const std::string& key, Place& to, uint64_t offset, const at::Tensor& tensor);
  std::map<std::string, std::string> checksums;  // of what was written, by key
};

FolderLock lock_checkpoint_folder(const fs::path& folder) {
  std::error_code code;
  fs::create_directories(folder, code);
  if (code == std::errc::not_a_directory) fail(ErrorKind::kIo, "{}: cannot create the folder: {}", folder.string(), code.message());
  if (code) fail_errno(folder, "create the folder", code.value());
  if (std::optional<FolderLock> lock = FolderLock::try_lock(folder)) return std::move(*lock);
  throw Error(ErrorKind::kInvalidArgument, fmt::format("{}: another process is writing this checkpoint", folder.string()))
      .with_hint("wait for it, or choose another output folder");
}

CheckpointWriter::State::State(const fs::path& in, const ShardPlan& plan) : folder(in) {
  if (plan.shards.empty()) fail(ErrorKind::kInvalidArgument, "{}: the plan of the checkpoint has no shards", folder.string());
  for (const ShardPlan::Shard& planned : plan.shards) {
    ShardFile shard;
    shard.path = folder / planned.file;
    shard.partial = folder / fmt::format(".{}.partial", planned.file);
    shard.header = planned.header;
    shard.size = planned.file_bytes;
    for (size_t i = 0; i < planned.tensors.size(); ++i) {
      const PlannedTensor& tensor = planned.tensors[i];
      if (!places.emplace(tensor.name, Place{shards.size(), tensor, planned.offsets.at(i)}).second) {
        fail(ErrorKind::kInvalidArgument, "{}: tensor '{}' is planned twice", folder.string(), tensor.name);
      }
    }
    shards.push_back(std::move(shard));
  }
  total_bytes = plan.total_bytes;
}

// A loader that finds files of two checkpoints takes one of them without a word, so nothing foreign may be there.
void CheckpointWriter::State::check_other_files() const {
  std::map<std::string, const ShardFile*> planned;
  for (const ShardFile& shard : shards) planned[shard.path.filename().string()] = &shard;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (!is_checkpoint_file(name)) continue;
    const auto it = planned.find(name);
    const bool ours = it != planned.end() ? open_matching(it->second->path, it->second->header, it->second->size).get() >= 0
                                          : name == kIndexName && shards.size() > 1;
    if (ours) continue;
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("{}: is already there and does not belong to the checkpoint to be written; nothing was changed",
                            entry.path().string()))
        .with_hint("choose another output folder, or remove the old checkpoint");
  }
}

void CheckpointWriter::State::open_shards() {
  std::set<fs::path> wanted;
  for (const ShardFile& shard : shards) wanted.insert(shard.partial);
  std::vector<fs::path> stale;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (is_partial_file(entry.path().filename().string()) && !wanted.contains(entry.path())) stale.push_back(entry.path());
  }
  for (const fs::path& path : stale) fs::remove(path);

  uint64_t needed = 0;
  for (ShardFile& shard : shards) {
    const bool partial_exists = fs::exists(shard.partial);
    shard.descriptor = open_matching(shard.partial, shard.header, shard.size);
    if (shard.descriptor.get() < 0 && !partial_exists) {
      shard.descriptor = open_matching(shard.path, shard.header, shard.size);
      shard.renamed = shard.descriptor.get() >= 0;
    }
    shard.taken_over = shard.descriptor.get() >= 0;
    if (!shard.taken_over) {
      fs::remove(shard.partial);
      needed += shard.size;
    }
  }
  if (needed == 0) return;
  // Asked before anything is reserved: filling the disk only to find out would disturb everyone on it.
  if (const uint64_t free = free_disk_bytes(folder); free < needed) {
    fail_errno(folder, fmt::format("reserve {} for the checkpoint, {} are free", human_bytes(needed), human_bytes(free)), ENOSPC);
  }

  std::vector<fs::path> created;
  try {
    for (ShardFile& shard : shards) {
      if (shard.taken_over) continue;
      shard.descriptor = Descriptor(::open(shard.partial.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
      if (shard.descriptor.get() < 0) fail_errno(shard.partial, "create", errno);
      created.push_back(shard.partial);
      reserve(shard.descriptor.get(), shard.partial, shard.size);
      write_at(shard.descriptor.get(), shard.partial, std::as_bytes(std::span(shard.header)), 0);
    }
  } catch (...) {
    std::error_code ignored;
    for (const fs::path& path : created) fs::remove(path, ignored);  // they hold nothing yet
    throw;
  }
  sync_folder(folder);
}

Place& CheckpointWriter::State::place(const std::string& name) {
  const auto it = places.find(name);
  if (it == places.end()) {
    fail(ErrorKind::kInvalidArgument, "{}: tensor '{}' is not among the {} planned ones", folder.string(), name, places.size());
  }
  return it->second;
}

void CheckpointWriter::State::write_index() const {
  Json map = Json::object();
  for (const auto& [name, place] : places) map[name] = shards[place.shard].path.filename().string();
  write_file(folder / kIndexName,
             dump_json({{"metadata", {{"total_size", total_bytes}}}, {"weight_map", std::move(map)}}, 2) + "\n");
}

void CheckpointWriter::State::verify() const {
  size_t found = 0;
  std::vector<SafetensorsFile> files;
  for (const ShardFile& shard : shards) {
    if (shard.path.extension() == kGgufExtension) {  // its reader checks every offset
      const GgufFile file(shard.path);
      if (open_matching(shard.path, shard.header, shard.size).get() < 0) {
        fail(ErrorKind::kInternal, "{}: the header was not read back as it was written", shard.path.string());
      }
      return;
    }
    files.emplace_back(shard.path);
    found += files.back().tensors().size();
  }
  if (found != places.size()) {
    fail(ErrorKind::kInternal, "{}: {} tensors were read back, expected {}", folder.string(), found, places.size());
  }
  for (const auto& [name, place] : places) {
    const auto& tensors = files[place.shard].tensors();
    const auto it = tensors.find(name);
    if (it == tensors.end() || it->second.dtype != place.plan.dtype || it->second.shape != place.plan.shape ||
        it->second.begin != place.offset) {
      fail(ErrorKind::kInternal, "{}: tensor '{}' was not read back as it was planned", shards[place.shard].path.string(), name);
    }
  }
}

CheckpointWriter::CheckpointWriter(const fs::path& folder, const ShardPlan& plan) : state_(std::make_unique<State>(folder, plan)) {
  state_->lock.emplace(lock_checkpoint_folder(folder));
  state_->check_other_files();
  state_->open_shards();
}

CheckpointWriter::CheckpointWriter(const FolderLock& lock, const ShardPlan& plan)
    : state_(std::make_unique<State>(lock.folder(), plan)) {
  state_->check_other_files();
  state_->open_shards();
}

CheckpointWriter::~CheckpointWriter() = default;

bool CheckpointWriter::taken_over(const std::string& name) const { return state_->shards[state_->place(name).shard].taken_over; }

void CheckpointWriter::State::write(const std::string& key, Place& to, uint64_t offset, const at::Tensor& tensor) {
  ShardFile& shard = shards[to.shard];
  if (shard.renamed) {  // an earlier finish() came this far: what is being changed must not stand under a final name
    if (::rename(shard.path.c_str(), shard.partial.c_str()) != 0) fail_errno(shard.path, "rename", errno);
    shard.renamed = false;
    sync_folder(folder);
  }
  const at::Tensor data = tensor.to(at::kCPU).contiguous();
  const std::span bytes(static_cast<const std::byte*>(data.const_data_ptr()), data.nbytes());
  write_at(shard.descriptor.get(), shard.partial, bytes, to.offset + offset);
  checksums[key] = checksum_text(checksum_of_bytes(bytes));
}

// `shape`: what the tensor, or the part of it that is put, must have.
void CheckpointWriter::State::check(const std::string& name, const Place& to, const at::Tensor& tensor,
                                    at::IntArrayRef shape) const {
  if (finished) fail(ErrorKind::kInternal, "{}: tensor '{}' put after finish()", folder.string(), name);
  if (tensor.defined() && tensor.scalar_type() == to.plan.dtype && tensor.sizes() == shape) return;
  fail(ErrorKind::kInvalidArgument, "{}: tensor '{}' is {}, planned was {} {}", folder.string(), name,
       tensor.defined() ? fmt::format("{} {}", c10::toString(tensor.scalar_type()), shape_text(tensor.sizes())) : "undefined",
       c10::toString(to.plan.dtype), shape_text(shape));
}

void CheckpointWriter::put(const std::string& name, const at::Tensor& tensor) {
  Place& place = state_->place(name);
  state_->check(name, place, tensor, place.plan.shape);
  state_->write(name, place, 0, tensor);
  place.put = true;
}

void CheckpointWriter::put_part(const std::string& name, int64_t index, const at::Tensor& part) {
  Place& place = state_->place(name);
  const at::IntArrayRef whole = place.plan.shape;
  if (whole.empty() || index < 0 || index >= whole.front()) {
    fail(ErrorKind::kInvalidArgument, "{}: tensor '{}' of shape {} has no part {}", state_->folder.string(), name,
         shape_text(whole), index);
  }
  state_->check(name, place, part, whole.slice(1));
  state_->write(fmt::format("{}{}{}", name, kPartSign, index), place, static_cast<uint64_t>(index) * part.nbytes(), part);
  place.parts.insert(index);
  place.put = static_cast<int64_t>(place.parts.size()) == whole.front();
}

std::map<std::string, std::string> CheckpointWriter::take_checksums() { return std::exchange(state_->checksums, {}); }

std::string CheckpointWriter::find_changed(const std::map<std::string, std::string>& checksums) const {
  for (const auto& [key, checksum] : checksums) {
    const size_t sign = key.rfind(kPartSign);
    const auto found = state_->places.find(key.substr(0, sign));
    if (found == state_->places.end()) return key;
    const Place& place = found->second;
    const ShardFile& shard = state_->shards[place.shard];
    uint64_t bytes = data_bytes(place.plan);
    uint64_t offset = place.offset;
    if (sign != std::string::npos) {
      const int64_t parts = place.plan.shape.empty() ? 0 : place.plan.shape.front();
      const int64_t index = std::atoll(key.c_str() + sign + 1);
      if (index < 0 || index >= parts) return key;
      bytes /= static_cast<uint64_t>(parts);
      offset += static_cast<uint64_t>(index) * bytes;
    }
    if (checksum_text(checksum_of_part(shard.descriptor.get(), shard.partial, offset, bytes)) != checksum) return key;
  }
  return "";
}

void CheckpointWriter::sync() {
  for (const ShardFile& shard : state_->shards) {
    if (::fsync(shard.descriptor.get()) != 0) fail_errno(shard.partial, "flush", errno);
  }
}

void CheckpointWriter::finish() {
  State& state = *state_;
  if (state.finished) fail(ErrorKind::kInternal, "{}: finish() called twice", state.folder.string());
  std::vector<std::string> missing;
  for (const auto& [name, place] : state.places) {
    if (!place.put && !state.shards[place.shard].taken_over) missing.push_back(name);
  }
  if (!missing.empty()) {
    const size_t shown = std::min<size_t>(missing.size(), 3);
    fail(ErrorKind::kInvalidArgument, "{}: {} of {} planned tensors were not put, among them {}", state.folder.string(),
         missing.size(), state.places.size(),
         fmt::join(missing.begin(), missing.begin() + static_cast<std::ptrdiff_t>(shown), ", "));
  }
  sync();
  for (ShardFile& shard : state.shards) {
    if (!shard.renamed && ::rename(shard.partial.c_str(), shard.path.c_str()) != 0) fail_errno(shard.path, "rename to", errno);
    shard.renamed = true;
  }
  sync_folder(state.folder);
  if (state.shards.size() > 1) state.write_index();  // last: with it the checkpoint is complete
  state.finished = true;
  state.verify();
}

}  // namespace salient::models
