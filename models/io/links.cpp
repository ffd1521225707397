#include "models/io/links.h"

#include <algorithm>
#include <string>
#include <system_error>

#include "common/error.h"

namespace salient::models {
namespace fs = std::filesystem;
namespace {

// What links may lead to: the folder, or of a snapshot what it shares its files with.
fs::path root_of(const fs::path& folder) {
  const fs::path snapshots = folder.parent_path();
  const fs::path model = snapshots.parent_path();
  const bool cached = snapshots.filename() == "snapshots" && model.filename().string().starts_with("models--");
  return cached ? model : folder;
}

bool is_inside(const fs::path& path, const fs::path& root) {
  return std::mismatch(root.begin(), root.end(), path.begin(), path.end()).first == root.end();
}

}  // namespace

void check_links(const fs::path& folder) {
  const fs::path root = root_of(fs::canonical(folder));
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (!entry.is_symlink()) continue;
    std::error_code broken;  // whoever wants the file will miss it
    const fs::path target = fs::canonical(entry.path(), broken);
    if (broken || is_inside(target, root)) continue;
    throw Error(
        ErrorKind::kInvalidArgument,
        fmt::format("{}: is a link that leads out of the model's folder, to {}; such files are not read: a checkpoint of somebody "
                    "else's could so name any file of yours",
                    entry.path().string(), target.string()))
        .with_hint("if the file is meant, put it in the link's place, or name the folder that it lies in");
  }
}

}  // namespace salient::models
