#include "models/io/npz.h"

#include <minizip/unzip.h>
#include <minizip/zip.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <set>
#include <utility>

#include "common/error.h"
#include "common/file.h"
#include "common/temporary_file.h"
#include "common/text.h"

namespace salient::models {
namespace {

constexpr std::string_view kSuffix = ".npy";
constexpr uint64_t kChunk = 64 << 20;        // minizip counts in unsigned int
constexpr uint64_t kMaxDeflateRatio = 1032;  // a deflate stream cannot expand more: 258 bytes from 2 bits
constexpr uLong kEncrypted = 1;
constexpr uLong kFirstDosDate = 0x00210000;  // 1980-01-01, the first that zip can say
constexpr size_t kMaxNameBytes = 65'000;

struct Member {
  unz64_file_pos position{};
  uint64_t stored = 0;
  uint64_t size = 0;
  uLong method = 0;
  uLong flags = 0;
};

bool ends_with_npy(const std::string& name) { return name.size() > kSuffix.size() && name.ends_with(kSuffix); }

}  // namespace

struct NpzFile::State {
  std::filesystem::path path;
  unzFile archive = nullptr;
  std::vector<std::string> names;
  std::map<std::string, Member> members;

  ~State() {
    if (archive != nullptr) unzClose(archive);
  }

  [[noreturn]] void corrupt(const std::string& what) const { fail(ErrorKind::kCorruption, "{}: {}", path.string(), what); }

  const Member& find(const std::string& name) const {
    const auto it = members.find(name);
    if (it == members.end())
      fail(ErrorKind::kNotFound, "{}: no array '{}' among its {}{}", path.string(), one_line(name), names.size(),
           did_you_mean(name, names));
    return it->second;
  }

  std::string where(const std::string& name) const { return fmt::format("{}: array '{}'", path.string(), one_line(name)); }

  // Reads exactly `bytes` bytes of the open member.
  void read_exactly(const std::string& name, std::byte* target, uint64_t bytes) const {
    for (uint64_t done = 0; done < bytes;) {
      const auto wanted = static_cast<unsigned>(std::min(bytes - done, kChunk));
      const int got = unzReadCurrentFile(archive, target + done, wanted);
      if (got < 0)
        corrupt(fmt::format("array '{}': the compressed data is broken near byte {} of {}", one_line(name), done, bytes));
      if (got == 0) corrupt(fmt::format("array '{}': {} bytes, expected {}: truncated", one_line(name), done, bytes));
      done += static_cast<uint64_t>(got);
    }
  }

