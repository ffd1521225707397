#include "pipeline/batch/completeness.h"

#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <set>
#include <system_error>

#include "common/error.h"
#include "models/gguf/gguf_summary.h"
#include "models/io/checkpoint.h"
#include "models/io/gguf.h"
#include "models/io/model_file_probe.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

constexpr const char* kTokenizer = "tokenizer.json";

std::string check_checkpoint(const fs::path& folder) {
  if (!fs::exists(folder / "config.json")) return "no config.json beside the weights";
  const models::Checkpoint checkpoint(folder);  // every shard, and each as long as its header says
  if (checkpoint.names().empty()) return "the weight files hold no tensor";
  if (!fs::exists(folder / kTokenizer)) return "no tokenizer.json";
  return "";
}

std::string check_gguf(const fs::path& model) {
  const auto file = models::find_gguf_model(model);
  if (!file) return "no GGUF file";
  const auto summary = models::read_gguf_summary(*file);
  if (!summary) return "does not begin with \"GGUF\"";
  if (summary->kind != "model") return fmt::format("no model: general.type says {}", summary->kind);
  if (summary->split_count > 1)
    return fmt::format("one of {} files that a model was split into; merge them with llama-gguf-split --merge",
                       summary->split_count);
  const models::GgufFile whole(*file);
  if (summary->tokenizer.empty()) return "no tokenizer in it";
  return "";
}

std::string check_torchscript(const fs::path& model) {
  if (fs::is_regular_file(model) && !models::is_torchscript(model)) return "no whole TorchScript archive";
  const fs::path folder = fs::is_directory(model) ? model : fs::absolute(model).parent_path();
  return fs::exists(folder / kTokenizer) ? "" : "no tokenizer.json beside it";
}

int64_t nanoseconds(const timespec& time) { return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec; }

// Links are followed: the Hugging Face cache is made of them.
void add_stamp(const fs::path& file, FileStamps& stamps) {
  struct stat found {};
  if (::stat(file.c_str(), &found) != 0 || !S_ISREG(found.st_mode)) return;
  stamps[file] = {static_cast<uint64_t>(found.st_size), nanoseconds(found.st_mtim), nanoseconds(found.st_ctim)};
}

}  // namespace

std::string why_incomplete(const fs::path& model, ModelKind kind) {
  try {
    switch (kind) {
      case ModelKind::kCheckpoint: return check_checkpoint(model);
      case ModelKind::kGguf: return check_gguf(model);
      case ModelKind::kTorchscript: return check_torchscript(model);
    }
  } catch (const Error& error) {
    const std::string own = model.string() + ": ";
    const std::string& text = error.message();
    return text.starts_with(own) ? text.substr(own.size()) : text;
  } catch (const fs::filesystem_error& error) {  // it vanished while it was looked at
    return error.code().message();
  }
  return "";
}

FileStamps file_stamps(const fs::path& model) {
  static const std::set<std::string> kOpen = {"README.md", "quantization_metadata.json"};
  FileStamps stamps;
  std::error_code ignored;
  if (!fs::is_directory(model, ignored)) {
    add_stamp(model, stamps);
    add_stamp(fs::absolute(model).parent_path() / kTokenizer, stamps);
    return stamps;
  }
  for (fs::directory_iterator it(model, ignored), end; !ignored && it != end; it.increment(ignored)) {
    const std::string name = it->path().filename().string();
    if (!name.starts_with('.') && !kOpen.contains(name)) add_stamp(it->path(), stamps);
  }
  return stamps;
}

double seconds_since_change(const FileStamps& stamps) {
  int64_t last = 0;
  for (const auto& [file, stamp] : stamps) last = std::max({last, stamp.modified_ns, stamp.changed_ns});
  const auto now = std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch());
  return static_cast<double>(now.count() - last) * 1e-9;
}

}  // namespace salient::pipeline
