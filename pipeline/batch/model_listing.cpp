#include "pipeline/batch/model_listing.h"

#include <algorithm>
#include <set>
#include <system_error>

#include "common/error.h"
#include "common/json.h"
#include "models/gguf/gguf_summary.h"
#include "models/io/model_file_probe.h"
#include "models/io/model_folder.h"
#include "pipeline/batch/completeness.h"
#include "pipeline/work_folder.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kCachePrefix = "models--";

// What one folder holds, as far as models are concerned.
struct FolderFiles {
  bool config = false;
  bool adapter = false;
  bool tokenizer = false;
  bool index = false;
  std::vector<fs::path> safetensors;
  std::vector<fs::path> gguf;
  std::vector<fs::path> scripts;  // .pt, .pth, .ts
  std::vector<fs::path> pickled;  // .bin
  std::vector<fs::path> folders;
};

FolderFiles read_folder(const fs::path& folder) {
  FolderFiles files;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with('.')) continue;
    std::error_code ignored;  // a link to nowhere is neither a folder nor a file
    if (entry.is_directory(ignored)) files.folders.push_back(entry.path());
    if (!entry.is_regular_file(ignored)) continue;
    const std::string extension = entry.path().extension().string();
    files.config = files.config || name == "config.json";
    files.adapter = files.adapter || name == "adapter_config.json";
    files.tokenizer = files.tokenizer || name == "tokenizer.json";
    files.index = files.index || name == "model.safetensors.index.json";
    if (extension == ".safetensors") files.safetensors.push_back(entry.path());
    if (extension == ".gguf") files.gguf.push_back(entry.path());
    if (extension == ".pt" || extension == ".pth" || extension == ".ts") files.scripts.push_back(entry.path());
    if (extension == ".bin" && name.starts_with("pytorch_model")) files.pickled.push_back(entry.path());
  }
  for (auto* list : {&files.gguf, &files.scripts, &files.folders}) std::sort(list->begin(), list->end());
  return files;
}

// Other programs have a config.json, too.
bool is_model_config(const fs::path& file) {
  try {
    const Json config = read_json_file(file);
    return config.is_object() &&
           (config.contains("model_type") || config.contains("architectures") || config.contains("quantization_config"));
  } catch (const Error&) {
    return true;  // half written, perhaps
  }
}

// ".../models--org--name/snapshots/<commit>" -> "org/name"; "" elsewhere.
std::string hub_name(const fs::path& folder) {
  if (folder.parent_path().filename() != "snapshots") return "";
  std::string name = folder.parent_path().parent_path().filename().string();
  if (!name.starts_with(kCachePrefix)) return "";
  name.erase(0, kCachePrefix.size());
  if (const size_t between = name.find("--"); between != std::string::npos) name.replace(between, 2, "/");
  return name;
}

class Lister {
 public:
  explicit Lister(fs::path root) : root_(std::move(root)) {}

  void visit(const fs::path& folder) {
    std::error_code unreadable;
    if (!seen_.insert(fs::canonical(folder, unreadable)).second || unreadable) return;
    FolderFiles files;
    try {
      files = read_folder(folder);
    } catch (const fs::filesystem_error& error) {
      leave_out(folder, fmt::format("cannot be read: {}", error.code().message()));
      return;
    }
    list_folder(folder, files);
    for (const fs::path& inside : files.folders) {
      if (is_unfinished_name(inside.filename().string()))
        leave_out(inside, "incomplete: by its name it is still being written, or was left behind by a job that was stopped");
      else
        visit(inside);
    }
  }

  ModelListing take() {
    std::sort(listing_.models.begin(), listing_.models.end(), [](const auto& a, const auto& b) { return a.path < b.path; });
    std::sort(listing_.left_out.begin(), listing_.left_out.end(), [](const auto& a, const auto& b) { return a.path < b.path; });
    return std::move(listing_);
  }