  // Opens the member and reads as much as a header can have. Returns what was read.
  std::vector<std::byte> open_member(const std::string& name, const Member& member) const {
    if ((member.flags & kEncrypted) != 0)
      fail(ErrorKind::kUnsupported, "{}: it is encrypted, which NumPy does not write", where(name));
    if (member.method != 0 && member.method != Z_DEFLATED) {
      fail(ErrorKind::kUnsupported, "{}: compressed with zip method {}, supported are 0 (stored) and 8 (deflated)", where(name),
           member.method);
    }
    unz64_file_pos position = member.position;
    if (unzGoToFilePos64(archive, &position) != UNZ_OK || unzOpenCurrentFile(archive) != UNZ_OK) {
      corrupt(
          fmt::format("array '{}': its entry and the list of members say different things: the archive is broken", one_line(name)));
    }
    std::vector<std::byte> head(std::min<uint64_t>(member.size, kMaxNpyHeaderBytes));
    read_exactly(name, head.data(), head.size());
    return head;
  }
};

namespace {

// Closes the current member of an archive on every way out.
struct OpenMember {
  unzFile archive;
  bool open = true;
  ~OpenMember() {
    if (open) unzCloseCurrentFile(archive);
  }
  int close() {
    open = false;
    return unzCloseCurrentFile(archive);
  }
};

}  // namespace

NpzFile::NpzFile(const std::filesystem::path& path) : state_(std::make_unique<State>()) {
  state_->path = path;
  const uint64_t file_bytes = MappedFile(path).bytes().size();  // also tells a missing or unreadable file apart
  state_->archive = unzOpen64(path.c_str());
  if (state_->archive == nullptr) {
    throw Error(ErrorKind::kCorruption, fmt::format("{}: not a .npz file: no zip archive ends it, or it is truncated ({} bytes)",
                                                    path.string(), file_bytes))
        .with_hint("np.savez and np.savez_compressed write .npz files; a single .npy array is read where one array is asked for");
  }
  unz_global_info64 global{};
  unzGetGlobalInfo64(state_->archive, &global);
  uint64_t seen = 0;
  int status = global.number_entry == 0 ? UNZ_END_OF_LIST_OF_FILE : unzGoToFirstFile(state_->archive);
  for (; status == UNZ_OK; status = unzGoToNextFile(state_->archive), ++seen) {
    unz_file_info64 info{};
    if (unzGetCurrentFileInfo64(state_->archive, &info, nullptr, 0, nullptr, 0, nullptr, 0) != UNZ_OK) break;
    if (info.size_filename > kMaxNameBytes)
      state_->corrupt(fmt::format("a member's name has {} bytes, expected at most {}", info.size_filename, kMaxNameBytes));
    std::string name(info.size_filename + 1, '\0');
    if (unzGetCurrentFileInfo64(state_->archive, &info, name.data(), static_cast<uLong>(name.size()), nullptr, 0, nullptr, 0) !=
        UNZ_OK)
      break;
    name.resize(info.size_filename);
    if (!ends_with_npy(name)) continue;
    name.resize(name.size() - kSuffix.size());
    Member member{{}, info.compressed_size, info.uncompressed_size, info.compression_method, info.flag};
    unzGetFilePos64(state_->archive, &member.position);
    if (member.stored > file_bytes)
      state_->corrupt(fmt::format("array '{}' takes {} bytes, but the file has {}", one_line(name), member.stored, file_bytes));
    if (!state_->members.emplace(name, member).second)
      state_->corrupt(fmt::format("the array '{}' is there twice", one_line(name)));
    state_->names.push_back(std::move(name));
  }
  if (status != UNZ_END_OF_LIST_OF_FILE || seen != global.number_entry) {
    state_->corrupt(fmt::format("the list of members is broken after {} of {}", seen, global.number_entry));
  }
}

NpzFile::~NpzFile() = default;
NpzFile::NpzFile(NpzFile&&) noexcept = default;

const std::filesystem::path& NpzFile::path() const { return state_->path; }
const std::vector<std::string>& NpzFile::names() const { return state_->names; }
bool NpzFile::contains(const std::string& name) const { return state_->members.contains(name); }
uint64_t NpzFile::stored_bytes(const std::string& name) const { return state_->find(name).stored; }

NpyHeader NpzFile::header(const std::string& name) const {
  const Member& member = state_->find(name);
  const OpenMember guard{state_->archive};
  return parse_npy_header(state_->open_member(name, member), state_->where(name));
}

at::Tensor NpzFile::read(const std::string& name) const {
  const Member& member = state_->find(name);
  OpenMember guard{state_->archive};
  const std::vector<std::byte> head = state_->open_member(name, member);
  const NpyHeader header = parse_npy_header(head, state_->where(name));
  if (header.header_bytes + header.data_bytes != member.size) {
    state_->corrupt(fmt::format("array '{}': {} bytes, but shape ({}) needs {}", one_line(name), member.size,
                                fmt::join(header.shape, ", "), header.header_bytes + header.data_bytes));
  }
  const uint64_t most = member.method == 0 ? member.stored : (member.stored + 1) * kMaxDeflateRatio;
  if (member.size > most) {
    state_->corrupt(
        fmt::format("array '{}': {} bytes cannot come out of {} stored ones", one_line(name), member.size, member.stored));
  }
  std::vector<std::byte> data(header.data_bytes);
  const uint64_t known = head.size() - header.header_bytes;
  std::copy(head.begin() + static_cast<std::ptrdiff_t>(header.header_bytes), head.end(), data.begin());
  state_->read_exactly(name, data.data() + known, header.data_bytes - known);
  if (guard.close() != UNZ_OK)
    state_->corrupt(fmt::format("array '{}': its checksum is wrong: the data was changed", one_line(name)));
  return decode_npy_data(header, data);
}

struct NpzWriter::State {
  std::filesystem::path path;
  TemporaryFile temporary;
  bool compressed = false;
  zipFile archive = nullptr;
  std::set<std::string> names;

  ~State() {
    if (archive != nullptr) zipClose(archive, nullptr);
    if (temporary.descriptor < 0) return;
    ::unlink(temporary.path.c_str());
    ::close(temporary.descriptor);
  }

  void check(int status, std::string_view action) const {
    if (status != ZIP_OK) fail_errno(path, action, errno == 0 ? EIO : errno);
  }
};

NpzWriter::NpzWriter(std::filesystem::path path, bool compressed) : state_(std::make_unique<State>()) {
  state_->compressed = compressed;
  if (path.has_parent_path()) {
    std::error_code error;
    std::filesystem::create_directories(path.parent_path(), error);
    if (error) fail_errno(path.parent_path(), "create the folder", error.value());
  }
  state_->path = std::move(path);
  state_->temporary = make_temporary_file(state_->path);
  errno = 0;
  state_->archive = zipOpen64(state_->temporary.path.c_str(), APPEND_STATUS_CREATE);
  if (state_->archive == nullptr) fail_errno(state_->path, "create", errno == 0 ? EIO : errno);
}

NpzWriter::~NpzWriter() = default;

void NpzWriter::add(const std::string& name, const at::Tensor& array) {
  if (name.empty() || name.size() > kMaxNameBytes || name.find('\0') != std::string::npos) {
    fail(ErrorKind::kInvalidArgument, "{}: an array's name must have 1 to {} bytes and no NUL, not {}", state_->path.string(),
         kMaxNameBytes, name.size());
  }
  if (!state_->names.insert(name).second)
    fail(ErrorKind::kInvalidArgument, "{}: the array '{}' is added twice", state_->path.string(), one_line(name));
  const at::Tensor data = array.cpu().contiguous();
  const std::string header =
      with_context(state_->path.string(), [&] { return make_npy_header(data.scalar_type(), data.sizes().vec()); });

  const std::string member = name + std::string(kSuffix);
  zip_fileinfo info{};
  info.dosDate = kFirstDosDate;
  const int level = Z_DEFAULT_COMPRESSION;
  const bool large = data.nbytes() > 0xff000000u;  // near 4 GiB: the entry needs zip64 sizes
  constexpr uLong kUtf8Names = 1 << 11;
  errno = 0;
  const int opened = zipOpenNewFileInZip4_64(state_->archive, member.c_str(), &info, nullptr, 0, nullptr, 0, nullptr,
                                             state_->compressed ? Z_DEFLATED : 0, level, 0, -MAX_WBITS, DEF_MEM_LEVEL,
                                             Z_DEFAULT_STRATEGY, nullptr, 0,
                                             /*versionMadeBy=*/0, kUtf8Names, large ? 1 : 0);
  state_->check(opened, "write");
  const auto write = [&](const void* bytes, uint64_t size) {
    for (uint64_t done = 0; done < size; done += std::min(size - done, kChunk)) {
      const auto part = static_cast<unsigned>(std::min(size - done, kChunk));
      state_->check(zipWriteInFileInZip(state_->archive, static_cast<const char*>(bytes) + done, part), "write");
    }
  };
  write(header.data(), header.size());
  if (data.nbytes() > 0) write(data.const_data_ptr(), data.nbytes());
  state_->check(zipCloseFileInZip(state_->archive), "write");
}

void NpzWriter::commit() {
  errno = 0;
  const int closed = zipClose(state_->archive, nullptr);
  state_->archive = nullptr;
  state_->check(closed, "write");
  if (::fsync(state_->temporary.descriptor) != 0) fail_errno(state_->path, "flush", errno);
  std::error_code renamed;
  std::filesystem::rename(state_->temporary.path, state_->path, renamed);
  if (renamed) fail_errno(state_->path, "rename to", renamed.value());
  ::close(std::exchange(state_->temporary.descriptor, -1));
  sync_folder(state_->path.has_parent_path() ? state_->path.parent_path() : std::filesystem::path("."));
}

}  // namespace salient::models