 private:
  void list_folder(const fs::path& folder, const FolderFiles& files) {
    const bool tensors = !files.safetensors.empty() || files.index;
    if (files.adapter && !files.config) {
      leave_out(folder, "a LoRA adapter, no model of its own: merge it into its base first");
    } else if (tensors) {
      add(folder, ModelKind::kCheckpoint);
    }
    // An artifact's folder has its name; a file that merely lies somewhere has its own.
    const bool artifact = folder != root_ && (files.tokenizer || files.config);
    const bool alone = artifact && !tensors && files.gguf.size() == 1;
    for (const fs::path& file : files.gguf) add(alone ? folder : file, ModelKind::kGguf);
    const bool scripts = list_scripts(folder, files, tensors);
    if (tensors || scripts || !files.gguf.empty() || files.adapter || !files.config || !is_model_config(folder / "config.json"))
      return;
    leave_out(folder, files.pickled.empty()
                          ? "incomplete: config.json without weights"
                          : "its weights are pickled: save it with save_pretrained(folder, safe_serialization=True) first");
  }

  // Optimizers' and schedulers' states have the same extensions.
  bool list_scripts(const fs::path& folder, const FolderFiles& files, bool tensors) {
    std::vector<fs::path> modules;
    for (const fs::path& file : files.scripts) {
      try {
        if (models::is_torchscript(file)) modules.push_back(file);
      } catch (const Error& error) {
        leave_out(file, error.message());
      }
    }
    const bool alone = folder != root_ && modules.size() == 1 && files.scripts.size() == 1 && !tensors && files.gguf.empty();
    for (const fs::path& file : modules) add(alone ? folder : file, ModelKind::kTorchscript);
    if (modules.empty() && !files.scripts.empty() && !tensors && files.gguf.empty() && files.tokenizer) {
      leave_out(folder, fmt::format("incomplete: {} is no whole TorchScript archive", files.scripts.front().filename().string()));
      return true;
    }
    return !modules.empty();
  }

  void add(const fs::path& path, ModelKind kind) {
    if (is_unfinished_name(path.filename().string())) return leave_out(path, "incomplete: by its name it is still being written");
    if (const std::string missing = why_incomplete(path, kind); !missing.empty()) return leave_out(path, "incomplete: " + missing);
    ListedModel model;
    model.path = path;
    model.kind = kind;
    try {
      if (kind == ModelKind::kTorchscript && !fs::is_directory(path)) {  // of what lies beside it nothing is told
        model.detected.format = "torchscript";
        model.detected.method = "unknown";
        model.detected.disk_bytes = fs::file_size(path);
      } else {
        model.detected = models::detect_model(path);
      }
      describe(model);
    } catch (const Error& error) {
      return leave_out(path, error.message());
    }
    listing_.models.push_back(std::move(model));
  }

  void describe(ListedModel& model) const {
    const std::string hub = hub_name(model.path);
    const fs::path relative = model.path.lexically_relative(root_);
    model.label = !hub.empty()                          ? hub
                  : relative == "." || relative.empty() ? models::model_name(model.path)
                                                        : relative.generic_string();
    model.name = !hub.empty() ? hub.substr(hub.find('/') + 1) : models::model_name(model.path);
    const bool ours = fs::is_directory(model.path) && fs::exists(model.path / kMetadataFile);
    if (model.kind == ModelKind::kGguf) {
      model.original = !ours && model.detected.quantized_linears == 0;
    } else if (model.kind == ModelKind::kCheckpoint) {
      model.original = !ours && model.detected.format == "float";
      model.wants_base = !model.original;
    }
  }

  void leave_out(const fs::path& path, std::string reason) { listing_.left_out.push_back({path, std::move(reason)}); }

  fs::path root_;
  std::set<fs::path> seen_;
  ModelListing listing_;
};

}  // namespace

bool is_unfinished_name(std::string_view name) {
  for (const std::string_view ending : {".partial", ".replaced", ".tmp", ".incomplete", ".part", ".crdownload"}) {
    if (name.ends_with(ending)) return true;
  }
  return name.starts_with("tmp-") || name.starts_with("tmp_checkpoint") || name.find(".partial.") != std::string_view::npos;
}

ModelListing list_models(const fs::path& folder) {
  std::error_code ignored;
  if (!fs::exists(folder, ignored)) fail(ErrorKind::kNotFound, "{}: no such folder", folder.string());
  if (!fs::is_directory(folder, ignored)) {
    throw Error(ErrorKind::kInvalidArgument, fmt::format("{}: is a file, expected a folder with models", folder.string()))
        .with_hint("salient eval takes a single model");
  }
  fs::path root = folder.lexically_normal();
  if (!root.has_filename() && root.has_parent_path() && root != root.root_path()) root = root.parent_path();  // "Models/"
  Lister lister(root);
  lister.visit(root);
  return lister.take();
}

}  // namespace salient::pipeline
